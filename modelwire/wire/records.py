"""Signed records: what devices and the centre say to each other beside updates. Parsed once, here, into frozen types.

docs/protocol.md has every field with its range, and who may say what.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

from modelwire import limits
from modelwire.errors import Malformed, TooLarge, WrongFleet, WrongRole
from modelwire.names import ALL, check_name, check_own_name
from modelwire.text import is_plain

from . import cbor, more, signing
from .fields import check_field
from .signing import Role

MAGIC = b"\x89MWR"
VERSION = 1
NOT_UNDERSTOOD = "not understood"  # the answer to a kind or verb that the reader does not know
_HEAD = struct.Struct("<4sBBH16s")  # magic, version, role, bytes of CBOR, fleet id

R = TypeVar("R", bound="Record")


class Level(str, Enum):
    """How far an update has come at the centre."""

    STORED = "stored"  # committed and linked to its parent: stop resending, keep the bytes
    VERIFIED = "verified"  # rebuilt, root equal: free the bytes
    REFUSED = "refused"  # never served: send a snapshot whose parent is the last good commit


@dataclass(frozen=True, slots=True)
class Record:
    """Common to all: who it is about and when it was said."""

    KIND: ClassVar[str] = ""
    ROLES: ClassVar[tuple[Role, ...]] = ()  # who may say it

    fleet: str
    device: str
    model: str
    at: int  # Unix seconds of the sender's clock; information, never trusted for anything
    more: Mapping[str, cbor.Value] = field(default_factory=dict, kw_only=True)  # what later releases say


@dataclass(frozen=True, slots=True)
class Hello(Record):
    """A device's model says what it has; repeated until a Welcome answers."""

    KIND: ClassVar[str] = "hello"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.DEVICE,)

    key: bytes  # the device's public key
    state: bytes  # 16 random bytes made with the state folder: a lost disk makes a new one
    base: bytes  # commit of the base that the head is on
    epoch: int  # 0: none granted yet
    version: int  # the head's, 0 = the base
    commit: bytes  # the head's
    runtime: str  # replay class: runtime, version, ISA, delegate, threads
    agent: str  # release of the agent
    trust: int  # number of the newest trust record that it holds; 0: none
    answer: bytes  # the challenge of the last welcome, or empty: without it no epoch is opened
    claim: bytes  # a token that lets it enrol, or empty
    resume: bool  # set up anew, it would like its last model back
    trainers: tuple[int, ...]  # versions of the exact trainer that it has, rising


@dataclass(frozen=True, slots=True)
class Welcome(Record):
    """The centre's answer to a Hello."""

    KIND: ClassVar[str] = "welcome"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.RECEIPT,)

    state: bytes  # as in the Hello that it answers
    status: str  # "ok", "quarantine" (unknown key), "unknown-base" or "challenge"; a word not known means: not ok
    epoch: int  # granted; 0 unless ok
    version: int  # the last version number ever used in any epoch: the device counts on from there
    head: bytes  # commit of the head in this epoch; the base's when there is none
    head_version: int  # 0 = the base
    verified: int  # the last version in this epoch of which all before are verified; 0 = the base
    time: int  # Unix seconds of the centre's clock: by the newest that a device has seen it judges what has expired
    challenge: bytes  # to be said back in `answer`, or empty
    wait: int  # seconds before the device may send updates; 0: at once
    log: bytes  # end of the centre's log (log.Link), or empty when it keeps none
    resume: bytes  # commit of the last head, which the device may have back, or empty
    resume_version: int  # its version
    trainers: tuple[int, ...]  # versions of the exact trainer that the centre replays, rising


@dataclass(frozen=True, slots=True)
class Wait(Record):
    """The centre asks a device to send nothing for a while."""

    KIND: ClassVar[str] = "wait"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.RECEIPT,)

    seconds: int  # from when it came; 0 ends a wait
    reason: str


@dataclass(frozen=True, slots=True)
class Command(Record):
    """The operator asks a device for something; repeated until a Response names its number."""

    KIND: ClassVar[str] = "command"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.COMMAND,)

    number: int  # rises for each device and model
    expiry: int  # Unix seconds: later it is not carried out
    state: bytes  # of the state folder that it is for
    epoch: int  # that it is for
    parent: bytes  # commit that the model must be at, or empty; it gates what is done to the model alone
    verb: str  # "snapshot", "adopt", "leaves", "leaf" or "take"
    body: Mapping[str, cbor.Value]  # what the verb needs


