"""Counters of the versions: exact at every commit, found when they are not, mended by a count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecloud.audit import tampering
from edgecloud.registry import SqliteStore, open_registry
from edgecloud.registry.sqlite.tallies import wrong_tallies
from tests.edgecloud.bulk import DIGITS, Mix, grow, make
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.device import Base, ScriptedDevice
from tests.edgecloud.registry.test_views import OF_COUNTERS


def counted(store: SqliteStore) -> dict[str, tuple[int, ...]]:
    return {one.kind: (one.versions, one.verified, one.refused, one.size) for one in store.tallies.by_kind()}


def test_counters_follow_what_comes_and_what_is_judged(centre: Centre, device: ScriptedDevice) -> None:
    first, second = device.train(), device.snapshot()
    centre.deliver(device, first, second)
    sizes = len(first.data), len(second.data)
    assert counted(centre.store) == {"delta": (1, 0, 0, sizes[0]), "snapshot": (1, 0, 0, sizes[1])} and centre.store.tallies.waiting() == 2
    centre.rebuild()
    assert counted(centre.store) == {"delta": (1, 1, 0, sizes[0]), "snapshot": (1, 1, 0, sizes[1])} and centre.store.tallies.waiting() == 0
    centre.deliver(device, lie := device.train(fingerprint=(1, 2)))
    centre.rebuild()
    assert counted(centre.store)["delta"] == (2, 1, 1, sizes[0] + len(lie.data))
    assert wrong_tallies(centre.store.database) == [] and centre.store.tallies.recount() == 0


def test_a_taken_back_version_is_taken_back_from_the_counters(centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, device.train())
    before = counted(centre.store)
    with pytest.raises(RuntimeError), centre.store.transaction():
        centre.ingest.catch_up()
        centre.ingest.take(*device.update(device.train()), centre.now)
        raise RuntimeError
    assert counted(centre.store) == before and wrong_tallies(centre.store.database) == []


@pytest.mark.parametrize("change", [
    "UPDATE tally SET versions = versions + 1", "UPDATE tally SET bytes = bytes - 1", "UPDATE tally SET last_verified = 3",
    "DELETE FROM tally WHERE kind = 'delta'", "UPDATE tally SET kind = 'recipe' WHERE kind = 'delta'", "UPDATE tally SET thinned = 1",
])  # fmt: skip
def test_wrong_counters_are_found_and_a_count_mends_them(grown: Centre, change: str) -> None:
    store = grown.store
    right = counted(store)
    damage(store, change)
    assert wrong_tallies(store.database) == ["the counters of pi-7/digits are not what its versions come to"]
    assert any("counters of pi-7/digits" in one for one in store.problems())
    assert store.tallies.recount() == 1 and counted(store) == right and store.problems() == []


def test_a_registry_from_before_the_counters_is_counted_once(grown: Centre) -> None:
    store, right = grown.store, counted(grown.store)
    path = store.database.path
    for what in OF_COUNTERS:
        store.database.run(f"DROP {what}")
    store.database.run("CREATE INDEX version_totals ON version (lineage, epoch, status, version, size, received_at)")
    store.database.run("DELETE FROM _sqlite_migrations WHERE name = 'm015_tallies'")
    store.database.run("PRAGMA user_version = 14")
    store.close()
    opened = open_registry(path)
    assert counted(opened) == right and opened.problems() == []
    opened.close()


def test_a_registry_made_in_bulk_is_whole_and_signed_and_counted(tmp_path: Path) -> None:
    store = make(tmp_path / "fleet.db", 3, 200, seed=5, mix=Mix(refused=0.05, stored=2))
    assert store.problems() == [] and tampering.look(store) == []
    assert sum(one.versions for one in store.tallies.by_kind()) == 600 and store.tallies.waiting() == 6
    assert store.tallies.kept().bases == 1 and store.tallies.senders() == 3
    lineage = store.lineages.get("pi-00001", "digits")
    assert lineage is not None and store.versions.count(lineage.id) == 200 and lineage.last_version == 200
    standing = store.lineages.standings("pi-00001")[0]
    verified = [v.version for v in store.versions.of(lineage.id) if v.status.value == "verified"]
    assert (standing.versions, standing.verified) == (200, max(verified)) and standing.head >= standing.verified
    grow(store, store.lineages.by_id(lineage.id), Base.of(DIGITS), 10, np.random.default_rng(1), Mix())
    assert store.versions.count(lineage.id) == 210 and wrong_tallies(store.database) == []
    store.close()


def test_all_versions_of_a_lineage_come_one_after_the_other(grown: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecloud.registry.sqlite.models.AT_ONCE", 4)
    lineage = grown.store.lineages.all()[0].id
    assert list(grown.store.versions.each(lineage)) == grown.store.versions.of(lineage) and list(grown.store.versions.each(99)) == []


def test_outlines_say_of_every_model_what_a_list_is_ordered_by(grown: Centre) -> None:
    (one,) = grown.store.tallies.outlines("head")
    assert (one.device, one.model, one.versions, one.rank, one.online) == ("pi-7", "digits", 13, 13, None)
    (one,) = grown.store.tallies.outlines("accuracy")
    assert one.rank == -1 and one.admitted_at is not None


def test_a_figure_that_was_measured_is_kept_until_the_next(store: SqliteStore) -> None:
    assert store.tallies.measured("x") is None
    store.tallies.set_measured("x", "{}", 5)
    store.tallies.set_measured("x", "[]", 6)
    assert store.tallies.measured("x") == (6, "[]")
