"""The versions that are nearest to one: sketches shortlist them, the exact distance on the lattice orders them and is what is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecloud.registry import LineageRow, Store, VersionRow
from edgecloud.sketches import counting, measuring
from edgecloud.versions import materialise
from edgecloud.versions.naming import Place
from modelwire.errors import BadArgument, DiskUnwritable, ModelWireError, StateBusy
from modelwire.lattice.state import ModelState

from .gathering import gather

SHORTLIST = 10  # versions that are measured exactly at least; twice as many as are asked for, where that is more
Progress = Callable[[int, int], None]


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
    bases: materialise.LoadedBases | None = None, progress: Progress = lambda done, total: None,
) -> Search:  # fmt: skip
    """Return the `count` versions nearest to one, of other devices and models on its base.

    every: among all versions, those of its own model too, and not the newest of each model alone. exact: measure them all, and leave
    nothing to sketches. bases: of this store, where several searches share them. progress: told of sketches that are made first, and of
    versions that are measured.
    Raises BadArgument for a base of which nothing is on a lattice, and what keeps the version itself from being rebuilt.
    """
    bases = bases if bases is not None else materialise.LoadedBases(store)
    state = bases[place.base].state() if place.version is None else materialise.rebuild(store, place.version, bases)
    itself = None if place.version is None else place.version.id
    return near_state(
        store, state, place.base, count=count, every=every, exact=exact, bases=bases, progress=progress,
        without=lambda version: version.id == itself or (not every and version.lineage == place.lineage.id),
    )  # fmt: skip


def near_state(
    store: Store, state: ModelState, base: bytes, *, count: int, every: bool, exact: bool = False,
    without: Callable[[VersionRow], bool] = lambda version: False,
    bases: materialise.LoadedBases | None = None, progress: Progress = lambda done, total: None,
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
    gathered = gather(store, base, every=every, progress=progress)
    guessed = counting.distances(gathered.sketches, counting.of_state(state))
    shortlist = _shortlist(store, gathered.ids, guessed, without, len(gathered.ids) if exact else shortlisted(count))
    found, unmeasured = list[Neighbour](), list[tuple[str, str]]()
    for done, (i, version) in enumerate(shortlist):
        lineage = store.lineages.by_id(version.lineage)
        try:
            other = materialise.rebuild(store, version, bases)
        except (StateBusy, DiskUnwritable):
            raise
        except ModelWireError as error:
            unmeasured.append((f"{lineage}@{version.version}", error.message))
            continue
        found.append(Neighbour(lineage, version, float(guessed[i]), measuring.apart(state, other)))
        progress(done + 1, len(shortlist))
    found.sort(key=lambda one: (one.apart.squared, one.version.id))
    return Search(
        name, lattice, measuring.apart(state, state.at_base()).distance, tuple(found[:count]), len(gathered.ids), len(found),
        tuple(unmeasured), len(gathered.left_out), _elsewhere(store, base),
    )  # fmt: skip


def shortlisted(count: int) -> int:
    """Return how many versions sketches choose where so many are asked for."""
    return max(SHORTLIST, 2 * count)


def _shortlist(
    store: Store, ids: Sequence[int], guessed: NDArray[np.float64], without: Callable[[VersionRow], bool], most: int
) -> list[tuple[int, VersionRow]]:
    """Return the places and rows of the versions that seem nearest, the nearest first."""
    out: list[tuple[int, VersionRow]] = []
    for i in np.argsort(guessed, kind="stable").tolist():
        if len(out) == most:
            break
        version = store.versions.by_id(ids[i])
        if version is not None and not without(version):  # None: its device was erased meanwhile
            out.append((i, version))
    return out


def _elsewhere(store: Store, base: bytes) -> dict[str, int]:
    """Return how many models have their newest version on each other base: they can't be compared with one of this base."""
    names = {one.commit: one.name for one in store.bases.all()}
    return {names.get(commit, commit.hex()[:16]): n for commit, n in store.sketches.models().items() if commit != base}
