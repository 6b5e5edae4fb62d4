"""A state folder of an earlier release is opened with all that it holds, and goes on from there."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edgeagent.service.agent import Goal
from edgeagent.state import agent_tables as schema
from tests.edgeagent.boards import Rig, centre, fill, rig
from tests.edgeagent.centre import FakeClock


def make_older(path: Path, *, without_step: bool) -> None:
    """Take a folder's database back to the tables of release 1."""
    database = sqlite3.connect(path, isolation_level=None)
    if without_step:
        database.execute("ALTER TABLE model DROP COLUMN step")
    database.execute("ALTER TABLE version DROP COLUMN mode")
    for table in ("mode_cost", "waiting"):
        database.execute(f"DROP TABLE {table}")
    database.execute("PRAGMA user_version = 1")
    database.close()


def log_of(r: Rig) -> list[dict[str, object]]:
    """Return the log but for what the earlier release did not note."""
    return [{key: row[key] for key in row.keys() if key != "mode"} for row in r.lineage.versions()]  # noqa: SIM118


@pytest.mark.parametrize("without_step", [True, False])
def test_a_folder_of_the_first_release_goes_on_where_it_was(tmp_path: Path, without_step: bool) -> None:
    there = centre(FakeClock())
    with rig(tmp_path / "d", there) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        before, head = log_of(r), r.lineage.head()
        assert head.version == 2 and head.step is not None
        path = r.device.database.path
    make_older(path, without_step=without_step)
    with rig(tmp_path / "d", there) as r:
        assert r.device.database.one("PRAGMA user_version")[0] == schema.RELEASE
        assert log_of(r) == before
        assert r.lineage.head().step == (None if without_step else head.step)
        r.run(Goal(rounds=4, timeout=60))
        assert r.states() == {1: "verified", 2: "verified", 3: "verified", 4: "verified"} and r.lineage.head().step is not None
    with rig(tmp_path / "d", there) as r:  # and the next time it is one of this release
        assert r.lineage.head().version == 4
