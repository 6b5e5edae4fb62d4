"""What ingest decides with and what it answers: bounds, context, outcome, replies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from edgecloud.audit.admissions import Admissions
from edgecloud.registry import DeviceKey, Store
from modelwire import limits
from modelwire.errors import BadSignature, ConfigError, DiskUnwritable, KernelError, RegistryDamaged, StateBusy, UnknownDevice
from modelwire.wire import topics
from modelwire.wire.records import Record, encode
from modelwire.wire.signing import Role, Signer

MIB = 1024 * 1024
ERASED_TRIED = 64  # keys of erased devices that a stranger's signature is held against
TREES = 32  # kept in memory, the last ones that were asked for; of 16,384 parts at most
BASES = 8  # whose trees are kept in memory, the last ones that were asked for
READING = 4  # bases whose trees are being made
ON_THE_WAY = 5  # seconds for which a part of a base is not handed out again: who asked while nobody answered has asked several times
RECENT = 1024  # models whose parts on the way are kept in mind
A_SECOND = 256  # parts that one model is handed; a device that asks for more lies, and would only fill this process's memory

# The centre's own trouble: no message is at fault, none is acknowledged, and all come again.
OURS = (RegistryDamaged, StateBusy, KernelError, ConfigError, DiskUnwritable)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of what can't be linked yet is kept. Sizes in bytes, times in seconds."""

    parked_count: int = 64  # orphans of one device
    parked_bytes: int = 16 * MIB
    orphan_seconds: int = 120  # an orphan that comes again after this has a parent that is lost: a snapshot mends it
    held_count: int = 64  # quarantined updates of one device
    held_bytes: int = 16 * MIB
    held_total: int = 1024  # of all devices, hellos and updates each
    held_total_bytes: int = 256 * MIB
    held_seconds: int = 30 * 24 * 3600
    refusals: int = 10_000
    models_of_device: int = 64
    epochs_a_day: int = 24  # that one model may open, counted since a key of its device was last admitted
    epochs_wait: int = 900  # a board that may open no more asks again after this at the latest: the operator may have helped
    looks: int = 512  # numbers of a hello that are looked up; a board asks for the rest the next time
    answers: int = 64  # receipts that answer one hello, likewise
    lost_numbers: int = 100_000  # of one model of a device; more are neither noted nor called missing
    witnesses: int = 8  # links of the log that one device has seen and that are not in it
    transfers_of_device: int = 16  # whatever its quota
    transfers_total: int = 256
    transfer_seconds: int = 7 * 24 * 3600  # untouched for so long, it is forgotten
    transfer_rest: int = 600  # untouched for so long, it makes room when all places are taken
    transfer_again: int = 10  # a whole transfer that was not taken is tried again after this, or when its lineage has changed
    wire: limits.Limits = limits.DEFAULT


