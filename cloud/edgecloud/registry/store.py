"""The Store seam: what a registry must be able to do. tests/edgecloud/conformance holds the suite that every implementation passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from modelwire.wire import cbor
from modelwire.wire.log import Link
from modelwire.wire.signing import Fleet

from .blobs import BlobStore
from .rows import (
    ActRow,
    AlarmRow,
    Annotation,
    Base,
    DeviceKey,
    Epoch,
    HeadRow,
    LineageRow,
    LineageStanding,
    LogEntry,
    LostRow,
    ModelWish,
    NewVersion,
    OpenTransfer,
    Parked,
    PresenceRow,
    Refusal,
    Rejection,
    Request,
    SignedEnd,
    TrustRow,
    VersionRow,
    WaitingMessage,
    WitnessRow,
)


class Trusts(Protocol):
    """The fleet's trust records; write-once."""

    def add(self, trust: TrustRow) -> None:
        """Keep a record. Raises LineageError when its number is held already."""

    def all(self) -> list[TrustRow]:
        """Return all of them, oldest first."""

    def newest(self) -> TrustRow: ...


class Acts(Protocol):
    """What the operator decided about devices; write-once."""

    def add(self, act: ActRow) -> None:
        """Keep an act. Raises LineageError when its number is held already."""

    def last(self) -> int:
        """Return the highest number, 0 when there is none."""

    def of(self, device: str) -> list[ActRow]:
        """Return what was decided about a device, oldest first."""


class Bases(Protocol):
    """Base models; write-once."""

    def add(self, base: Base) -> None:
        """Keep a base. Raises LineageError when its name or commit is held already."""

    def get(self, commit: bytes) -> Base | None: ...

    def named(self, name: str) -> Base | None: ...

    def all(self) -> list[Base]: ...


class Devices(Protocol):
    """Devices and their keys. A key belongs to one device; a revoked key stays listed, and so does a rejected one."""

    def add(self, device: str, key: bytes, now: int) -> None:
        """Let `key` speak for `device`. Raises LineageError when the key speaks for a device already."""

    def keys(self, device: str) -> list[DeviceKey]:
        """Return all keys of a device, oldest first; empty when the device is unknown."""

    def revoke(self, device: str, now: int, key: bytes | None = None) -> int:
        """Revoke every key of a device, or one, and return how many that were."""

    def owner(self, key: bytes) -> str | None:
        """Return the device that `key` speaks for now."""

    def reject(self, device: str, key: bytes, now: int) -> None:
        """Hear no more of a key in this device's name; one that is rejected already stays so. What it waits with is forgotten."""

    def rejections(self, device: str | None = None) -> list[Rejection]:
        """Return the rejected keys of a device or of all, in the order of names and times."""

    def is_rejected(self, device: str, key: bytes) -> bool: ...

    def names(self) -> list[str]: ...

    def all_keys(self) -> dict[str, list[DeviceKey]]:
        """Return the keys of every device by its name, oldest first."""


