"""Base models, the lineages of devices, and their versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from edgecloud.registry.counted import DeviceTally, KeptTally, KindTally, ModelOutline
from edgecloud.registry.rows import (
    Base,
    Epoch,
    HeadRow,
    LineageRow,
    LineageStanding,
    MergeRow,
    ModelWish,
    NewVersion,
    PresenceRow,
    VersionRow,
)
from modelwire.wire import cbor


@dataclass(frozen=True, slots=True)
class Situation:
    """What an update meets: all that is looked at before it is linked, as of one moment."""

    lineage: LineageRow
    epoch: Epoch  # the newest
    head: HeadRow  # of that epoch
    base: bytes  # that the head is on
    known: bool  # its commit is that of a version, or of a refused update
    lost: bool  # its number was given up
    taken: bool  # a version has its number
    parked: bool  # an orphan is this very update, waits for it, or is outrun by it


class Bases(Protocol):
    """Base models; write-once."""

    def add(self, base: Base) -> None:
        """Keep a base. Raises LineageError when its name or commit is held already."""

    def get(self, commit: bytes) -> Base | None: ...

    def recall(self, commit: bytes) -> Base | None:
        """Return a base as `get` does, from memory where it was asked for before: each update asks for one, and its row never changes."""

    def named(self, name: str) -> Base | None: ...

    def all(self) -> list[Base]: ...


class Merges(Protocol):
    """Files that were made as averages of versions, by digest; write-once. A base of such a file has these versions as its parents."""

    def add(self, merge: MergeRow, parents: Mapping[int, int]) -> bool:
        """Keep what a file was made of: weights by version; and return whether it was new: an equal file may be made in two ways."""

    def of(self, file: bytes) -> MergeRow | None: ...

    def parents(self, file: bytes) -> dict[int, int]:
        """Return the weights by version of those that are not erased."""

    def made_of(self, version: int) -> list[MergeRow]:
        """Return the merges that a version is in."""


class Lineages(Protocol):
    """Models of devices, their epochs and heads."""

    def get(self, device: str, model: str) -> LineageRow | None: ...

    def by_id(self, lineage: int) -> LineageRow: ...

    def ensure(self, device: str, model: str) -> LineageRow: ...

    def of(self, device: str) -> list[LineageRow]: ...

    def all(self) -> list[LineageRow]: ...

    def standings(self, device: str | None = None) -> list[LineageStanding]:
        """Return how every model of a device, or of the fleet, stands, by device and model."""

    def remarkable(self, since: int, epochs: int = 1) -> dict[int, frozenset[str]]:
        """Return which lineages had so many "epochs" granted since a time, have "lost" numbers, or a "wish"."""

    def situation(self, device: str, model: str, epoch: int, version: int, commit: bytes) -> Situation | None:
        """Return what an update of this epoch and number meets; None when its model has not said hello."""

    def used(self, lineage: int, version: int, now: int = 0) -> None:
        """Remember that a device has used this number: it is never granted again; and that it was heard of at `now`, unless that is 0."""

    def epoch_of(self, lineage: int, state: bytes) -> Epoch | None: ...

    def grant(self, lineage: int, state: bytes, base: bytes, now: int) -> Epoch:
        """Open the next epoch, with its head at the base."""

    def epoch(self, lineage: int, epoch: int) -> Epoch | None: ...

    def granted(self, lineage: int, since: int, until: int, limit: int) -> list[int]:
        """Return when the newest epochs within this time were granted, the newest first."""

    def current(self, lineage: int) -> Epoch | None:
        """Return the newest epoch; all others are closed."""

    def head(self, lineage: int, epoch: int) -> HeadRow | None: ...

    def move_head(self, lineage: int, epoch: int, expect: bytes, to: HeadRow, of: LineageRow | None = None) -> int:
        """Compare and set: move the head when it still is the commit `expect`, and return the number of the log's entry that says so;
        0 when it was another. of: the lineage's row, where it was read.
        """

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

    def add(self, version: NewVersion, said: Mapping[str, cbor.Value] | None = None) -> VersionRow:
        """Keep a version as `stored`. Raises LineageError when its commit or its number in the lineage is held.

        said: its extension, where it was read.
        """

    def by_id(self, version: int) -> VersionRow | None: ...

    def by_commit(self, commit: bytes) -> VersionRow | None: ...

    def by_blob(self, blob: bytes) -> VersionRow | None: ...

    def numbered(self, lineage: int, version: int) -> VersionRow | None: ...

    def of(self, lineage: int) -> list[VersionRow]:
        """Return all versions of a lineage in the order of linking."""

    def each(self, lineage: int) -> Iterator[VersionRow]:
        """Yield the same, a few in memory at a time. One that goes meanwhile is passed over."""

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

    def verify(self, version: int, commit: bytes = b"") -> int:
        """Mark a stored version verified, and return the number of the log's entry that says so; 0 when it is not there any more.

        commit: its own, where it was read.
        """

    def refuse(self, version: int, reason: str) -> None:
        """Mark a stored version refused."""

    def last_verified(self, lineage: int, before: int) -> VersionRow | None:
        """Return the last verified version of the newest epoch below `before` that has one: the head which that epoch came to."""

    def verified(self, lineage: int, epoch: int) -> int:
        """Return the number of the last verified version of an epoch, 0 when there is none."""

    def skip(self, version: int, first: int, last: int) -> None:
        """Remember that the version with this id carries the numbers first..last that were never sent alone."""

    def skipped(self, version: int) -> list[tuple[int, int]]: ...


class Tallies(Protocol):
    """Counters of the versions, exact at every commit: what they say costs no look at the versions."""

    def by_kind(self, device: str | None = None) -> list[KindTally]:
        """Return what came as each kind, of one device or of all, by the kind's name."""

    def holds(self, lineage: int, kind: str) -> bool:
        """Return whether a model has sent versions of a kind."""

    def kept(self, device: str | None = None) -> KeptTally:
        """Return what is stored beside the containers."""

    def measured(self, name: str) -> tuple[int, str] | None:
        """Return when a figure of this registry was measured, and what it came to; None when it never was."""

    def set_measured(self, name: str, said: str, now: int) -> None:
        """Keep a figure that was measured, in the place of the one before."""

    def largest(self, limit: int) -> list[DeviceTally]:
        """Return the devices that sent the most bytes, those first."""

    def senders(self) -> int:
        """Return how many devices have sent a version."""

    def outlines(self, order: str = "") -> list[ModelOutline]:
        """Return every model of the fleet, and every device that has none, by name. order: "head" or "accuracy" for their rank."""

    def waiting(self) -> int:
        """Return how many versions nobody has judged yet."""

    def recount(self) -> int:
        """Count anew where the counters are not what the versions come to, and return how many lineages that were."""
