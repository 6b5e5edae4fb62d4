"""Signed records: what devices and the centre say to each other beside updates. Parsed once, here, into frozen types."""

from __future__ import annotations

import struct
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Any, ClassVar, TypeVar

from modelwire import limits
from modelwire.errors import Malformed, TooLarge
from modelwire.tensors import check_name

from . import cbor, signing

MAGIC = b"\x89MWR"
VERSION = 1
_HEAD = struct.Struct("<4sHH")  # magic, version, bytes of CBOR

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

    fleet: str
    device: str
    model: str
    at: int  # Unix seconds of the sender's clock; information, never trusted for order


@dataclass(frozen=True, slots=True)
class Hello(Record):
    """A device's model says what it has; repeated until a Welcome answers."""

    KIND: ClassVar[str] = "hello"

    key: bytes  # the device's public key
    state: bytes  # 16 random bytes made with the state folder: a lost disk makes a new one
    base: bytes  # commit of the base
    epoch: int  # 0: none granted yet
    version: int  # the head's, 0 = the base
    commit: bytes  # the head's
    runtime: str  # replay class: runtime, version, ISA, delegate, threads
    agent: str  # release of the agent


@dataclass(frozen=True, slots=True)
class Welcome(Record):
    """The centre's answer to a Hello."""

    KIND: ClassVar[str] = "welcome"

    state: bytes  # as in the Hello that it answers
    status: str  # "ok", "quarantine" (unknown key) or "unknown-base"
    epoch: int  # granted; 0 unless ok
    version: int  # the last version number ever used in any epoch: the device counts on from there
    head: bytes  # commit of the head in this epoch; the base's when there is none
    head_version: int  # 0 = the base
    verified: int  # the last version in this epoch of which all before are verified; 0 = the base


@dataclass(frozen=True, slots=True)
class Command(Record):
    """The centre asks a device for something; repeated until a Response names its id."""

    KIND: ClassVar[str] = "command"

    id: int
    verb: str  # "snapshot"


@dataclass(frozen=True, slots=True)
class Adopt(Record):
    """The centre asks a device to move its model, and to forget what that has unlearned; repeated until a Response names its id."""

    KIND: ClassVar[str] = "adopt"

    id: int
    update: bytes  # a container up to its commit (container.unsigned), on the head that it starts from: the record is signed as a whole


@dataclass(frozen=True, slots=True)
class Response(Record):
    """A device's answer to a Command."""

    KIND: ClassVar[str] = "response"

    id: int
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Receipt(Record):
    """What the centre says about one update. The outbox stops resending on `stored` and frees the bytes on `verified`."""

    KIND: ClassVar[str] = "receipt"

    epoch: int
    version: int
    commit: bytes  # 32 bytes, of the container that it answers
    level: Level
    reason: str  # why it was refused; empty otherwise
    good: bytes  # the last good commit when refused; empty otherwise
    good_version: int  # its version; 0 = the base


@dataclass(frozen=True, slots=True)
class Presence(Record):
    """Whether a device is on line; `online=False` is its last will."""

    KIND: ClassVar[str] = "presence"

    boot: int  # rises with each start: a late will of an older session is ignored
    online: bool


@dataclass(frozen=True, slots=True)
class Transfer(Record):
    """The manifest of a container that travels in parts."""

    KIND: ClassVar[str] = "transfer"

    id: bytes  # SHA-256 of the whole container, signature included
    size: int  # bytes of the whole
    part_size: int  # bytes of each part but the last
    hashes: bytes  # SHA-256 of each part, 32 bytes each, in order


@dataclass(frozen=True, slots=True)
class Wanted(Record):
    """Which parts of a transfer the centre holds; the device sends the others."""

    KIND: ClassVar[str] = "wanted"

    id: bytes
    have: bytes  # bitmap, bit i of byte i//8 (lowest first): part i is held


KINDS: dict[str, type[Record]] = {
    c.KIND: c for c in (Hello, Welcome, Command, Adopt, Response, Receipt, Presence, Transfer, Wanted)
}
_LENGTHS = {"key": 32, "state": 16, "base": 32, "commit": 32, "head": 32}
_TEXT_MAX = 1000  # characters of any text field


