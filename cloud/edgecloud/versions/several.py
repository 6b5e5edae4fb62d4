"""Rebuilds many versions: kept states are decoded ahead, on the other cores, and versions of one model share a walk where that is shorter.

Each is as exact and as proven as what `materialise.rebuild` gives.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from edgecloud.registry import Status, Store, VersionRow
from modelwire.errors import DiskUnwritable, ModelWireError, StateBusy
from modelwire.lattice.state import ModelState

from . import materialise, route, states

ROOM = 128 * 1024 * 1024  # bytes that states decoded ahead may take together, about
WEIGHT = 12  # bytes of a state for each weight
STEPS = 32  # from one version to the next of the same model, at most


def each(
    store: Store, versions: Sequence[VersionRow], bases: materialise.LoadedBases
) -> Iterator[tuple[VersionRow, ModelState | ModelWireError]]:
    """Yield each version with its state, or with what keeps it from being exact: those of one model after each other.

    A state is of use until the next one is asked for. Raises StateBusy and DiskUnwritable.
    """
    by_lineage: dict[int, list[VersionRow]] = {}
    for version in versions:
        by_lineage.setdefault(version.lineage, []).append(version)
    cores, rates = max(1, min(4, len(os.sched_getaffinity(0)))), route.rates_of(store)
    pool = ThreadPoolExecutor(cores, thread_name_prefix="edgecloud-decode")
    try:
        begun = deque[tuple[list[VersionRow], materialise.Begun | None]]()
        left = iter(by_lineage.values())
        while True:
            while len(begun) < _at_once(begun, bases, cores) and (group := next(left, None)) is not None:
                group.sort(key=lambda one: one.version)
                begun.append((group, _begin(store, group[0], bases, pool, rates)))
            if not begun:
                return
            yield from _Walk(store, bases, *begun.popleft()).run()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _at_once(begun: Sequence[tuple[list[VersionRow], materialise.Begun | None]], bases: materialise.LoadedBases, cores: int) -> int:
    """Return how many models may be begun at a time."""
    if not begun:
        return 1
    size = max(bases[group[0].base].manifest.schema.size for group, _ in begun)
    return max(1, min(2 * cores, ROOM // (WEIGHT * max(1, size))))


def _begin(
    store: Store, version: VersionRow, bases: materialise.LoadedBases, pool: ThreadPoolExecutor, rates: route.Rates
) -> materialise.Begun | None:  # fmt: skip
    """Return a rebuild whose kept state is being decoded; None where `rebuild` is to begin by itself, and to say what is wrong."""
    try:
        way = route.find(store, version, rates)
        if way is None or not isinstance(way.start, int):
            return None if way is None else materialise.Begun(way, None)
        row, data = store.versions.by_id(way.start), store.states.get(way.start)
        if row is None or data is None:
            return None
        fresh = bases[version.base].state()
    except ModelWireError:
        return None
    lineage = store.lineages.by_id(version.lineage)
    return materialise.Begun(way, pool.submit(states.decode, data, fresh, lineage, row, "the registry").result)


@dataclass(slots=True)
class _Walk:
    """The versions of one model, the oldest first: each from the one before, or by a way of its own where that is shorter."""

    store: Store
    bases: materialise.LoadedBases
    versions: list[VersionRow]
    begun: materialise.Begun | None
    _seconds: float = field(init=False, default=0.0)  # of the longest way so far that was one of its own
    _state: ModelState | None = field(init=False, default=None)

    def run(self) -> Iterator[tuple[VersionRow, ModelState | ModelWireError]]:
        before: VersionRow | None = None
        for version in self.versions:
            try:
                self._state = self._onward(before, version) or self._alone(version)
            except (StateBusy, DiskUnwritable):
                raise
            except ModelWireError as error:
                self._state = None
                yield version, error
                continue
            before = version
            yield version, self._state

    def _alone(self, version: VersionRow) -> ModelState:
        told, begun, self.begun = list[route.Route](), self.begun, None
        state = materialise.rebuild(self.store, version, self.bases, told=told, begun=begun)
        self._seconds = max(self._seconds, told[-1].seconds)
        return state

    def _onward(self, before: VersionRow | None, version: VersionRow) -> ModelState | None:
        """Return the state moved on to a version; None where that takes longer than a way of its own, or can't be."""
        state, self._state = self._state, None  # after an error it is of no use
        if state is None or before is None or before.base != version.base:
            return None
        lineage = self.store.lineages.by_id(version.lineage)
        materialise.require_served(lineage, version)
        steps = self._steps(before, version)
        try:
            for row in steps:
                materialise.step(self.store, lineage, row, state, prove=row.id == version.id)
        except (StateBusy, DiskUnwritable):
            raise
        except ModelWireError:
            return None  # a way of its own goes around what is damaged, or says what it is
        return state if steps else None

    def _steps(self, before: VersionRow, version: VersionRow) -> list[VersionRow]:
        """Return the updates from one version to another; none where there are too many, or one that is slow or leads elsewhere."""
        rates = route.rates_of(self.store)
        links = {link.id: link for link in self.store.states.above(version.id, STEPS)}
        seconds, at, out = 0.0, version.id, list[int]()
        while at != before.id:
            link = links.get(at)
            if link is None or link.parent_id is None or link.kind not in route.INVERTIBLE or link.status is not Status.VERIFIED:
                return []
            seconds += rates.of_update(link.size)
            if seconds > self._seconds:
                return []
            out.append(at)
            at = link.parent_id
        rows = [self.store.versions.by_id(id) for id in reversed(out)]
        return [row for row in rows if row is not None] if None not in rows else []  # None: its device was erased meanwhile
