"""What ingest decides with and what it answers: bounds, context, outcome, replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from edgecloud.registry import Store
from modelwire import limits
from modelwire.errors import BadSignature, ConfigError, KernelError, RegistryDamaged, StateBusy, UnknownDevice
from modelwire.wire import topics
from modelwire.wire.records import Record, encode
from modelwire.wire.signing import PrivateKey, Role

MIB = 1024 * 1024

# The centre's own trouble: no message is at fault, none is acknowledged, and all come again.
OURS = (RegistryDamaged, StateBusy, KernelError, ConfigError)


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
    epochs: int = 10_000  # of one model of a device
    transfers_of_device: int = 4
    transfers_total: int = 256
    transfer_seconds: int = 7 * 24 * 3600  # untouched for so long, it is forgotten
    transfer_rest: int = 600  # untouched for so long, it makes room when all places are taken
    transfer_again: int = 10  # a whole transfer that was not taken is tried again after this, or when its lineage has changed
    wire: limits.Limits = limits.DEFAULT


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision may look at."""

    store: Store
    bounds: Bounds
    now: int
    secret: bytes = b""  # of the challenges, which hellos alone need
    certificates: Path | None = None  # folder of those that boards may have by now, NAME.pem each


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

    def encode(self, receipt_key: PrivateKey, fleet: bytes) -> bytes:
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


def clean(reason: str) -> str:
    """Return a reason as it may stand in a record and a list: printable and short, whatever a sender put into it."""
    return "".join(c if c.isprintable() else "?" for c in reason)[:500]


class KeyStanding(Enum):
    """How a signature stands to the device that it claims."""

    KNOWN = "known"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


def standing(store: Store, device: str, verify: Callable[[bytes], None]) -> KeyStanding:
    """Return whose signature it is. verify: raises BadSignature unless the given public key made it."""
    revoked = False
    for known in reversed(store.devices.keys(device)):
        try:
            verify(known.key)
        except BadSignature:
            continue
        if known.revoked_at is None:
            return KeyStanding.KNOWN
        revoked = True
    return KeyStanding.REVOKED if revoked else KeyStanding.UNKNOWN


def require_known(store: Store, device: str, verify: Callable[[bytes], None]) -> None:
    """Raise UnknownDevice unless a key that speaks for the device now made the signature."""
    if standing(store, device, verify) is not KeyStanding.KNOWN:
        raise UnknownDevice(device=device)