@dataclass(frozen=True, slots=True)
class Signed:
    """A parsed record with its signature, not yet verified."""

    record: Record
    body: bytes
    signature: bytes

    def verify(self, public: bytes, signer: str) -> None:
        """Raise BadSignature unless `public` signed this record."""
        signing.verify(public, signing.RECORD, self.body, self.signature, what=self.record.KIND, signer=signer)


def encode(record: Record, key: signing.PrivateKey, limit: limits.Limits = limits.DEFAULT) -> bytes:
    """Return the signed record as bytes. Raises Malformed when a field is out of range, TooLarge when no reader would take it."""
    _check(record)
    values: dict[str, cbor.Value] = {"kind": record.KIND}
    for f in fields(record):
        value = getattr(record, f.name)
        values[f.name] = value.value if isinstance(value, Level) else value
    content = cbor.encode(values)
    size = _HEAD.size + len(content) + signing.SIGNATURE_BYTES
    if size > limit.record:
        raise TooLarge(what="the record", size=size, limit=limit.record)
    body = _HEAD.pack(MAGIC, VERSION, len(content)) + content
    return body + key.sign(signing.RECORD, body)


def parse(data: bytes, limit: limits.Limits = limits.DEFAULT) -> Signed:
    """Return the record that `data` holds, exactly. Raises TooLarge or Malformed."""
    if len(data) > limit.record:
        raise TooLarge(what="the record", size=len(data), limit=limit.record)
    if len(data) < _HEAD.size + signing.SIGNATURE_BYTES:
        raise Malformed(what="record", reason=f"{len(data)} bytes are too few")
    magic, version, size = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise Malformed(what="record", reason="it does not start as a record of release 1")
    end = _HEAD.size + size
    if end + signing.SIGNATURE_BYTES != len(data):
        raise Malformed(what="record", reason="its parts do not fill it exactly")
    values = cbor.decode(data[_HEAD.size : end], "record", limit)
    kind = values.pop("kind", None) if isinstance(values, dict) else None
    cls = KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None or not isinstance(values, dict):
        raise Malformed(what="record", reason=f"{str(kind)[:40]!r} is not a kind of record")
    return Signed(_build(cls, values), data[:end], data[end:])


def expect(signed: Signed, cls: type[R]) -> R:
    """Return the record when it is of the class `cls`. Raises Malformed."""
    if not isinstance(signed.record, cls):
        raise Malformed(what="record", reason=f"a {signed.record.KIND} where a {cls.KIND} belongs")
    return signed.record


def _build(cls: type[R], values: dict[str, cbor.Value]) -> R:
    known = {f.name: f for f in fields(cls)}
    missing = [n for n, f in known.items() if n not in values and f.default is MISSING]
    if missing or set(values) - set(known):
        raise Malformed(what=cls.KIND, reason=f"fields missing {missing}, unknown {sorted(set(values) - set(known))}"[:200])
    made: dict[str, Any] = dict(values)
    for name, f in known.items():
        want = {"str": str, "int": int, "bytes": bytes, "bool": bool, "Level": str}[str(f.type)]
        if type(made[name]) is not want:
            raise Malformed(what=cls.KIND, reason=f"{name} is not of type {f.type}")
        if f.type == "Level":
            if made[name] not in [level.value for level in Level]:
                raise Malformed(what=cls.KIND, reason="level is not stored, verified or refused")
            made[name] = Level(made[name])
    record = cls(**made)
    _check(record)
    return record


def _check(record: Record) -> None:
    for what in ("fleet", "device", "model"):
        check_name(f"{what} name", getattr(record, what))
    for f in fields(record):
        value = getattr(record, f.name)
        if isinstance(value, int) and not 0 <= value < 1 << 63:
            raise Malformed(what=record.KIND, reason=f"{f.name} is out of range")
        if isinstance(value, str) and (len(value) > _TEXT_MAX or not value.isprintable()):
            raise Malformed(what=record.KIND, reason=f"{f.name} is too long or holds control characters")
        if isinstance(value, bytes) and f.name in _LENGTHS and len(value) != _LENGTHS[f.name]:
            raise Malformed(what=record.KIND, reason=f"{f.name} is not {_LENGTHS[f.name]} bytes")
    if isinstance(record, (Transfer, Wanted)) and len(record.id) != 32:
        raise Malformed(what=record.KIND, reason="id is not 32 bytes")
    if isinstance(record, Receipt) and len(record.good) not in (0, 32):
        raise Malformed(what=record.KIND, reason="good is neither empty nor 32 bytes")
