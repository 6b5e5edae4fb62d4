"""The versions that are nearest to one: sketches shortlist them, the exact distance on the lattice orders them and is what is told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgecloud.registry import LineageRow, Store, VersionRow
from edgecloud.sketches import counting, measuring
from edgecloud.versions import materialise, several
from edgecloud.versions.naming import Place
from modelwire.errors import BadArgument, ModelWireError
from modelwire.lattice.state import ModelState

from .gathering import EstimatedVersions, estimate

SHORTLIST = 10  # versions that are measured exactly at least; twice as many as are asked for, where that is more
RECENT = 64 << 20  # bytes of versions in memory, for searches that follow each other
Progress = Callable[[int, int], None]


class Recent:
    """Versions that were rebuilt and proven lately, by base and root: the same root is the same model, whoever sent it. For one thread."""

    def __init__(self, room: int = RECENT) -> None:
        self._room, self._held = room, 0
        self._kept: OrderedDict[tuple[bytes, bytes], measuring.Coordinates] = OrderedDict()

    def get(self, version: VersionRow) -> measuring.Coordinates | None:
        found = self._kept.get((version.base, version.root))
        if found is not None:
            self._kept.move_to_end((version.base, version.root))
        return found

    def put(self, version: VersionRow, state: ModelState) -> None:
        """Keep what a version was found to be, its root proven."""
        one = measuring.coordinates_of(state)
        before = self._kept.pop((version.base, version.root), None)
        self._kept[version.base, version.root] = one
        self._held += one.size - (before.size if before is not None else 0)
        while self._held > self._room:
            self._held -= self._kept.popitem(last=False)[1].size


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One version near another."""

    lineage: LineageRow
    version: VersionRow
    guessed: float  # distance as the sketches have it
    apart: measuring.Apart  # exactly

    def __str__(self) -> str:
        return f"{self.lineage}@{self.version.version}"


@dataclass(frozen=True, slots=True)
class Search:
    """What was found, and among what."""

    base: str  # its name
    on_lattice: int  # weights that are compared
    from_base: float  # distance of what was asked about from its base
    neighbours: tuple[Neighbour, ...]  # the nearest first
    compared: int  # versions by their sketches, its own among them
    measured: int  # versions exactly
    unmeasured: tuple[tuple[str, str], ...]  # versions that would have been, and what kept them from being rebuilt
    unsketched: int  # versions of the base that have no sketch and could not get one
    elsewhere: dict[str, int]  # models whose newest version is on another base, by its name


def nearest(
    store: Store, place: Place, *, count: int = 5, every: bool = False, exact: bool = False,
    bases: materialise.LoadedBases | None = None, recent: Recent | None = None, progress: Progress = lambda done, total: None,
) -> Search:  # fmt: skip
    """Return the `count` versions nearest to one, of other devices and models on its base.

    every: among all versions, those of its own model too, and not the newest of each model alone. exact: measure them all, and leave
    nothing to sketches. bases, recent: of this store, where several searches share them. progress: told of sketches that are made first,
    and of versions that are measured.
    Raises BadArgument for a base of which nothing is on a lattice, and what keeps the version itself from being rebuilt.
    """
    bases = bases if bases is not None else materialise.LoadedBases(store)
    state = bases[place.base].state() if place.version is None else _itself(store, place.version, bases, recent)
    itself = None if place.version is None else place.version.id
    return near_state(
        store, state, place.base, count=count, every=every, exact=exact, bases=bases, recent=recent, progress=progress,
        without=lambda version: version.id == itself or (not every and version.lineage == place.lineage.id),
    )  # fmt: skip


def near_state(
    store: Store, state: ModelState | measuring.Coordinates, base: bytes, *, count: int, every: bool, exact: bool = False,
    without: Callable[[VersionRow], bool] = lambda version: False,
    bases: materialise.LoadedBases | None = None, recent: Recent | None = None, progress: Progress = lambda done, total: None,
) -> Search:  # fmt: skip
    """Return the same of any state on a base. without: says of a version that it is not looked for."""
    bases = bases if bases is not None else materialise.LoadedBases(store)
    row = store.bases.get(base)
    name = row.name if row is not None else base.hex()[:16]
    lattice = counting.on_lattice(state.manifest)
    if not lattice:
        raise BadArgument(
            reason=f"no tensor of the base {name!r} is on a lattice, so its versions have no sketches",
            fix="edgecloud diff A@VERSION B@VERSION compares two of them",
        )
    guessed = estimate(store, base, counting.of_integers(state.manifest, state.integers, state.exponents), every=every, progress=progress)
    shortlist = _shortlist(store, guessed, without, len(guessed.ids) if exact else shortlisted(count))
    found, unmeasured = list[Neighbour](), list[tuple[str, str]]()
    by_sketch = {version.id: distance for distance, version in shortlist}
    for done, (version, other) in enumerate(_measured(store, [version for _, version in shortlist], bases, recent), 1):
        lineage = store.lineages.by_id(version.lineage)
        if isinstance(other, ModelWireError):
            unmeasured.append((f"{lineage}@{version.version}", other.message))
        else:
            found.append(Neighbour(lineage, version, by_sketch[version.id], measuring.apart(state, other)))
        progress(done, len(shortlist))
    found.sort(key=lambda one: (one.apart.squared, one.version.id))
    return Search(
        name, lattice, measuring.apart(state, bases[base].state()).distance, tuple(found[:count]), len(guessed.ids), len(found),
        tuple(unmeasured), len(guessed.left_out), _elsewhere(store, base),
    )  # fmt: skip


def _itself(
    store: Store, version: VersionRow, bases: materialise.LoadedBases, recent: Recent | None
) -> ModelState | measuring.Coordinates:  # fmt: skip
    known = recent.get(version) if recent is not None else None
    if known is not None:
        return known
    state = materialise.rebuild(store, version, bases)
    if recent is not None:
        recent.put(version, state)
    return state


def _measured(
    store: Store, versions: Sequence[VersionRow], bases: materialise.LoadedBases, recent: Recent | None
) -> Iterator[tuple[VersionRow, ModelState | measuring.Coordinates | ModelWireError]]:
    """Yield each version with what its distance is measured by, or with what keeps it from being rebuilt."""
    lacking = []
    for version in versions:
        known = recent.get(version) if recent is not None else None
        if known is None:
            lacking.append(version)
        else:
            yield version, known
    for version, state in several.each(store, lacking, bases):
        if recent is not None and isinstance(state, ModelState):
            recent.put(version, state)
        yield version, state


def shortlisted(count: int) -> int:
    """Return how many versions sketches choose where so many are asked for."""
    return max(SHORTLIST, 2 * count)


def _shortlist(
    store: Store, guessed: EstimatedVersions, without: Callable[[VersionRow], bool], most: int
) -> list[tuple[float, VersionRow]]:  # fmt: skip
    """Return the distances and rows of the versions that seem nearest, the nearest first."""
    out: list[tuple[float, VersionRow]] = []
    for i in np.argsort(guessed.distances, kind="stable"):
        if len(out) == most:
            break
        version = store.versions.by_id(int(guessed.ids[i]))
        if version is not None and not without(version):  # None: its device was erased meanwhile
            out.append((float(guessed.distances[i]), version))
    return out


def _elsewhere(store: Store, base: bytes) -> dict[str, int]:
    """Return how many models have their newest version on each other base: they can't be compared with one of this base."""
    names = {one.commit: one.name for one in store.bases.all()}
    return {names.get(commit, commit.hex()[:16]): n for commit, n in store.sketches.models().items() if commit != base}
