"""What was dropped, what stands in its place, and what is erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgecloud.registry.rows import ErasureRow, SquashRow, ThinnedRow


class Thinnings(Protocol):
    """Versions whose containers were dropped, and the squashes that lead to those of them that are recoverable."""

    def squash(self, version: int) -> SquashRow | None:
        """Return what leads to a version in the place of its own container."""

    def squashes(self, lineage: int) -> dict[int, SquashRow]:
        """Return the squashes of a lineage by the version at their end."""

    def get(self, version: int) -> ThinnedRow | None:
        """Return what is left of a version whose container was dropped."""

    def of(self, lineage: int) -> dict[int, bool]:
        """Return the thinned versions of a lineage, and whether each is gone: no longer recoverable."""

    def nearest(self, lineage: int, version: int) -> tuple[int | None, int | None]:
        """Return the numbers of the recoverable versions next to a number, below and above it."""

    def put(self, squash: SquashRow) -> None:
        """Keep a squash, in the place of the one that leads to the same version."""

    def drop(self, thinned: ThinnedRow) -> None:
        """Note that a version's container is dropped; once gone it stays so, and so does the proof that was kept first."""

    def enter(self, by: int, gone: Sequence[bytes], squashed: Sequence[tuple[bytes, bytes]]) -> None:
        """Enter in the log what is dropped. by: number of the operator's word. gone: commits; squashed: commits and digests of squashes."""

    def discard(self, blob: bytes) -> None:
        """Put bytes on the list of those that go. Raises LineageError for bytes that somebody needs."""

    def discards(self, limit: int) -> list[bytes]:
        """Return bytes that are on that list."""

    def discarded(self, blob: bytes) -> None:
        """Take bytes off the list: they are gone, or needed again."""

    def needed(self, blob: bytes) -> bool:
        """Return whether a base, a squash or a version with its own container needs these bytes."""


class Erasures(Protocol):
    """Devices that are erased."""

    def begin(self, erasure: ErasureRow) -> None:
        """Keep the operator's word and enter it in the log: from now on the rows of this device may be deleted."""

    def all(self) -> list[ErasureRow]:
        """Return all of them, in the order of their numbers."""

    def under_way(self) -> list[str]:
        """Return the devices of which some is still there."""

    def replace_entry(self, number: int, entry: bytes) -> None:
        """Put what is left of an entry of the log in its place; number and link stay. Raises LineageError where nothing is erased."""

    def delete_some(self, device: str, limit: int) -> int:
        """Delete up to so many rows of a device under erasure, those first that others do not refer to; return how many, 0 at the end."""

    def forget_name(self, number: int) -> None:
        """Note that no row of the device is left, and forget its name; what SQLite's log still holds of it is under way until `finish`."""

    def finish(self, number: int) -> None:
        """Note that nothing of the device is left anywhere."""
