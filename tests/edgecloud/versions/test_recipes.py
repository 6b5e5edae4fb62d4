"""Versions that came as recipes: replayed, verified and materialised like any other, refused by name when they lie."""

from __future__ import annotations

import time

import pytest

import edgecloud
from edgecloud.intake.rebuilding import Rebuilder
from edgecloud.versions import materialise
from modelwire.update.container import parse, seal
from modelwire.wire.records import Level, Receipt
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import Base, ScriptedDevice
from tests.keys import FLEET_ID


@pytest.mark.slow("replays a hundred trainings")
def test_a_hundred_recipes_in_one_lineage_have_a_hundred_equal_roots(centre: Centre, device: ScriptedDevice) -> None:
    started = time.process_time()
    for n in range(100):
        sent = device.learn(range(n, n + 30), seed=n, rate=0.05)
        assert [o.result.value for o in centre.deliver(device, sent)] == ["stored"]
    judged = centre.rebuild()
    assert len(judged) == 100 and all(one.ok for one in judged)
    assert [level for _, level in centre.receipts()].count(Level.VERIFIED) == 100
    lineage = centre.store.lineages.get("pi-7", "digits")
    assert lineage is not None
    rows = centre.store.versions.of(lineage.id)
    assert len({v.root for v in rows}) == 100 and [v.root for v in rows] == [device.made[v.version].root for v in rows]
    checked = list(materialise.check_lineage(centre.store, lineage, materialise.LoadedBases(centre.store)))  # what `edgecloud verify` does
    assert len(checked) == 100 and all(one.error is None for one in checked)
    assert time.process_time() - started < 120


def test_recipes_and_other_updates_stand_in_any_order(centre: Centre, device: ScriptedDevice) -> None:
    made = [
        device.learn(range(12)), device.train(), device.learn(range(5, 20)), device.snapshot(), device.learn(range(8, 30), optimizer=3),
        device.train(), device.snapshot(), device.train(), device.learn([1, 1, 4]),
    ]  # fmt: skip
    centre.deliver(device, *made)
    assert all(one.ok for one in centre.rebuild())
    with edgecloud.open(centre.store.database.path) as fleet:
        for v in fleet.device("pi-7").versions():
            assert v.state().root == device.made[v.number].root
        kinds = [v.kind for v in fleet.device("pi-7").versions()]
        assert kinds == ["recipe", "delta", "recipe", "snapshot", "recipe", "delta", "snapshot", "delta", "recipe"]
        assert fleet.find("pi-7@1").diff(fleet.find("pi-7@9")).changed > 0


@pytest.mark.parametrize("lie", [{"root": bytes(32)}, {"fingerprint": (1, 2)}])
def test_a_recipe_that_does_not_come_to_its_version_is_refused_and_says_where_to_look(
    centre: Centre, device: ScriptedDevice, lie: dict[str, object]
) -> None:
    centre.deliver(device, device.learn(range(9)))
    centre.rebuild()
    centre.said()
    good = device.head
    honest, seal = device.seal, device.seal
    device.seal = lambda *args, **said: seal(*args, **{**said, **lie})  # type: ignore[method-assign]
    bad = device.learn(range(4, 9))
    device.seal = honest  # type: ignore[method-assign]
    after = device.train()
    centre.deliver(device, bad, after)
    judged = centre.rebuild()
    assert [one.ok for one in judged] == [False, False]
    for said in ("recipe, replayed", "edgeagent doctor", "edgecloud replay pi-7/digits@2"):
        assert said in judged[0].reason
    heard = [r for r in centre.said() if isinstance(r, Receipt) and r.level is Level.REFUSED]
    assert heard and all(r.good == good for r in heard)
    snapshot = None
    for receipt in heard:
        snapshot = device.hear(receipt) or snapshot
    assert snapshot is not None
    centre.deliver(device, snapshot)
    assert all(one.ok for one in centre.rebuild())
    assert centre.head(device) == snapshot.version


def test_a_recipe_with_too_long_a_training_is_refused_before_it_is_replayed(centre: Centre, device: ScriptedDevice) -> None:
    long = device.learn(range(9))
    found = parse(long.data)
    recipe = found.recipe().with_settings(steps=2**32 - 1)
    data = seal(found.header, (), device.base.manifest.schema, device.key, FLEET_ID, recipe=recipe.encode()).data
    started = time.process_time()
    centre.take((device.topic("update"), data))
    judged = centre.rebuild()
    assert [one.ok for one in judged] == [False] and "training" in judged[0].reason and "pi-7/digits@1" in judged[0].reason
    assert time.process_time() - started < 5



@pytest.mark.slow("replays long trainings")
def test_long_trainings_of_one_device_keep_no_other_waiting(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    long = [device.learn(range(n, n + 30), steps=20_000, batch=32) for n in range(4)]
    centre.deliver(device, *long)
    centre.deliver(other, *(other.train() for _ in range(3)))
    centre.rebuilder = Rebuilder(centre.store, bounds=centre.bounds, seconds=0.001)  # all of these trainings are long
    order = []
    while judged := centre.rebuilder.run(centre.now):
        assert all(one.ok for one in judged)
        order += [one.name for one in judged]
    assert [name for name in order if name.startswith("pi-7")] == [f"pi-7/digits@{n}" for n in range(1, 5)]
    assert order.index("pi-8/digits@1") < order.index("pi-7/digits@2")


def test_an_update_that_finds_a_fault_stops_its_own_device_alone(
    centre: Centre, device: ScriptedDevice, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    centre.deliver(device, device.learn(range(9)), device.train())
    centre.deliver(other, other.train())
    with monkeypatch.context() as m:
        m.setattr("modelwire.lattice.replay.train_head", lambda *_: 1 // 0)
        assert [(one.name, one.ok) for one in centre.rebuild()] == [("pi-8/digits@1", True)]
        assert centre.statuses(device) == {1: "stored", 2: "stored"}
    centre.rebuilder = Rebuilder(centre.store, bounds=centre.bounds)  # after a start, and with a release that has no such fault
    assert len(centre.rebuild()) == 2
    assert centre.statuses(device) == {1: "verified", 2: "verified"}
