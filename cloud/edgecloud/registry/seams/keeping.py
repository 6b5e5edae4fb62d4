"""What is kept so that versions come back fast, and the promise that it is kept for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgecloud.registry.rows import CompactedRow, PolicyRow, StateRow, VersionLink


class States(Protocol):
    """Kept states of versions. Derived data: unlike all else here they may be dropped, and no log tells of them."""

    def put(self, version_id: int, lineage: int, data: bytes, now: int) -> StateRow:
        """Keep the state of a version; one that is kept already stays. Durable when the transaction around it is."""

    def get(self, version_id: int) -> bytes | None:
        """Return the bytes, None when none are kept. Raises RegistryDamaged when they are not what was kept."""

    def drop(self, version_ids: Sequence[int]) -> None:
        """Forget states; what is not kept is passed over."""

    def row(self, version_id: int) -> StateRow | None: ...

    def of(self, lineage: int) -> list[StateRow]:
        """Return the states of a lineage in the order of linking."""

    def sizes(self, version_ids: Sequence[int]) -> dict[int, int]:
        """Return the bytes of those of these versions' states that are kept."""

    def above(self, version_id: int, limit: int) -> list[VersionLink]:
        """Return a version and those before it, up to so many, the nearest first."""

    def below(self, version_id: int, limit: int) -> list[VersionLink]:
        """Return verified deltas that were built on a version, and on those, up to about so many, the nearest first."""

    def totals(self) -> tuple[int, int]:
        """Return how many states are kept, and their bytes."""

    def sweep(self) -> int:
        """Remove files that no row knows, which a kill has left, and return how many. For who holds the compactor's lock."""

    def compacted(self, lineage: int, epoch: int) -> CompactedRow: ...

    def set_compacted(self, row: CompactedRow) -> None: ...

    def due(self, policy: int, limit: int, before: int, behind: int, after: tuple[int, int] = (0, 0)) -> list[CompactedRow]:
        """Return epochs whose head has moved since they were looked at, or that were for another policy, and how far they were.

        before: heads that came later, and are fewer than `behind` versions ahead, are left for now: each of many updates in a row would
        cost a state. after: the epoch (lineage, epoch) behind which to look.
        """

    def following(self, lineage: int, epoch: int, version_id: int, limit: int) -> list[VersionLink]:
        """Return the verified versions of an epoch behind one, by their numbers, up to the first that is not judged yet."""

    def largest(self) -> dict[bytes, int]:
        """Return the bytes of the largest kept state on each base that has one."""


class Sketches(Protocol):
    """Count sketches of verified versions, 1,024 bytes each (edgecloud/sketches). Derived data: they may all be dropped and made again.

    No bytes of a model follow from one. They go when their device is erased; of a version that was let go one may stay, and nothing
    here finds it.
    """

    def put(self, version_id: int, counts: bytes) -> None:
        """Keep the sketch of a version, in the place of one that is kept."""

    def get(self, version_id: int) -> bytes | None: ...

    def of(self, version_ids: Sequence[int]) -> dict[int, bytes]:
        """Return the sketches of those of these versions that have one."""

    def heads(self, base: bytes) -> list[tuple[int, bytes | None]]:
        """Return the newest verified version of each model whose newest is on this base, with its sketch where it has one."""

    def every(self, base: bytes, after: int = 0, limit: int = -1) -> list[tuple[int, bytes | None]]:
        """Return the verified versions on a base that are not gone, behind a row's id, with the sketch of those that have one.

        limit: as many at most; -1: all of them.
        """

    def missing(self, after: int, limit: int) -> list[int]:
        """Return the next verified versions behind a row's id that have no sketch, parents first."""

    def models(self) -> dict[bytes, int]:
        """Return of how many models the newest verified version is on each base that has one."""

    def with_root(self, root: bytes) -> list[int]:
        """Return the verified versions whose root this is."""

    def judged(self) -> int:
        """Return the row's id up to which no version waits for its verdict."""

    def drop(self) -> int:
        """Forget all sketches, and return how many there were."""


class Policies(Protocol):
    """Store policies; write-once."""

    def add(self, policy: PolicyRow) -> None:
        """Keep a policy: it is in force. Raises LineageError when its number is held."""

    def current(self) -> PolicyRow:
        """Return the one in force; the default, with number 0, where nobody has set one."""

    def all(self) -> list[PolicyRow]:
        """Return all that were set, oldest first."""

    def rates(self) -> dict[str, tuple[float, int]]:
        """Return the seconds that a piece of work takes on this machine, by name, and when that was measured."""

    def set_rates(self, seconds: dict[str, float], now: int) -> None: ...
