"""A kill at any write of the centre loses nothing, and nothing comes out otherwise for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgecloud.keeping import erasing
from edgecloud.keeping.compacting import Compactor
from edgecloud.keeping.thinning import Thinner
from edgecloud.registry import SqliteStore, open_registry
from tests.simulator.every_step import end_everywhere
from tests.simulator.small_fleet import NOW, SmallFleet, judge_all, small_fleet, take_all
from tests.simulator.works import compact, erase, purge, set_policy


@contextmanager
def opened(fleet: SmallFleet) -> Iterator[SqliteStore]:
    store = open_registry(fleet.path, synchronous="OFF")
    try:
        yield store
    finally:
        store.close()


@pytest.mark.slow("is killed at each of its writes", seconds=8)
def test_taking_messages_in_survives_a_kill_at_every_write(tmp_path: Path) -> None:
    fleet = small_fleet(tmp_path, devices=2, versions=8)
    survived = end_everywhere(fleet.path, tmp_path / "runs", take_all(fleet.said), fleet)
    assert survived.failures == []
    assert survived.steps > 80 and {"COMMIT", "INSERT INTO blob", "os.write", "os.fsync"} <= survived.kinds.keys()


@pytest.mark.slow("is killed at each of its writes", seconds=8)
def test_the_rebuild_survives_a_kill_at_every_write(tmp_path: Path) -> None:
    fleet = small_fleet(tmp_path, devices=1, versions=8, unjudged=8)
    survived = end_everywhere(fleet.path, tmp_path / "runs", judge_all, fleet)
    assert survived.failures == []
    assert survived.steps >= 16


@pytest.mark.slow("is killed at each of its writes", seconds=8)
def test_thinning_survives_a_kill_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecloud.keeping.thinning.MOST", 4)  # so that a history goes in several steps
    fleet = small_fleet(tmp_path, devices=1, versions=9)
    with opened(fleet) as store:
        set_policy(store, "last 2", NOW)
    survived = end_everywhere(fleet.path, tmp_path / "runs", lambda s: Thinner(s, clock=lambda: NOW).run(), fleet, again=4)
    assert survived.failures == []
    assert survived.steps > 20 and {"COMMIT", "INSERT INTO squash", "DELETE FROM blob", "os.unlink"} <= survived.kinds.keys()


@pytest.mark.slow("is killed at each of its writes", seconds=8)
def test_compaction_survives_a_kill_at_every_write(tmp_path: Path) -> None:
    fleet = small_fleet(tmp_path, devices=1, versions=30)
    survived = end_everywhere(fleet.path, tmp_path / "runs", compacted, fleet, again=8)
    assert survived.failures == []
    assert {"INSERT INTO state", "COMMIT"} <= survived.kinds.keys()


@pytest.mark.slow("is killed at each of its writes", seconds=8)
def test_purging_the_rows_of_recipes_survives_a_kill_at_every_write(tmp_path: Path) -> None:
    fleet = small_fleet(tmp_path, devices=1, versions=8)
    survived = end_everywhere(fleet.path, tmp_path / "runs", lambda store: purge(store, "pi-0", NOW), fleet, again=8)
    assert survived.failures == []
    assert {"INSERT INTO squash", "DELETE FROM blob"} <= survived.kinds.keys()


def compacted(store: SqliteStore) -> None:
    compact(Compactor(store, clock=lambda: NOW, settle=0, behind=1))


@pytest.mark.slow("is killed at each of its writes", seconds=8)
def test_erasure_survives_a_kill_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "ENTRIES", 9)  # so that it goes in several steps
    monkeypatch.setattr(erasing, "ROWS", 5)
    fleet = small_fleet(tmp_path, devices=2, versions=5)
    with opened(fleet) as store:
        set_policy(store, "last 3", NOW)
        Thinner(store, clock=lambda: NOW).run()

    def work(store: SqliteStore) -> None:
        if not store.erasures.all():
            erase(store, "pi-0", NOW)
        erasing.resume(store)

    survived = end_everywhere(fleet.path, tmp_path / "runs", work, fleet)
    assert survived.failures == []
    assert survived.steps > 50 and {"INSERT INTO erasure", 'DELETE FROM "version"', "UPDATE log SET"} <= survived.kinds.keys()


def moved_carelessly(store: SqliteStore) -> None:
    """Drop the bytes of two updates, and then write them anew: what is to replace them comes after they are gone, as in no work it may."""
    database = store.database
    (trigger,) = database.one("SELECT sql FROM sqlite_master WHERE name = 'blob_no_delete'")
    for digest, size, data in database.all("SELECT sha256, size, bytes FROM blob ORDER BY size LIMIT 2"):
        with database.transaction():
            database.run("DROP TRIGGER blob_no_delete")
            database.run("DELETE FROM blob WHERE sha256 = ?", digest)
            database.run(trigger)
        database.run("INSERT INTO blob VALUES (?, ?, ?)", digest, size, data)


def test_a_work_that_drops_what_it_has_not_replaced_yet_is_found_out(tmp_path: Path) -> None:
    fleet = small_fleet(tmp_path, devices=1, versions=4)
    survived = end_everywhere(fleet.path, tmp_path / "runs", moved_carelessly, fleet, cuts=0)
    assert any("versions are exact" in failure for failure in survived.failures)
