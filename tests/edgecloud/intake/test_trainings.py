"""Recipes are trained again in a process of their own: nobody's deltas wait for one, nor do the recipes of who has sent few."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import cast

import pytest

from edgecloud.intake.quotas.trainings import Trainings
from edgecloud.intake.quotas.turns import VersionTurns
from edgecloud.intake.rebuilding import Judged, Rebuilder
from edgecloud.registry import LineageRow, QuotaRow, SqliteStore, VersionRow
from edgecloud.workers.pool import WorkerPool, WorkOutcome
from tests.edgecloud.centre import Centre, sign
from tests.edgecloud.device import Base, ScriptedDevice

PATIENCE = 500.0  # seconds; a safety limit


def test_turns_go_round_and_keep_each_devices_order() -> None:
    turns = VersionTurns()
    for n in range(5):
        turns.add("pi-1", n)
    turns.add("pi-2", 10)
    turns.add("pi-3", 20)
    turns.add("pi-3", 21)
    assert turns.next(4) == [0, 10, 20, 1] and len(turns) == 4
    assert turns.first_of(["pi-9", "pi-2", "pi-3"]) == 21
    assert turns.next(9) == [2, 3, 4] and turns.next(9) == [] and len(turns) == 0


def test_a_device_with_many_versions_and_models_is_rebuilt_a_version_a_turn(centre: Centre, base: Base) -> None:
    many = [centre.meet(ScriptedDevice(base, name="pi-1", model=f"m-{n}")) for n in range(3)]
    other = centre.meet(ScriptedDevice(base, name="pi-2"))
    for device in many:
        centre.deliver(device, *(device.train() for _ in range(10)))
    centre.deliver(other, *(other.train() for _ in range(3)))
    order = [one.name for one in Rebuilder(centre.store).run(1, limit=6)]
    assert sum(name.startswith("pi-2/") for name in order) == 3, order


@pytest.fixture
def trainings(store: SqliteStore) -> Iterator[Trainings]:
    made = Trainings(store, WorkerPool(store.database.path, 1))
    yield made
    made.close()


class GatedPool(WorkerPool):
    """A pool that says nothing of what it has done while it is shut: a training takes as long as a test wants."""

    shut = True

    def take(self, seconds: float) -> list[WorkOutcome]:
        return [] if self.shut else super().take(seconds)


def judged(rebuilder: Rebuilder, now: int, count: int) -> list[Judged]:
    """Return what came of the next versions, in the order of the verdicts."""
    out: list[Judged] = []
    end = time.monotonic() + PATIENCE
    while len(out) < count and time.monotonic() < end:
        out += rebuilder.run(now)
    assert len(out) == count
    return out


class OneByOne:
    """A pool that keeps what it is given, and takes one at a time."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.waiting = 0

    def give(self, id: int, lineage: int) -> None:
        self.given.append(id)
        self.waiting = 1


def test_who_is_new_takes_turns_with_who_has_sent_recipes_for_months(centre: Centre, base: Base) -> None:
    pool = OneByOne()
    trainings = Trainings(centre.store, cast(WorkerPool, pool))
    of: dict[int, LineageRow] = {}
    versions: dict[str, list[VersionRow]] = {}
    for name in ("pi-1", "pi-2"):
        device = centre.meet(ScriptedDevice(base, name=name))
        centre.deliver(device, *(device.learn(range(n + 4)) for n in range(4)))
        lineage = centre.store.lineages.get(name, "digits")
        assert lineage is not None
        versions[name] = [v for v in centre.store.versions.unverified(99, 0) if v.lineage == lineage.id]
        of |= {v.id: lineage for v in versions[name]}

    def next_of(count: int) -> list[str]:
        for _ in range(count):
            trainings.deal(centre.now)
            trainings.dealt.clear()
            pool.waiting = 0
            trainings.took(of[pool.given[-1]].device, 10.0)
        return [of[id].device for id in pool.given[-count:]]

    trainings.took("pi-1", 100_000.0)
    for version in versions["pi-1"]:
        trainings.take_on(of[version.id], version)
    assert next_of(1) == ["pi-1"]
    for version in versions["pi-2"]:
        trainings.take_on(of[version.id], version)
    assert sorted(next_of(4)) == ["pi-1"] * 2 + ["pi-2"] * 2


@pytest.mark.slow("replays trainings in a process")
@pytest.mark.parametrize("workers", [0, 1])
def test_six_recipes_that_take_for_ever_keep_nobody_waiting(store: SqliteStore, base: Base, workers: int) -> None:
    centre = Centre(store)
    greedy = [centre.meet(ScriptedDevice(base, name="pi-1", model=f"m-{n}")) for n in range(6)]
    other, modest = (centre.meet(ScriptedDevice(base, name=f"pi-{n}")) for n in (2, 3))
    for device in greedy:
        centre.deliver(device, device.learn(range(30)), device.train())
    centre.deliver(other, *(other.train() for _ in range(20)))
    centre.deliver(modest, modest.learn(range(9)), modest.train())
    pool, gated = WorkerPool(store.database.path, workers) if workers else None, GatedPool(store.database.path, 1)
    trainings = Trainings(store, gated)
    rebuilder = Rebuilder(store, sign=sign, pool=pool, trainings=trainings)
    try:
        first = judged(rebuilder, centre.now, 20)
        assert {one.name for one in first} == {f"pi-2/digits@{n}" for n in range(1, 21)} and all(one.ok for one in first)
        assert rebuilder.busy, "a recipe is being trained all the time"
        gated.shut = False
        order = [one.name for one in judged(rebuilder, centre.now, 14) if one.ok]
    finally:
        trainings.close()
        if pool is not None:
            pool.close()
    assert len(order) == 14 and not rebuilder.busy
    # One of pi-1's was under way; the next is of who has had no time yet.
    assert order.index("pi-3/digits@1") == 1, order
    for device in greedy:
        assert order.index(f"pi-1/{device.model}@1") < order.index(f"pi-1/{device.model}@2")
    assert store.quotas.used("pi-1", centre.now).cpu > store.quotas.used("pi-3", centre.now).cpu > 0


@pytest.mark.slow("replays trainings in a process")
def test_a_device_that_has_had_its_seconds_goes_on_in_the_next_hour(store: SqliteStore, base: Base, trainings: Trainings) -> None:
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.learn(range(9)), device.train(), device.train())
    store.quotas.set("pi-7", QuotaRow(cpu_an_hour=1), 1)
    store.quotas.count("pi-7", centre.now, cpu=2.0)
    rebuilder = Rebuilder(store, sign=sign, trainings=trainings)
    for _ in range(3):
        assert rebuilder.run(centre.now) == [] and not rebuilder.busy
    assert set(centre.statuses(device).values()) == {"stored"}
    assert [one.ok for one in judged(rebuilder, centre.now + 3600, 3)] == [True] * 3


@pytest.mark.slow("starts a process")
def test_a_recipe_that_does_not_come_out_is_refused_with_all_that_is_built_on_it(
    store: SqliteStore, base: Base, trainings: Trainings
) -> None:
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    seal = device.seal
    device.seal = lambda *args, **said: seal(*args, **{**said, "root": bytes(32)})  # type: ignore[method-assign]
    bad = device.learn(range(4))
    device.seal = seal  # type: ignore[method-assign]
    centre.deliver(device, bad, *(device.train() for _ in range(3)))
    rebuilder = Rebuilder(store, sign=sign, trainings=trainings)
    assert [one.ok for one in judged(rebuilder, centre.now, 4)] == [False] * 4
    assert rebuilder.run(centre.now) == [] and not rebuilder.busy