@dataclass
class Handed:
    """What one ingester keeps in mind of what it hands out; nothing is lost with it."""

    trees: OrderedDict[bytes, list[list[bytes]]] = field(default_factory=OrderedDict)  # over the parts of an update, by its digest
    bases: OrderedDict[bytes, list[list[bytes]]] = field(default_factory=OrderedDict)  # over the leaves of a base's file, by its digest
    reading: OrderedDict[bytes, list[bytes]] = field(default_factory=OrderedDict)  # the first leaves of one that is not read whole yet
    recent: OrderedDict[int, dict[int, int]] = field(default_factory=OrderedDict)  # by lineage: when each part of its base went, of late
    second: int = 0
    parts: dict[int, int] = field(default_factory=dict)  # in this second, by lineage

    def on_the_way(self, lineage: int, missing: list[int], now: int) -> int:
        """Return how many of the missing parts of a base have just been handed to a model."""
        sent = self.recent.get(lineage, {})
        return sum(now - at < ON_THE_WAY for index, at in sent.items() if index in missing) if sent else 0

    def go(self, lineage: int, parts: list[int], now: int) -> None:
        """Note that parts of a base go to a model."""
        sent = self.recent.setdefault(lineage, {})
        self.recent.move_to_end(lineage)
        for index in [i for i, at in sent.items() if now - at >= ON_THE_WAY]:
            del sent[index]
        sent.update(dict.fromkeys(parts, now))
        while len(self.recent) > RECENT:
            self.recent.popitem(last=False)

    def room(self, lineage: int, now: int, most: int) -> int:
        """Return how many of `most` parts may go to a model now, and count them."""
        if now != self.second:
            self.second, self.parts = now, {}
        given = min(most, A_SECOND - self.parts.get(lineage, 0))
        self.parts[lineage] = self.parts.get(lineage, 0) + given
        return given


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision may look at."""

    store: Store
    bounds: Bounds
    now: int
    secret: bytes = b""  # of the challenges, which hellos alone need
    admissions: Admissions | None = None  # who speaks; what judges no signature needs none
    handed: Handed = field(default_factory=Handed)
    certificates: Path | None = None  # folder of those that boards may have by now, NAME.pem each

    def keys(self, device: str) -> list[DeviceKey]:
        """Return the keys of a device that the operator let in, oldest first: a row without a sealed act is none."""
        assert self.admissions is not None
        return self.admissions.of(device, self.store.devices.keys(device))

    def admitted_at(self, key: bytes) -> int:
        """Return when a key that speaks was let in, or the operator last said so again."""
        assert self.admissions is not None
        return self.admissions.by_key[key].at


class Result(str, Enum):
    """What became of a message."""

    STORED = "stored"
    REPEATED = "repeated"  # known already: the current receipt goes out again
    PARKED = "parked"
    QUARANTINED = "quarantined"
    REFUSED = "refused"  # with a receipt that says so
    DROPPED = "dropped"  # without a receipt: nobody could be told
    WELCOMED = "welcomed"
    NOTED = "noted"  # presence, an answer, a part, a report
    CHALLENGED = "challenged"  # a hello that would open an epoch, and is to be said again
    ADMITTED = "admitted"  # by a claim
    WAITS = "waits"  # a hello that would open more epochs in a day than may be
    UNKNOWN = "unknown"  # of a later release; answered so


@dataclass(frozen=True, slots=True)
class Reply:
    """A record to be sent down to one device's model: signed by the receipt key, unless it was sealed by another one before."""

    leaf: str  # "receipt", "cmd", "part" or "trust"
    record: Record
    sealed: bytes = b""  # the record as it goes out, where it is not for the ingester to sign
    device: str = ""  # to whom, where the record is said to all

    @property
    def topic(self) -> str:
        return topics.down(self.record.fleet, self.device or self.record.device, self.record.model, self.leaf)

    def encode(self, receipt_key: Signer, fleet: bytes) -> bytes:
        """Return the bytes that go out. fleet: the fleet's id."""
        return self.sealed or encode(self.record, receipt_key, fleet, role=Role.RECEIPT)


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one message, and what to say about it once that is committed."""

    result: Result
    device: str
    model: str
    version: int = 0
    reason: str = ""
    replies: tuple[Reply, ...] = field(default=())
    news: bool = True  # the log says it, and not at level debug alone

    @property
    def line(self) -> str:
        """What the log says about it."""
        name = f"{self.device}/{self.model}" + (f"@{self.version}" if self.version else "")
        return f"{self.result.value} {name}" + (f": {self.reason}" if self.reason else "")

    @property
    def kind(self) -> str:
        """Of which kind the log's line about it is: what became of it, and where it was dropped by which error."""
        error = self.reason.partition(":")[0]
        return f"{self.result.value} {error}" if self.result is Result.DROPPED and error.isidentifier() else self.result.value


def clean(reason: str) -> str:
    """Return a reason as it may stand in a record and a list: printable and short, whatever a sender put into it."""
    return "".join(c if c.isprintable() else "?" for c in reason)[:500]


class KeyStanding(Enum):
    """How a signature stands to the device that it claims."""

    KNOWN = "known"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    ERASED = "erased"  # of a device of which nothing is held, and nothing is to be kept


def standing(context: Context, device: str, verify: Callable[[bytes], None]) -> KeyStanding:
    """Return whose signature it is. verify: raises BadSignature unless the given public key made it."""
    revoked = False
    for known in reversed(context.keys(device)):
        try:
            verify(known.key)
        except BadSignature:
            continue
        if known.revoked_at is None:
            return KeyStanding.KNOWN
        revoked = True
    if revoked:
        return KeyStanding.REVOKED
    return KeyStanding.ERASED if _is_erased(context, verify) else KeyStanding.UNKNOWN


def _is_erased(context: Context, verify: Callable[[bytes], None]) -> bool:
    """Return whether a device that was erased has made a signature. Of many, only some are tried: a stranger must not cost more."""
    for key in sorted(context.admissions.erased_keys)[:ERASED_TRIED] if context.admissions is not None else ():
        try:
            verify(key)
            return True
        except BadSignature:
            continue
    return False


def require_known(context: Context, device: str, verify: Callable[[bytes], None]) -> None:
    """Raise UnknownDevice unless a key that speaks for the device now made the signature."""
    if standing(context, device, verify) is not KeyStanding.KNOWN:
        raise UnknownDevice(device=device)