class Lineages(Protocol):
    """Models of devices, their epochs and heads."""

    def get(self, device: str, model: str) -> LineageRow | None: ...

    def by_id(self, lineage: int) -> LineageRow: ...

    def ensure(self, device: str, model: str) -> LineageRow: ...

    def of(self, device: str) -> list[LineageRow]: ...

    def all(self) -> list[LineageRow]: ...

    def standings(self, device: str | None = None) -> list[LineageStanding]:
        """Return how every model of a device, or of the fleet, stands, by device and model."""

    def remarkable(self, since: int) -> dict[int, frozenset[str]]:
        """Return which lineages had "epochs" granted since a time, have "lost" numbers, or a "wish"."""

    def used(self, lineage: int, version: int) -> None:
        """Remember that a device has used this number: it is never granted again."""

    def epoch_of(self, lineage: int, state: bytes) -> Epoch | None: ...

    def grant(self, lineage: int, state: bytes, base: bytes, now: int) -> Epoch:
        """Open the next epoch, with its head at the base."""

    def epoch(self, lineage: int, epoch: int) -> Epoch | None: ...

    def granted(self, lineage: int, since: int, until: int, limit: int) -> list[int]:
        """Return when the newest epochs within this time were granted, the newest first."""

    def current(self, lineage: int) -> Epoch | None:
        """Return the newest epoch; all others are closed."""

    def head(self, lineage: int, epoch: int) -> HeadRow | None: ...

    def move_head(self, lineage: int, epoch: int, expect: bytes, to: HeadRow) -> bool:
        """Compare and set: move the head when it still is the commit `expect`, and return whether it was."""

    def set_wish(self, lineage: int, epoch: int, now: int) -> None:
        """Remember that a model would like its last version back; one that is known of this epoch keeps its time."""

    def decline_wish(self, lineage: int) -> None:
        """Remember that the operator lets it go on from its base in this epoch."""

    def end_wish(self, lineage: int) -> None:
        """Forget that; nothing happens when there is none."""

    def wish(self, lineage: int) -> ModelWish | None: ...

    def presence(self, lineage: int) -> PresenceRow | None: ...

    def greeted(self, lineage: int, runtime: str, agent: str, now: int) -> None:
        """Keep what the last Hello said of the device's runtime and agent."""

    def heard(self, device: str, model: str, now: int) -> None:
        """Keep that a device was heard of: it signed what just came."""

    def seen(self, lineage: int, online: bool, boot: int, now: int) -> bool:
        """Keep a presence unless it is of an older boot, and return whether it was kept. What is known already is no sign of life."""


class Versions(Protocol):
    """Versions; everything but the status is write-once."""

    def add(self, version: NewVersion) -> VersionRow:
        """Keep a version as `stored`. Raises LineageError when its commit or its number in the lineage is held."""

    def by_id(self, version: int) -> VersionRow | None: ...

    def by_commit(self, commit: bytes) -> VersionRow | None: ...

    def by_blob(self, blob: bytes) -> VersionRow | None: ...

    def numbered(self, lineage: int, version: int) -> VersionRow | None: ...

    def of(self, lineage: int) -> list[VersionRow]:
        """Return all versions of a lineage in the order of linking."""

    def newest(self, lineage: int, limit: int | None) -> list[VersionRow]:
        """Return the versions of a lineage with the highest numbers first; None: all."""

    def count(self, lineage: int) -> int:
        """Return how many versions a lineage has."""

    def chain(self, version: VersionRow) -> list[VersionRow]:
        """Return the nearest snapshot at or above `version` and all from there down to it; without one, from the base on."""

    def unverified(self, limit: int, after: int = 0) -> list[VersionRow]:
        """Return `stored` versions with an id above `after` in the order of linking: no child before its parent."""

    def served_children(self, version: int) -> list[VersionRow]:
        """Return the children of a version that are not refused."""

    def served_on(self, lineage: int, epoch: int, parent: bytes) -> VersionRow | None:
        """Return the first version of an epoch with this parent, which may be its base, that is not refused."""

    def verify(self, version: int) -> None:
        """Mark a stored version verified."""

    def refuse(self, version: int, reason: str) -> None:
        """Mark a stored version refused."""

    def last_verified(self, lineage: int, before: int) -> VersionRow | None:
        """Return the last verified version of the newest epoch below `before` that has one: the head which that epoch came to."""

    def verified(self, lineage: int, epoch: int) -> int:
        """Return the number of the last verified version of an epoch, 0 when there is none."""

    def skip(self, version: int, first: int, last: int) -> None:
        """Remember that the version with this id carries the numbers first..last that were never sent alone."""

    def skipped(self, version: int) -> list[tuple[int, int]]: ...


