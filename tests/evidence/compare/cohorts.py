"""The cohorts of planted fleets against their worlds: the worst adjusted Rand index of several seeds, and fleets without bias beside.

    python -m tests.evidence.compare.cohorts          3 seeds; FULL=1: 10, and 1,000 devices by their sketches
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from unittest import mock

import numpy as np

from edgecloud.registry import SqliteStore
from edgecloud.searching import cluster, drift
from edgecloud.sketches import counting
from edgecloud.versions import naming
from tests.edgecloud import bulk
from tests.planted import Plan, fleet, rand_index

DEVICES = 1000  # of the large fleet, each sketch that of a planted device and noise


def measure(full: bool) -> dict[str, float]:
    """Return the figures. full: ten seeds and a large fleet."""
    seeds = range(10 if full else 3)
    by_weights, by_sketches, false, seconds = [], [], 0, []
    for seed in seeds:
        with _opened(Plan(seed=seed)) as (store, worlds):
            started = time.process_time()
            by_weights.append(_agreement(store, worlds))
            seconds.append(time.process_time() - started)
            with mock.patch.object(cluster, "WHOLE", 0):
                by_sketches.append(_agreement(store, worlds))
        with _opened(Plan(seed=seed, biased=())) as (store, _):
            false += len(cluster.cluster(store).cohorts) > 1
        print(f"  seed {seed}: {by_weights[-1]:.3f} by weights, {by_sketches[-1]:.3f} by sketches", file=sys.stderr)
    figures = {
        "rand_index": min(by_weights), "rand_index_sketches": min(by_sketches), "false_cohorts_share": false / len(seeds),
        "cluster_seconds_60": float(np.median(seconds)),
    }  # fmt: skip
    return figures | (_large() if full else {})


class _opened:
    """A planted fleet's registry and the worlds of its devices, in a folder that goes away."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __enter__(self) -> tuple[SqliteStore, dict[str, str]]:
        self.folder = Path(tempfile.mkdtemp())
        planted = fleet(self.folder, self.plan)
        self.store = planted.open()
        return self.store, planted.worlds

    def __exit__(self, *error: object) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


def _agreement(store: SqliteStore, worlds: dict[str, str]) -> float:
    found = [(cohort.number, worlds[lineage.device]) for cohort in cluster.cluster(store).cohorts for lineage, _ in cohort.members]
    assert len(found) == len(worlds)
    return rand_index([number for number, _ in found], [world for _, world in found])


def _large() -> dict[str, float]:
    """Return the time that a fleet of 1,000 takes by sketches, of a registry of rows alone, and how well its worlds are found."""
    with _opened(Plan(seed=0)) as (store, worlds):
        known = [(worlds[c.lineage.device], _sketch(store, c)) for c in (_way(store, device) for device in sorted(worlds))]
    by_world = {world: np.array([sketch for w, sketch in known if w == world]) for world, _ in known}
    names, rng = sorted(by_world), np.random.default_rng(15)
    with tempfile.TemporaryDirectory() as folder, closing(bulk.make(Path(folder) / "fleet.db", DEVICES, 2)) as store:
        world_of: dict[str, str] = {}
        base = store.bases.all()[0].commit
        with store.transaction():
            for id, _ in store.sketches.heads(base):
                version = store.versions.by_id(id)
                assert version is not None
                world = names[int(rng.integers(len(names)))]
                middle, spread = by_world[world].mean(0), by_world[world].std(0)
                store.sketches.put(id, counting.encode(np.rint(rng.normal(middle, spread)).astype(np.int32)))
                world_of[store.lineages.by_id(version.lineage).device] = world
        started = time.process_time()
        agreement = _agreement(store, world_of)
        return {"cluster_seconds_1000": time.process_time() - started, "rand_index_1000": agreement}


def _way(store: SqliteStore, device: str) -> drift.Drift:
    return drift.drift(store, naming.parse(device))


def _sketch(store: SqliteStore, way: drift.Drift) -> counting.Sketch:
    data = store.sketches.get(way.steps[-1].version.id)
    assert data is not None
    return counting.decode(data)


if __name__ == "__main__":
    for key, value in measure(os.environ.get("FULL") == "1").items():
        print(f"{key} {value:.4g}")
