"""What the registry holds, as frozen rows. Digests and commits are 32 bytes, times are Unix seconds of the centre's clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How far a version has come. It moves once, from stored to one of the other two, and never back."""

    STORED = "stored"  # committed and linked to its parent, not rebuilt yet
    VERIFIED = "verified"  # rebuilt, fingerprint and root equal
    REFUSED = "refused"  # listed, never served


@dataclass(frozen=True, slots=True)
class Base:
    """A base model that devices start from."""

    commit: bytes  # SHA-256 of the manifest: version 0 of every lineage on it
    name: str
    manifest: bytes
    file: bytes  # digest of the .tflite in the blob store
    size: int  # bytes of the file
    added_at: int


@dataclass(frozen=True, slots=True)
class MergeRow:
    """A file that was made as the average of versions of one base."""

    file: bytes  # digest of the .tflite
    base: bytes  # commit of the base that they had in common
    rule: str  # "mean" or "weighted"
    versions: int  # that it was made of, those of devices that were erased since as well
    at: int


@dataclass(frozen=True, slots=True)
class TrustRow:
    """One trust record of the fleet."""

    number: int
    record: bytes  # as the root key signed it


@dataclass(frozen=True, slots=True)
class ActRow:
    """What the operator decided about a device's key."""

    number: int  # rises
    device: str
    verb: str  # "admit" or "revoke"
    key: bytes
    record: bytes  # as the command key sealed it


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """A public key that speaks, or spoke, for a device."""

    id: int  # rises with each key that is added
    device: str
    key: bytes
    added_at: int
    revoked_at: int | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A key that the operator does not want to hear of again, in this device's name."""

    device: str
    key: bytes
    at: int


@dataclass(frozen=True, slots=True)
class LineageRow:
    """One model of one device."""

    id: int
    device: str
    model: str
    last_version: int  # the highest number the device has ever used, in any epoch

    def __str__(self) -> str:
        return f"{self.device}/{self.model}"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One life of a device's state, from a base on. A newer one closes it. A snapshot in it may go over to another base."""

    lineage: int
    epoch: int
    state: bytes  # 16 bytes, random, made with the device's state folder
    base: bytes
    floor: int  # the highest number used before it began: its versions are above
    granted_at: int


@dataclass(frozen=True, slots=True)
class ModelWish:
    """A model of a board set up anew would like its last version back."""

    lineage: int
    epoch: int  # the one that its hello was welcomed to
    at: int  # the first time that it said so in this epoch
    declined: bool = False  # the operator lets it go on from its base


@dataclass(frozen=True, slots=True)
class HeadRow:
    """Where the next update of an epoch must link: its last good version, or the base."""

    version_id: int | None  # None: the base
    commit: bytes
    version: int  # 0: the base


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What ingest hands over to be kept."""

    lineage: int
    epoch: int
    version: int
    kind: str  # "snapshot", "delta", "exact" or "recipe"
    commit: bytes
    parent: bytes
    parent_id: int | None  # None: the parent is the base
    base: bytes
    root: bytes
    fingerprint: bytes  # 16 bytes, two little-endian lanes
    blob: bytes  # digest of the whole container in the blob store
    size: int  # bytes of the whole container
    received_at: int
    extension: bytes  # CBOR, empty when there is none


@dataclass(frozen=True, slots=True)
class VersionRow(NewVersion):
    """A kept version. Everything but status and reason is write-once."""

    id: int  # rises in order of linking: a child's is above its parent's
    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class LostRow:
    """A version number that its board has given up and of which the registry holds nothing: it never will."""

    lineage: int
    epoch: int
    version: int
    held: bool  # this centre had once confirmed it, as its board says: an older copy of the registry was restored since
    at: int  # when the board said so


@dataclass(frozen=True, slots=True)
class WitnessRow:
    """A link of the centre's log that a board has seen, and that the log does not hold."""

    device: str
    number: int
    digest: bytes
    ours: bytes  # digest of the link with this number that the log holds; empty: the log ends before it
    at: int  # when the board said so


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """What an operator has to know and to decide about; one of a kind for each model of a device."""

    device: str  # empty: the centre itself
    model: str
    kind: str  # "fork": two histories under one key; "session": another client uses the ingester's name; "board": what one says of itself
    text: str  # what was seen last
    last_at: int
    first_at: int = 0  # since it was last acknowledged
    times: int = 1  # since then
    seen_at: int = 0  # when an operator acknowledged it; 0: not yet

    @property
    def open(self) -> bool:
        return not self.seen_at