class Inbox(Protocol):
    """What can't be linked yet: orphans, and messages that wait for the operator."""

    def park(self, orphan: Parked) -> None:
        """Keep an orphan; one with the same commit is left as it is."""

    def parked(self, commit: bytes) -> Parked | None: ...

    def orphans(self, device: str) -> list[Parked]:
        """Return a device's orphans, the lowest version first."""

    def children(self, parent: bytes) -> list[Parked]:
        """Return the orphans that wait for this commit, the lowest version first."""

    def outrun(self, lineage: int, version: int) -> list[Parked]:
        """Return a lineage's orphans with a number up to this one, the lowest first."""

    def unpark(self, commit: bytes) -> None: ...

    def parked_sizes(self, device: str) -> list[tuple[bytes, int, int]]:
        """Return commit, version and bytes of a device's orphans, the lowest version first."""

    def is_parked(self, digest: bytes) -> bool:
        """Return whether the container with this digest is an orphan."""

    def hold(self, message: WaitingMessage) -> None:
        """Keep a message; one with the same device, model, kind and mark is replaced, and counted: it keeps its first time.

        `id`, `first_at` and `times` of the message are ignored.
        """

    def held(self, device: str | None = None, kind: str | None = None) -> list[WaitingMessage]:
        """Return what waits, of one device or of all, and of one kind or of all; updates are large."""

    def holds(self, device: str, model: str, kind: str, mark: bytes) -> bool: ...

    def held_size(self, device: str, kind: str) -> tuple[int, int]:
        """Return how many messages of this kind a device has waiting and their bytes."""

    def held_total(self, kind: str) -> tuple[int, int]:
        """Return how many messages of this kind wait in all and their bytes."""

    def expire(self, before: int) -> int:
        """Forget messages that came before this time, and return how many that were."""

    def make_room(self, kind: str, device: str | None = None) -> None:
        """Forget one message of a kind, of one device or of all: of those that came least often, the one not heard of for longest.

        The first that waits in a device's name, for a key or for a base, goes only when nothing else is left.
        """

    def release(self, message: int) -> None: ...

    def released(self, limit: int) -> list[WaitingMessage]:
        """Return messages whose device has a key that was not tried on them yet, or whose base has come.

        Other than a hello, they wait for the model to have said hello, too.
        """


class Losses(Protocol):
    """What boards say against this registry: versions and links of the log that it does not hold."""

    def note(self, lost: LostRow) -> None:
        """Keep that a number is lost; one that is noted stays as it is."""

    def of(self, lineage: int) -> list[LostRow]:
        """Return the lost numbers of a lineage, the lowest first."""

    def holds(self, lineage: int, epoch: int, version: int) -> bool:
        """Return whether a number is noted as lost."""

    def count(self, lineage: int) -> int: ...

    def testify(self, witness: WitnessRow, keep: int) -> bool:
        """Keep what a board has seen, at most so many of one board, and return whether it is new."""

    def witnesses(self, device: str | None = None) -> list[WitnessRow]:
        """Return what one board has seen, or all of them, the oldest first."""

    def raise_alarm(self, alarm: AlarmRow) -> bool:
        """Keep an alarm, or count it with the one of its kind; return whether it is news: new, or acknowledged before."""

    def alarms(self, device: str | None = None, *, only_open: bool = False) -> list[AlarmRow]:
        """Return the alarms about one device, or all, the oldest first."""

    def acknowledge(self, device: str, now: int) -> int:
        """Mark the open alarms about a device as seen, and return how many those were. device: empty for the centre's own."""


class Refusals(Protocol):
    """The last refusals; one message has one row."""

    def add(self, refusal: Refusal, keep: int) -> None:
        """Keep a refusal, or count a repeat, and forget all but the last `keep`."""

    def by_commit(self, commit: bytes) -> Refusal | None:
        """Return the refusal of an update whose signature was good."""

    def numbered(self, device: str, model: str, epoch: int, version: int) -> list[Refusal]:
        """Return the refusals of updates under one number, oldest first."""

    def by_digest(self, digest: bytes) -> Refusal | None: ...

    def last(self, limit: int, device: str | None = None, model: str | None = None) -> list[Refusal]:
        """Return the newest refusals first."""

    def count(self) -> int: ...