@dataclass(frozen=True, slots=True)
class Response(Record):
    """The answer to a Command, or to what is not understood."""

    KIND: ClassVar[str] = "response"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.DEVICE, Role.RECEIPT)

    number: int  # of the command; 0 when what is answered had none
    ok: bool
    text: str  # for people; NOT_UNDERSTOOD is for the sender too
    body: Mapping[str, cbor.Value]  # what was asked for


@dataclass(frozen=True, slots=True)
class Receipt(Record):
    """What the centre says about one update. The outbox stops resending on `stored` and frees the bytes on `verified`."""

    KIND: ClassVar[str] = "receipt"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.RECEIPT,)

    epoch: int
    version: int
    commit: bytes  # 32 bytes, of the container that it answers
    level: Level
    reason: str  # why it was refused; empty otherwise
    good: bytes  # the last good commit when refused; empty otherwise
    good_version: int  # its version; 0 = the base
    place: int  # number of the entry in the centre's log that says so; 0 when it keeps none


@dataclass(frozen=True, slots=True)
class Presence(Record):
    """Whether a device is on line; `online=False` is its last will."""

    KIND: ClassVar[str] = "presence"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.DEVICE,)

    boot: int  # rises with each start: a late will of an older session is ignored
    online: bool


@dataclass(frozen=True, slots=True)
class Transfer(Record):
    """The manifest of what travels in parts: an update, a base or a bundle, either way."""

    KIND: ClassVar[str] = "transfer"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.DEVICE, Role.RECEIPT)

    id: bytes  # SHA-256 of the whole
    size: int  # bytes of the whole
    part_size: int  # bytes of each part but the last: a power of two
    what: str  # "update", "base" or "bundle"
    tree: bytes  # root of the tree over the parts as leaves: proves each of them
    parent: bytes  # commit of what it is an update of, or empty


@dataclass(frozen=True, slots=True)
class Wanted(Record):
    """Which parts of a transfer the other side holds; the sender sends the others."""

    KIND: ClassVar[str] = "wanted"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.DEVICE, Role.RECEIPT)

    id: bytes  # of the transfer
    have: bytes  # bitmap, bit i of byte i//8 (lowest first): part i is held


@dataclass(frozen=True, slots=True)
class Desired(Record):
    """What the centre wants a device to run."""

    KIND: ClassVar[str] = "desired"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.DIRECTOR,)

    number: int  # rises for each device and model
    expiry: int  # Unix seconds: later it counts no more
    variant: bytes  # commit of the base to run
    bytes: int  # size of its file
    phase: int  # of the rollout, for the report


@dataclass(frozen=True, slots=True)
class Report(Record):
    """How far a device has come with what is desired."""

    KIND: ClassVar[str] = "report"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.DEVICE,)

    number: int  # of the Desired
    variant: bytes  # likewise
    state: str  # of the device's machine: offered, fetching, staged, ...
    phase: int  # of the Desired
    slot: str  # where the variant lies: active or passive, or empty
    bytes: int  # fetched
    before: float | None  # score on held-out samples before, if there is one
    after: float | None  # and after
    reason: str  # why it does not go on; else empty


@dataclass(frozen=True, slots=True)
class Enrol(Record):
    """A device asks to be let in, before any model of its own."""

    KIND: ClassVar[str] = "enrol"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.DEVICE,)

    key: bytes  # its public key
    claim: bytes  # a token that lets it in
    serial: str  # of the board, or empty
    agent: str  # release of the agent


@dataclass(frozen=True, slots=True)
class Trust(Record):
    """Which keys speak for the centre, from when, until when."""

    KIND: ClassVar[str] = "trust"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.ROOT,)

    number: int  # rises: a device never goes back
    since: int  # Unix seconds
    until: int  # Unix seconds; 0: no end
    overlap: int  # seconds from `since` on in which the keys of the record before are still good
    root: bytes  # public key that signs the next record
    receipt: bytes  # public keys, 32 bytes each
    command: bytes  # likewise
    director: bytes  # likewise


@dataclass(frozen=True, slots=True)
class Act(Record):
    """What the operator decided about a device: kept in the registry, never sent to a board."""

    KIND: ClassVar[str] = "act"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.ACT,)

    number: int  # rises
    verb: str  # "admit" or "revoke"
    key: bytes  # the device's public key


