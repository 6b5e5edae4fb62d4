"""A kill at any write of the centre loses nothing, and nothing comes out otherwise for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.registry import SqliteStore
from tests.simulator.every_step import end_everywhere
from tests.simulator.small_fleet import judge_all, small_fleet, take_all


@pytest.mark.slow("is killed at each of its writes", seconds=8)
def test_taking_messages_in_survives_a_kill_at_every_write(tmp_path: Path) -> None:
    fleet = small_fleet(tmp_path, devices=1, versions=8)
    survived = end_everywhere(fleet.path, tmp_path / "runs", take_all(fleet.said), fleet.remembered())
    assert survived.failures == []
    assert survived.steps > 80 and {"COMMIT", "INSERT INTO blob", "os.write", "os.fsync"} <= survived.kinds.keys()


@pytest.mark.slow("is killed at each of its writes", seconds=8)
def test_the_rebuild_survives_a_kill_at_every_write(tmp_path: Path) -> None:
    fleet = small_fleet(tmp_path, devices=1, versions=8, unjudged=8)
    survived = end_everywhere(fleet.path, tmp_path / "runs", judge_all, fleet.remembered())
    assert survived.failures == []
    assert survived.steps >= 16


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
    survived = end_everywhere(fleet.path, tmp_path / "runs", moved_carelessly, fleet.remembered(), cuts=0)
    assert any("versions are exact" in failure for failure in survived.failures)