class Requests(Protocol):
    """What the operator asks devices for."""

    def add(self, request: Request) -> None: ...

    def last(self, lineage: int) -> int:
        """Return the highest number that a request of this lineage has, 0 when there is none."""

    def open(self, now: int, lineage: int | None = None) -> list[Request]:
        """Return requests without an answer that have not expired, oldest first."""

    def of(self, lineage: int) -> list[Request]: ...

    def answer(self, number: int, lineage: int, ok: bool, text: str, now: int, body: bytes = b"") -> bool:
        """Keep the answer to a request of this lineage that has none, and return whether there was one."""


class Transfers(Protocol):
    """Containers that come in parts."""

    def open(self, transfer: OpenTransfer) -> None:
        """Keep a transfer; one with the same id keeps its parts."""

    def get(self, transfer: bytes) -> OpenTransfer | None: ...

    def find(self, transfer: bytes, index: int) -> tuple[OpenTransfer, bool] | None:
        """Return a transfer and whether this part of it is held, by one look."""

    def of(self, device: str) -> list[OpenTransfer]:
        """Return a device's transfers, the one longest untouched first."""

    def all(self) -> list[OpenTransfer]:
        """Return all transfers, the one longest untouched first."""

    def put(self, transfer: bytes, index: int, data: bytes, now: int) -> None:
        """Keep a part that is not held yet."""

    def tried(self, transfer: bytes, on: bytes, now: int) -> None:
        """Remember that it was whole, joined, and not taken."""

    def held(self, transfer: bytes) -> set[int]: ...

    def pieces(self, transfer: bytes) -> dict[int, bytes]: ...

    def close(self, transfer: bytes) -> None:
        """Forget a transfer and its parts."""


class Log(Protocol):
    """What was decided, in order; write-once, each entry linked to all before it.

    Trust records, acts, commands and their answers, epochs, heads and verdicts are entered by the store as they are kept.
    """

    appended: set[bytes]  # links of entries that were made through this store since the end was signed

    def append(self, kind: str, subject: bytes = b"", **content: cbor.Value) -> int:
        """Enter what was decided, and return the number of the entry. subject: commit of the version that it is about."""

    def end(self) -> Link | None: ...

    def link(self, number: int) -> bytes | None:
        """Return the link of an entry, None where there is none."""

    def after(self, number: int) -> Iterator[LogEntry]:
        """Yield the entries with a higher number, in order."""

    def about_none(self) -> Iterator[LogEntry]:
        """Yield the entries that are about no version, in order: what operators sealed, and epochs."""

    def place(self, subject: bytes) -> int:
        """Return the number of the newest entry about a version, 0 when there is none."""

    def signed(self) -> SignedEnd | None: ...

    def sign(self, end: SignedEnd) -> None:
        """Keep up to where the log is signed now."""


class Annotations(Protocol):
    """Free notes."""

    def add(self, kind: str, object: str, text: str, now: int) -> Annotation: ...

    def of(self, kind: str, object: str) -> list[Annotation]: ...


class Store(Protocol):
    """A registry. One store is used by one thread; several stores may be open on one registry."""

    trusts: Trusts
    acts: Acts
    bases: Bases
    devices: Devices
    lineages: Lineages
    versions: Versions
    inbox: Inbox
    losses: Losses
    refusals: Refusals
    requests: Requests
    transfers: Transfers
    annotations: Annotations
    log: Log
    blobs: BlobStore

    @property
    def fleet(self) -> str: ...

    @property
    def identity(self) -> Fleet:
        """What every board is given of the fleet: its root key and its id."""

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing, durable at its end. Inside another one it is a savepoint: it can fail alone."""

    def close(self) -> None: ...
