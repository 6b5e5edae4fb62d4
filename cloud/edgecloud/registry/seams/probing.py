"""Probe sets, and what versions made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edgecloud.registry.probe_rows import IntermediateRow, ObservedRow, ProbeRow


class ProbeSets(Protocol):
    """Probe sets by name and digest; rows are write-once, and removing one is a row that says so: only then its bytes go."""

    def add(self, probe: ProbeRow, data: bytes) -> ProbeRow:
        """Keep a set. Raises LineageError where its name is taken."""

    def named(self, name: str) -> ProbeRow | None:
        """Return the set that has this name now."""

    def all(self, *, removed: bool = False) -> list[ProbeRow]:
        """Return the sets by name; removed: those too that are gone, oldest first behind the others."""

    def data(self, digest: bytes) -> bytes | None:
        """Return the bytes of a set. Raises RegistryDamaged when they are not what was kept."""

    def remove(self, probe: ProbeRow, now: int) -> None:
        """Enter that a set is removed, and delete its bytes and all that versions made of it, unless another name has the same rows."""


class Intermediates(Protocol):
    """What versions made of probe sets. Derived data: all of it may be dropped."""

    def get(self, version_id: int | None, base: bytes, probe: bytes, way: str) -> ObservedRow | None: ...

    def asked(self, observed: ObservedRow) -> ObservedRow:
        """Count one more query, and keep what it took: one that is not known yet is entered."""

    def layers(self, observed: ObservedRow) -> list[IntermediateRow]:
        """Return what is kept, in the order of layers; nothing where it was not materialised."""

    def chunk(self, digest: bytes) -> bytes | None:
        """Return the bytes of a chunk; None where they are gone or are not what was kept."""

    def sizes(self, chunks: Sequence[bytes]) -> dict[bytes, tuple[int, int, float]]:
        """Return of those of these chunks that are kept their bytes, how many intermediates each stands for, and their error."""

    def put(self, observed: ObservedRow, layers: Sequence[IntermediateRow], chunks: Mapping[bytes, bytes]) -> None:
        """Keep layers. chunks: bytes of those that are not kept yet, or are damaged."""

    def drop(self, observed: ObservedRow) -> None:
        """Forget what is kept of one; chunks that no other needs go with it. How often it was asked for stays."""

    def clear(self) -> None:
        """Forget all."""

    def kept(self) -> list[tuple[ObservedRow, float]]:
        """Return what is materialised, and its bytes: of a chunk that several share, its part."""

    def total(self) -> int:
        """Return the bytes of all chunks."""