@dataclass(frozen=True, slots=True)
class Unknown(Record):
    """A record of a kind that this release does not know: answered `not understood`, once its signature holds."""

    kind: str
    number: int  # that the answer names; 0 when it has none


KINDS: dict[str, type[Record]] = {
    c.KIND: c
    for c in (Hello, Welcome, Wait, Command, Response, Receipt, Presence, Transfer, Wanted, Desired, Report, Enrol, Trust, Act)
}
_AT_LEAST_ONE = (Command, Desired, Report, Trust, Act)  # whose number is never 0
WHATS, VERBS = ("update", "base", "bundle"), ("admit", "revoke")  # of a transfer; of an act


@dataclass(frozen=True, slots=True)
class Signed:
    """A parsed record with its signature, not yet verified."""

    record: Record
    role: Role  # who it says has signed it
    fleet: bytes  # id of the fleet that it says it is of
    body: bytes
    signature: bytes

    def check(self, fleet: bytes, role: Role) -> None:
        """Raise WrongRole or WrongFleet unless it is said in this role and in the fleet with this id."""
        if self.role is not role:
            raise _wrong_role(self.record.KIND or "of an unknown kind", self.role, (role,))
        if self.fleet != fleet:
            raise WrongFleet(what=f"{self.record.KIND or 'a record'} for {self.record.fleet}", got=self.fleet.hex(), expected=fleet.hex())

    def verify(self, public: bytes, fleet: bytes, signer: str, role: Role = Role.DEVICE) -> None:
        """Raise as `check`, or BadSignature unless `public` signed it in this role."""
        self.check(fleet, role)
        signing.verify(public, role.domain, fleet, self.body, self.signature, what=self.record.KIND or "record", signer=signer)


def encode(
    record: Record, key: signing.Signer, fleet: bytes, limit: limits.Limits = limits.DEFAULT, *, role: Role | None = None
) -> bytes:
    """Return the signed record as bytes. fleet: the fleet's id. role: who says it, where more than one may.

    Raises Malformed when a field is out of range, WrongRole, TooLarge when no reader would take it.
    """
    _check(record)
    role = record.ROLES[0] if role is None else role
    if role not in record.ROLES:
        raise _wrong_role(record.KIND, role, record.ROLES)
    values: dict[str, cbor.Value] = {"kind": record.KIND}
    for name in _names(type(record)):
        if name != more.KEY:
            values[name] = _plain(getattr(record, name))
    content = cbor.encode(values | more.to_be_sent(record.more))
    size = _HEAD.size + len(content) + signing.SIGNATURE_BYTES
    if size > limit.record:
        raise TooLarge(what="the record", size=size, limit=limit.record)
    body = _HEAD.pack(MAGIC, VERSION, role, len(content), fleet) + content
    return body + key.sign(role.domain, fleet, body)


def parse(data: bytes, limit: limits.Limits = limits.DEFAULT) -> Signed:
    """Return the record that `data` holds, exactly; of a kind that is not known, an Unknown.

    Raises TooLarge, Malformed, WrongRole, or NotUnderstood for a critical key.
    """
    if len(data) > limit.record:
        raise TooLarge(what="the record", size=len(data), limit=limit.record)
    if len(data) < _HEAD.size + signing.SIGNATURE_BYTES:
        raise Malformed(what="record", reason=f"{len(data)} bytes are too few")
    magic, version, number, size, fleet = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise Malformed(what="record", reason="it does not start as a record of release 1")
    end = _HEAD.size + size
    if end + signing.SIGNATURE_BYTES != len(data):
        raise Malformed(what="record", reason="its parts do not fill it exactly")
    role = next((r for r in Role if r == number), None)
    if role is None:
        raise Malformed(what="record", reason=f"{number} is no role")
    values = cbor.decode(data[_HEAD.size : end], "record", limit)
    kind = values.pop("kind", None) if isinstance(values, dict) else None
    if not isinstance(kind, str) or not isinstance(values, dict):
        raise Malformed(what="record", reason=f"{str(kind)[:40]!r} is not a kind of record")
    cls = KINDS.get(kind)
    if cls is None:
        return Signed(_unknown(kind, values), role, fleet, data[:end], data[end:])
    if role not in cls.ROLES:
        raise _wrong_role(kind, role, cls.ROLES)
    return Signed(_build(cls, values), role, fleet, data[:end], data[end:])


def expect(signed: Signed, cls: type[R]) -> R:
    """Return the record when it is of the class `cls`. Raises Malformed."""
    if not isinstance(signed.record, cls):
        raise Malformed(what="record", reason=f"a {signed.record.KIND or 'record'} where a {cls.KIND} belongs")
    return signed.record


