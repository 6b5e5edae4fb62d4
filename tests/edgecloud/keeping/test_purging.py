"""The rows of forgotten samples go, the versions that were learned from them stay bit for bit, and a kill anywhere loses neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.keeping import deciding, purging
from edgecloud.registry import LineageRow, SqliteStore
from modelwire.errors import BadArgument
from modelwire.output_head.forgotten import KEY, Forgotten
from tests.edgecloud.centre import Centre, sign
from tests.edgecloud.device import ScriptedDevice
from tests.keys import COMMAND

from .thinned import Killed, copied, history, keep, number, recoverable, thinner, wrong


def learned(centre: Centre, device: ScriptedDevice) -> LineageRow:
    """Five versions: of @1, @3 and @4, which are recipes, the first two hold a sample that @5 has forgotten; @4 names no samples."""
    centre.deliver(device, device.learn(range(100, 110)), device.train(), device.learn(range(105, 115)))
    centre.deliver(device, device.learn(range(120, 130), named=False), device.train(extension={KEY: Forgotten((107,)).encode()}))
    centre.rebuild()
    return centre.store.lineages.of(device.name)[0]


def purged(store: SqliteStore, lineage: LineageRow, *, every: bool = False) -> list[int]:
    found = purging.find(store, lineage, every=every)
    by = deciding.decide_purge(store, COMMAND, lineage.device, number(store), 1).number
    purging.purge(store, lineage, by, found.recipes)
    return [v.version for v in found.recipes]


def test_only_recipes_with_forgotten_samples_go_and_those_without_names_are_told(centre: Centre, device: ScriptedDevice) -> None:
    store, lineage = centre.store, learned(centre, device)
    before, found = recoverable(store), purging.find(store, lineage)
    assert ([v.version for v in found.recipes], found.nameless, found.waiting) == ([1, 3], (4,), ())
    assert purged(store, lineage) == [1, 3]
    assert recoverable(store) == before and wrong(store) == []
    sign(store)
    assert wrong(store) == []
    raw = store.database.path.read_bytes()
    for n in (1, 3):
        assert device.made[n].data[-300:-160] not in raw
        with pytest.raises(BadArgument, match="was dropped"):
            from edgecloud.versions import naming, replaying

            replaying.recipe_of(store, naming.find(store, naming.parse(f"pi-7@{n}")))
    assert purged(store, lineage, every=True) == [4] and recoverable(store) == before
    keep(store, "last 2")
    history(centre, device, "dr")
    thinner(store).run()
    assert len(recoverable(store)) == 2 and wrong(store) == []


def test_a_kill_at_every_step_leaves_each_version_as_it_was(tmp_path: Path, centre: Centre, device: ScriptedDevice) -> None:
    lineage, before = learned(centre, device), recoverable(centre.store)
    by = deciding.decide_purge(centre.store, COMMAND, lineage.device, number(centre.store), 1).number
    recipes, steps = purging.find(centre.store, lineage, every=True).recipes, list[str]()
    dry = copied(centre.store, tmp_path / "dry")
    purging.purge(dry, lineage, by, recipes, hook=steps.append)
    dry.close()
    for step in range(len(steps)):
        store, left = copied(centre.store, tmp_path / f"killed-{step}"), step

        def fault(_: str) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        with pytest.raises(Killed):
            purging.purge(store, lineage, by, recipes, hook=fault)
        again = copied(store, tmp_path / f"after-{step}")
        store.close()
        assert recoverable(again) == before and wrong(again) == []
        purging.purge(again, lineage, by, purging.find(again, lineage, every=True).recipes)
        assert recoverable(again) == before and wrong(again) == [] and purging.find(again, lineage, every=True).recipes == ()
        assert again.thinnings.discards(1) == []
        again.close()


def test_a_word_about_another_device_purges_nothing(centre: Centre, device: ScriptedDevice) -> None:
    lineage = learned(centre, device)
    by = deciding.decide_purge(centre.store, COMMAND, "pi-8", number(centre.store), 1).number
    recipes = purging.find(centre.store, lineage, every=True).recipes
    purging.purge(centre.store, lineage, by, recipes)
    assert any("about another device" in one for one in wrong(centre.store))
