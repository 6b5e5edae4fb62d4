"""How fast any version comes back, and what that costs: a thousand versions under the promise of two states, and the fourth of a chain.

The least possible storage is what no store can do without: the bytes of all updates, and one state to begin with.
Versions are made by the real encoder and stand in a real registry; the compactor that keeps their states is the ingester's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecloud.keeping.compacting import Compactor, compacting
from edgecloud.registry import SqliteStore, VersionRow
from edgecloud.versions import exporting, materialise, route
from tests.edgecloud.centre import make_registry
from tests.edgecloud.wide import WideDevice, enrol, grow, wide_base

MMLIB_TTR4 = 1.48  # seconds: MMlib's recovery of version 4 of a net of 3.5 M weights, on such a machine
DENSITY = 0.0075  # of an update: the agent's
REPEATS = 5


@dataclass(frozen=True)
class Chain:
    """One chain under the promise, measured."""

    name: str
    worst_states: float  # bytes of the worst recovery, over those of the newest kept state
    bound_states: float  # 2 + the largest update, over the same
    worst_time: float  # seconds of the worst recovery, over those of reading and proving one state
    storage: float  # over the least possible
    head_reads: int


def measure(full: bool) -> dict[str, float]:
    """Return the figures. full: 1,000 versions of 3.5 M weights, which take minutes; else 200 of 200,000."""
    weights, versions = (3_500_000, 1000) if full else (200_000, 200)
    rng = np.random.default_rng(14)
    sizes = {
        "constant": [0.008] * versions,
        "lognormal": [float(x) for x in np.clip(0.03 * rng.lognormal(-0.5, 1.0, versions), 1e-4, 0.5)],
    }
    chains = [_chain(name, weights, shares) for name, shares in sizes.items()]
    for one in chains:
        _say(
            f"{one.name}: worst {one.worst_states:.2f} states (bound {one.bound_states:.2f}), {one.worst_time:.2f} x the time of one"
            f" state, storage {one.storage:.2f} x the least, head {one.head_reads} read"
        )
    seconds = _fourth(3_500_000)
    _say(f"version 4 of 3.5 M weights, from the registry to the file: {1000 * seconds:.0f} ms ({MMLIB_TTR4 / seconds:.1f} x MMlib)")
    return {
        "worst_states": round(max(one.worst_states for one in chains), 3),
        "worst_bound_states": round(min(one.bound_states - one.worst_states for one in chains), 3),
        "worst_time_over_state": round(max(one.worst_time for one in chains), 3),
        "storage_over_least": round(max(one.storage for one in chains), 3),
        "head_reads": max(one.head_reads for one in chains),
        "storing_weights": weights, "storing_versions": versions,
        "ttr4_ms": round(1000 * seconds, 1),
        "ttr4_speedup_over_mmlib": round(MMLIB_TTR4 / seconds, 2),
    }  # fmt: skip


def _chain(name: str, weights: int, shares: list[float]) -> Chain:
    """Grow a chain as the ingester would, compact it, and recover all of it on paper and its worst for real."""
    with tempfile.TemporaryDirectory() as folder:
        path, base = Path(folder) / "fleet.db", wide_base(weights)
        store = make_registry(path, base)
        device = WideDevice(base)
        lineage, rows = enrol(store, device), []
        with compacting(store, path):
            compactor = Compactor(store, settle=0, behind=1)
            for start in range(0, len(shares), 50):
                rows += grow(store, lineage, device, shares[start : start + 50])
                while compactor.run() is not None:
                    pass
                print(f"\r{name}: {len(rows)} of {len(shares)} versions", end="", file=sys.stderr)
        print(file=sys.stderr)
        try:
            return _measured(name, store, lineage, rows)
        finally:
            store.close()


def _measured(name: str, store: SqliteStore, lineage: int, rows: list[VersionRow]) -> Chain:
    kept = {one.version_id: one.size for one in store.states.of(lineage)}
    state, rates = kept[rows[-1].id], route.rates_of(store)
    ways = [_way(store, row, rates) for row in rows]
    bases = materialise.LoadedBases(store)
    bases[rows[0].base].state()
    one = _best(lambda: materialise.rebuild(store, rows[-1], bases))
    by_bytes = sorted(range(len(rows)), key=lambda i: -ways[i].size)
    slow = sorted({*by_bytes[:5], *sorted(range(len(rows)), key=lambda i: -ways[i].seconds)[:5]})
    times = {i: _best(lambda i=i: materialise.rebuild(store, rows[i], bases)) for i in slow}  # type: ignore[misc]
    middle = [len(rows) // 4, len(rows) // 2, 3 * len(rows) // 4]
    _say(f"{name}: {len(rows)} updates of {sum(r.size for r in rows)} bytes, {len(kept)} states of {sum(kept.values())}")
    _say("version   read bytes   states   updates walked   back   ms")
    for i in sorted({0, *middle, by_bytes[0], len(rows) - 1}):
        way, back = ways[i], sum(hop.back for hop in ways[i].hops)
        took = times[i] if i in times else _best(lambda i=i: materialise.rebuild(store, rows[i], bases))  # type: ignore[misc]
        _say(f"{rows[i].version:7}   {way.size:10}   {way.size / state:6.2f}   {len(way.hops):14}   {back:4}   {1000 * took:.1f}")
    updates = sum(row.size for row in rows)
    return Chain(
        name, max(way.size for way in ways) / state, 2 + max(row.size for row in rows) / state, max(times.values()) / one,
        (updates + sum(kept.values())) / (updates + state), 1 + len(ways[-1].hops),
    )  # fmt: skip


def _way(store: SqliteStore, row: VersionRow, rates: route.Rates) -> route.Route:
    found = route.find(store, row, rates)
    assert found is not None
    return found


def _fourth(weights: int) -> float:
    """Return the seconds from a registry to the file of version 4, all of it: the base read and proven, four updates, the root, the file.

    No state is kept of it, as of the newest version of a short chain between two looks of the compactor.
    """
    with tempfile.TemporaryDirectory() as folder:
        base = wide_base(weights)
        store = make_registry(Path(folder) / "fleet.db", base)
        device = WideDevice(base)
        last = grow(store, enrol(store, device), device, [DENSITY] * 4)[-1]

        def recover() -> None:
            bases = materialise.LoadedBases(store)
            state = materialise.rebuild(store, last, bases)
            exporting.export(Path(folder) / "version-4.tflite", state, bases[last.base], {})

        try:
            return _best(recover)
        finally:
            store.close()


def _best(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    import json
    import os

    print(json.dumps(measure(os.environ.get("FULL", "") not in ("", "0")), indent=1))