def _wrong_role(kind: str, role: Role, roles: tuple[Role, ...]) -> WrongRole:
    return WrongRole(what=f"the record {kind}", got=role.name.lower(), needed=" or ".join(r.name.lower() for r in roles))


_named: dict[str, tuple[str, ...]] = {}  # by the kind of record; "" is Unknown


def _names(cls: type[Record]) -> tuple[str, ...]:
    """Return the names of a record's fields; each message asks for them twice."""
    names = _named.get(cls.KIND)
    if names is None:
        names = _named[cls.KIND] = tuple(f.name for f in fields(cls))
    return names


def _plain(value: Any) -> cbor.Value:
    if type(value) in _PLAIN:
        return value  # type: ignore[no-any-return]
    if isinstance(value, Level):
        return value.value
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


_PLAIN = (str, int, bytes, bool, float, type(None))
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "bytes": (bytes,), "bool": (bool,), "Level": (str,), "tuple[int, ...]": (list,),
    "Mapping[str, cbor.Value]": (dict,), "float | None": (float, type(None)),
}  # fmt: skip


def _build(cls: type[Record], values: dict[str, cbor.Value]) -> Record:
    further = more.taken(values, cls.KIND)
    known = {f.name: f for f in fields(cls) if f.name != more.KEY}
    if values.keys() != known.keys():
        missing, strange = sorted(known.keys() - values.keys()), sorted(values.keys() - known.keys())
        raise Malformed(what=cls.KIND, reason=f"fields missing {missing}, unknown {strange}"[:200])
    made: dict[str, Any] = dict(values)
    for name, f in known.items():
        if type(made[name]) not in _TYPES[str(f.type)]:
            raise Malformed(what=cls.KIND, reason=f"{name} is not of type {f.type}")
        if f.type == "Level":
            if made[name] not in [level.value for level in Level]:
                raise Malformed(what=cls.KIND, reason="level is not stored, verified or refused")
            made[name] = Level(made[name])
        elif f.type == "tuple[int, ...]":
            made[name] = tuple(made[name])
    record = cls(**made, more=further)
    _check(record)
    return record


def _unknown(kind: str, values: dict[str, cbor.Value]) -> Unknown:
    """Return what of an unknown record can be answered. Raises Malformed when it does not say whom it is about."""
    further = more.taken(values, "record")
    fleet, device, model, at = values.get("fleet"), values.get("device"), values.get("model"), values.get("at")
    if not (isinstance(fleet, str) and isinstance(device, str) and isinstance(model, str) and type(at) is int):
        raise Malformed(what="record", reason="it does not say whom it is about, and when it was said")
    if len(kind) > limits.NAME_MAX or not is_plain(kind):
        raise Malformed(what="record", reason=f"{kind[:40]!r} is not a kind of record")
    number = values.get("number")
    record = Unknown(fleet, device, model, at, kind, number if type(number) is int and 0 <= number < 1 << 63 else 0, more=further)
    _check(record)
    return record


def _check(record: Record) -> None:
    _check_place(record.KIND, record.fleet, record.device, record.model)
    more.check_keys(record.more, record.KIND or "record")
    for name in _names(type(record)):
        check_field(record.KIND or "record", name, getattr(record, name))
    for kinds, name in ((_AT_LEAST_ONE, "number"), ((Enrol,), "claim")):
        if isinstance(record, kinds) and not getattr(record, name):
            raise Malformed(what=record.KIND, reason=f"{name} is 0, or empty")
    for kind, name, words in ((Transfer, "what", WHATS), (Act, "verb", VERBS)):
        if isinstance(record, kind) and getattr(record, name) not in words:
            raise Malformed(what=record.KIND, reason=f"{name} is none of {', '.join(words)}")


@lru_cache(maxsize=1024)  # of those that are good: an error is found anew
def _check_place(kind: str, fleet: str, device: str, model: str) -> None:
    check_own_name("fleet name", fleet)
    for what, name, of_all in (("device", device, (Trust.KIND,)), ("model", model, (Trust.KIND, Enrol.KIND, Act.KIND))):
        check_name(f"{what} name", name)
        if (name == ALL) is not (kind in of_all) and kind != Unknown.KIND:
            raise Malformed(what=kind, reason=f"its {what} is {name!r}: {ALL!r} is that of what is said to all")
