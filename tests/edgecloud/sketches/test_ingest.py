"""Each version that is verified has a sketch, whoever rebuilt it: this thread or a worker; equal to that of its state."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.intake.rebuilding import Rebuilder
from edgecloud.sketches import counting
from edgecloud.versions import materialise
from edgecloud.workers import pool as pool_of_workers
from edgecloud.workers.pool import WorkerPool
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.of()


def grown(path: Path, base: Base) -> Centre:
    """Return a centre that holds deltas, a snapshot and recipes of two devices, all waiting for their proof."""
    centre = Centre(make_registry(path, base))
    for name in ("pi-1", "pi-2"):
        device = centre.meet(ScriptedDevice(base, name))
        centre.deliver(device, device.train(), device.train(), device.snapshot(), device.learn(range(20)), device.train())
    return centre


@pytest.mark.parametrize("workers", [0, 2])
def test_a_version_gets_its_sketch_when_it_is_verified(tmp_path: Path, base: Base, workers: int) -> None:
    centre = grown(tmp_path / "fleet.db", base)
    store = centre.store
    pool = WorkerPool(tmp_path / "fleet.db", workers) if workers else None
    rebuilder = Rebuilder(store, pool=pool) if pool else centre.rebuilder
    try:
        judged = 0
        while judged < 10:
            judged += len(rebuilder.run(centre.now))
    finally:
        if pool:
            pool.close()
    assert store.sketches.missing(0, 99) == []
    every = store.sketches.every(base.manifest.commit)
    assert len(every) == 10
    bases = materialise.LoadedBases(store)
    for id, sketch in every:
        version = store.versions.by_id(id)
        assert version is not None and sketch == counting.encode(counting.of_state(materialise.rebuild(store, version, bases)))


@pytest.mark.parametrize("sketch", [bytes(1023), bytes(1025), "x" * 1024, 7, None])
def test_what_a_worker_says_for_a_sketch_is_looked_at(sketch: object) -> None:
    assert pool_of_workers._parsed([1, "ok", "", 5, sketch]) is None
    assert pool_of_workers._parsed([1, "ok", "", 5]) is None
    good = pool_of_workers._parsed([1, "ok", "", 5, bytes(1024)])
    assert good is not None and good.sketch == bytes(1024)
