"""How far a device's model has gone from its base, version by version: by sketches on the way, exactly at its ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecloud.keeping.sketching import SketchMaker
from edgecloud.registry import LineageRow, Status, Store, VersionRow
from edgecloud.sketches import counting, measuring
from edgecloud.sketches.measuring import Apart
from edgecloud.versions import naming
from edgecloud.versions.materialise import LoadedBases, rebuild
from modelwire.errors import BadArgument, ModelWireError, UnknownVersion

JUDGED = 8  # steps from which on one may stand out
FAR = 5.0  # robust deviations above the median: one step in a few million of normal ones
TURN = -0.3  # cosine of two steps that follow each other: a sketch estimates it within 0.13 nineteen times in twenty


@dataclass(frozen=True, slots=True)
class DriftStep:
    """One version on the way. Lengths in units of the base; NaN where no sketch tells them."""

    version: VersionRow
    far: float  # from where the way begins
    step: float  # from the version before it
    turn: float  # cosine of this step and the one before
    stands_out: bool  # the step is much longer than the others
    reverses: bool  # it takes back what the one before did
    recoverable: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """The way of one model on one base."""

    lineage: LineageRow
    since: str  # base, or @VERSION
    steps: tuple[DriftStep, ...]  # the oldest first
    exact: Apart | None  # of both ends; None where one of them is not recoverable
    why: str  # it is not
    entries: int  # weights on the lattice

    @property
    def gone(self) -> float:
        """The lengths of all steps together; NaN where one is not known."""
        return math.fsum(one.step for one in self.steps)

    @property
    def away(self) -> float:
        """How far the end is from the beginning: exact where that is known."""
        return self.exact.distance if self.exact is not None else self.steps[-1].far


def drift(
    store: Store, name: naming.Name, *, since: int | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Drift:  # fmt: skip
    """Return the way to a version, or to the newest verified one, from its base or from version `since` of the same base.

    Raises UnknownVersion for a name the registry has not, BadArgument where there is no way between them.
    """
    lineage = naming.find_lineage(store, name)
    end = _end(store, lineage, name)
    chain = _chain(store, end)
    start: VersionRow | None = None
    if since is not None:
        start = next((v for v in chain[:-1] if v.version == since), None)
        if since == end.version:
            raise BadArgument(reason=f"@{since} is where the way ends: it begins before that", fix=f"edgecloud drift {lineage}@{since}")
        if start is None:
            known = store.versions.numbered(lineage.id, since)
            if known is None:
                raise UnknownVersion(name=f"{lineage}@{since}")
            raise BadArgument(
                reason=f"{lineage}@{since} is not on the way to @{end.version}: it is another base's, another life's, or was taken back",
                fix=f"edgecloud diff {lineage}@{since} {lineage}@{end.version}",
            )
    way = chain[chain.index(start) + 1 :] if start is not None else chain
    bases = LoadedBases(store)
    entries = counting.on_lattice(bases[end.base].manifest)
    if not entries:
        raise BadArgument(reason=f"no tensor of {lineage} is on a lattice: its steps have no length", fix="edgecloud diff A@1 A@2")
    steps = _steps(store, start, way, _sketches(store, [*([start] if start else []), *way], progress))
    exact, why = _exact(store, start, end, bases)
    return Drift(lineage, f"@{start.version}" if start else naming.BASE, steps, exact, why, entries)


def _end(store: Store, lineage: LineageRow, name: naming.Name) -> VersionRow:
    place = naming.find(store, name)
    version = place.version
    while version is not None and version.status is not Status.VERIFIED:
        if isinstance(name.version, int):
            raise BadArgument(reason=f"{place} is {version.status.value} and not verified", fix=f"edgecloud log {lineage}")
        version = store.versions.by_id(version.parent_id) if version.parent_id is not None else None
    if version is None:
        raise BadArgument(reason=f"{lineage} has not left its base: no version of it is verified", fix=f"edgecloud log {lineage}")
    return version


def _chain(store: Store, end: VersionRow) -> list[VersionRow]:
    """Return the versions that led to one, on its base, the oldest first; those that were taken back are not among them."""
    out, version = list[VersionRow](), end
    while True:
        out.append(version)
        before = store.versions.by_id(version.parent_id) if version.parent_id is not None else None
        if before is None or before.base != end.base:
            return out[::-1]
        version = before


def _sketches(store: Store, versions: Sequence[VersionRow], progress: Callable[[int, int], None]) -> dict[int, counting.Sketch]:
    """Return the sketches by version; those that are not kept are made where that can be."""
    out = {id: counting.decode(data) for id, data in store.sketches.of([v.id for v in versions]).items()}
    lacking = [v.id for v in versions if v.id not in out]
    maker = SketchMaker(store)
    for done, id in enumerate(lacking):
        made = maker.make(id, out)
        if made is not None:
            out[id] = made
        progress(done + 1, len(lacking))
    return out


def _steps(
    store: Store, start: VersionRow | None, way: Sequence[VersionRow], sketches: dict[int, counting.Sketch]
) -> tuple[DriftStep, ...]:  # fmt: skip
    origin = sketches.get(start.id) if start is not None else counting.add()
    before, last = origin, None
    moves = list[NDArray[np.float64] | None]()
    far = list[float]()
    turns = list[float]()
    for version in way:
        here = sketches.get(version.id)
        move = _between(before, here)
        moves.append(move)
        whole = _between(origin, here)
        far.append(math.nan if whole is None else float(np.sqrt(whole @ whole)))
        turns.append(_cosine(last, move))
        before, last = here, move
    lengths = np.array([math.nan if move is None else float(np.sqrt(move @ move)) for move in moves])
    high = _high(lengths)
    return tuple(
        DriftStep(
            version, far[i], float(lengths[i]), turns[i], bool(lengths[i] > high), bool(turns[i] < TURN), recoverable(store, version)
        )
        for i, version in enumerate(way)
    )  # fmt: skip


def recoverable(store: Store, version: VersionRow) -> bool:
    """Return whether a version's bytes can still be rebuilt, as its rows say."""
    left = store.thinnings.get(version.id)
    return left is None or not left.gone


def _between(a: counting.Sketch | None, b: counting.Sketch | None) -> NDArray[np.float64] | None:
    if a is None or b is None:
        return None
    return counting.add(b, counting.negate(a)).astype(np.float64)


def _cosine(a: NDArray[np.float64] | None, b: NDArray[np.float64] | None) -> float:
    if a is None or b is None:
        return math.nan
    length = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / length if length else math.nan


def _high(lengths: NDArray[np.float64]) -> float:
    """Return above which length a step stands out: by the median and the median deviation from it, which a few odd ones do not move."""
    known = lengths[np.isfinite(lengths)]
    if len(known) < JUDGED:
        return math.inf
    middle = float(np.median(known))
    deviation = 1.4826 * float(np.median(np.abs(known - middle)))
    return middle + FAR * max(deviation, 0.1 * middle)  # a sketch tells a length within a tenth or so


def _exact(store: Store, start: VersionRow | None, end: VersionRow, bases: LoadedBases) -> tuple[Apart | None, str]:
    try:
        first = bases[end.base].state() if start is None else rebuild(store, start, bases)
        return measuring.apart(first, rebuild(store, end, bases)), ""
    except ModelWireError as error:
        return None, error.message