@dataclass(frozen=True, slots=True)
class Parked:
    """An update whose parent has not come yet."""

    commit: bytes
    device: str
    lineage: int
    epoch: int
    version: int
    parent: bytes
    digest: bytes  # of the whole container
    bytes: bytes
    received_at: int


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """A message that waits for the operator: of an unknown key, or on an unknown base."""

    id: int
    device: str
    model: str
    kind: str  # "hello", "state" or "update", as the last level of its topic
    reason: str  # "unknown-key" or "unknown-base"
    mark: bytes  # a hello's public key, an update's digest, nothing for a presence: what tells it from the others
    base: bytes  # of a hello; empty otherwise
    bytes: bytes
    received_at: int  # the last time
    looked: int  # the newest DeviceKey.id that has been tried on it
    first_at: int = 0  # these two are the inbox's own
    times: int = 1  # how often it came


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that was not accepted. The last ones are kept; the bytes are not."""

    digest: bytes  # of the whole message; of a container in parts, where its transfer is kept
    device: str  # as the topic says
    model: str
    error: str  # name of the error class
    reason: str
    at: int
    size: int  # bytes of the message
    epoch: int = 0  # these three are set when the message is an update with a good signature: it gets a receipt
    version: int = 0
    commit: bytes = b""
    repeats: int = 0  # how often the same message came again
    first_at: int = 0  # the inbox's own; 0: from before it was noted


@dataclass(frozen=True, slots=True)
class Request:
    """Something the operator asks a device for."""

    number: int  # rises within the lineage
    lineage: int
    verb: str
    record: bytes  # the command as the operator sealed it, which goes out as it is
    expiry: int  # Unix seconds: later it is not sent any more
    created_at: int
    answered_at: int | None = None
    ok: bool | None = None
    text: str = ""
    body: bytes = b""  # CBOR of what the device gave for an answer; empty while there is none

    def open(self, now: int) -> bool:
        """Whether an answer may still come."""
        return self.answered_at is None and now <= self.expiry


@dataclass(frozen=True, slots=True)
class OpenTransfer:
    """A container that is coming in parts."""

    id: bytes  # its own among those of all devices
    device: str
    model: str
    record: bytes  # the signed Transfer, as it came
    size: int  # bytes of the whole container
    touched_at: int
    held: int = 0  # parts that have come
    tried_at: int = 0  # when it was last joined, if it was whole and could not be taken
    tried_on: bytes = b""  # what its lineage was like then


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """Whether a device is on line, as it or its last will says."""

    online: bool
    boot: int
    received_at: int
    runtime: str
    agent: str


@dataclass(frozen=True, slots=True)
class LineageStanding:
    """How one model of the fleet stands, for a list of all of them."""

    lineage: LineageRow
    epoch: int  # the present one, 0 before the first
    floor: int
    head: int
    head_id: int | None
    verified: int  # the last verified version of this epoch, 0 when there is none
    versions: int  # of all epochs, refused ones too
    size: int  # bytes of them
    extension: bytes  # of the newest
    seen_at: int | None  # the last message of any kind
    online: bool
    boot: int
    runtime: str
    agent: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """A free note on anything that has a name."""

    id: int
    kind: str  # "device", "model", "version" or "base"
    object: str  # DEVICE, DEVICE/MODEL, DEVICE/MODEL@VERSION or a base's name
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry of the registry's log."""

    number: int  # from 1, without a gap
    subject: bytes  # commit of the version that it is about, or empty
    entry: bytes  # CBOR: kind, at, and what the kind needs
    link: bytes  # 32 bytes: binds it and all before it


@dataclass(frozen=True, slots=True)
class SignedEnd:
    """Up to where the receipt key has signed the log."""

    number: int
    link: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class StateRow:
    """The state of a version, kept so that others are near. Derived: it may go, and it may be made again."""

    version_id: int
    lineage: int
    digest: bytes  # of the kept bytes
    size: int
    kept_at: int


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """What the centre promises, and what it may let go. The one with the highest number is in force."""

    number: int  # 0: nobody has set one
    recover_within: str  # "2 states" or "200 ms"
    keep: str  # "all", or what of retention.py lets versions go
    record: bytes  # as the command key sealed `keep`; empty while all is kept
    at: int


@dataclass(frozen=True, slots=True)
class CompactedRow:
    """How far an epoch's versions have been looked at for what is to be kept, and for which policy."""

    lineage: int
    epoch: int
    policy: int  # number; 0: the default
    version_id: int  # 0: none yet


@dataclass(frozen=True, slots=True)
class VersionLink:
    """What a way through the versions needs to know of one."""
    id: int
    parent_id: int | None  # None: the base
    kind: str
    base: bytes
    blob: bytes
    size: int
    status: Status
    state_size: int  # bytes of its kept state; 0: none is kept


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One version, or one base, scored on one context of one probe set. Derived: it may go, and it may be measured again."""

    subject: int | bytes  # id of the version, or commit of the base
    probes: bytes  # digest of the probe set
    context: str  # TAG=VALUE[,TAG=VALUE...]: the rows that carry all of these; empty: all rows
    n: int  # rows of the context
    right: int | None  # of them; None where the labels are no classes, or the version could not be run
    base_right: int | None  # that its base has right of the same rows; None: not held against it
    loss: float | None  # summed over the rows that gave numbers; None: none did, or the loss is not known
    broken: int  # rows on which an output was no number, or infinite
    milliseconds: float  # that scoring took, of all rows, for this version alone
    at: int
    fault: str = ""  # why it could not be run; empty: it could

    @property
    def score(self) -> float | None:
        """The share of rows that are right; None where there are no classes."""
        return None if self.right is None else self.right / self.n
