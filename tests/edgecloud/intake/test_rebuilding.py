"""The rebuild's decisions: what it keeps, whenever it is stopped, whom it refuses, and whose fault it is not."""

from __future__ import annotations

import time

import pytest

from edgecloud.intake.rebuilding import Rebuilder
from edgecloud.registry import SqliteStore
from edgecloud.versions import materialise
from modelwire.wire.records import Level
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.device import Base, ScriptedDevice


@pytest.mark.slow("rebuilds for as long as a turn lasts")
def test_a_rebuild_commits_what_it_has_proven_before_it_has_worked_for_long(
    centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre.deliver(device, *(device.train() for _ in range(20)))
    build = Rebuilder._build
    monkeypatch.setattr(Rebuilder, "_build", lambda self, *a: (time.sleep(0.05), build(self, *a))[1])
    rebuilder = Rebuilder(centre.store, seconds=0.2)
    judged = rebuilder.run(1)
    assert 1 <= len(judged) <= 5
    assert sum(s == "verified" for s in centre.statuses(device).values()) == len(judged)
    while judged := rebuilder.run(1):
        pass
    assert set(centre.statuses(device).values()) == {"verified"}


def test_a_rebuild_that_is_told_to_stop_keeps_what_it_has_proven(centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, *(device.train() for _ in range(20)))
    assert len(Rebuilder(centre.store).run(1, stopping=lambda: True)) == 1


def test_a_rebuild_works_without_any_state_in_memory(store: SqliteStore, base: Base) -> None:
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    rebuilder = Rebuilder(store, kept_bytes=0)
    for _ in range(3):
        centre.deliver(device, device.train())
        centre.deliver(other, other.train())
        assert [j.ok for j in rebuilder.run(5)] == [True, True]
    assert centre.statuses(device) == centre.statuses(other) == {1: "verified", 2: "verified", 3: "verified"}
    assert len(rebuilder._kept) == 1


def test_a_damaged_registry_is_not_the_devices_fault_and_others_go_on(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    centre.deliver(device, device.train(), device.train())
    centre.deliver(other, other.train())
    lineage = centre.store.lineages.get("pi-7", "digits")
    damage(centre.store, "DELETE FROM blob WHERE sha256 = ?", centre.store.versions.numbered(lineage.id, 1).blob)
    centre.said()
    centre.rebuild()
    assert centre.statuses(device) == {1: "stored", 2: "stored"}
    assert centre.statuses(other) == {1: "verified"}
    assert centre.receipts() == [(1, Level.VERIFIED)]


def test_a_snapshot_takes_up_what_was_set_aside_and_one_that_fails_does_not(centre: Centre, device: ScriptedDevice) -> None:
    rebuilder = Rebuilder(centre.store)

    def judged() -> dict[int, str]:
        while rebuilder.run(1):
            pass
        return centre.statuses(device)

    def lose(version: int) -> None:
        lineage = centre.store.lineages.get("pi-7", "digits")
        damage(centre.store, "DELETE FROM blob WHERE sha256 = ?", centre.store.versions.numbered(lineage.id, version).blob)

    centre.deliver(device, device.train(), device.train())
    lose(1)
    assert judged() == {1: "stored", 2: "stored"}
    centre.deliver(device, device.snapshot())
    lose(3)
    assert judged() == {1: "stored", 2: "stored", 3: "stored"}
    centre.deliver(device, device.train())
    assert judged()[4] == "stored", "it can't be had without the snapshot that is lost"
    centre.deliver(device, device.snapshot(), device.train())
    assert judged() == {1: "stored", 2: "stored", 3: "stored", 4: "stored", 5: "verified", 6: "verified"}


def test_a_version_stored_while_its_parent_is_being_refused_is_refused_too(
    centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie, child = device.train(root=bytes(32)), device.train()
    centre.deliver(device, lie)
    step = materialise.step

    def slow(*args: object, **facts: object) -> None:
        centre.deliver(device, child)  # the ingester goes on while the rebuild computes
        step(*args, **facts)

    monkeypatch.setattr(materialise, "step", slow)
    centre.rebuild()
    assert centre.statuses(device) == {1: "refused", 2: "refused"}
    assert centre.head(device) == 0
