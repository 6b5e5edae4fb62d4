"""A state folder of a release before wire 1 was final is refused by name, untouched; one of the release before is brought to this one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edgeagent import cli
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.spending import flash
from edgeagent.spending.month import months
from edgeagent.state import agent_tables
from edgeagent.state.folder import open_folder
from edgeagent.troubles.noted import all_noted
from edgecommon.sqlite import Database
from modelwire.errors import OldWire, StateDamaged
from tests.edgeagent.boards import centre, fill, make, rig
from tests.edgeagent.by_hand import train
from tests.edgeagent.centre import FakeClock

SINCE_8 = (  # what release 8 brought
    "DROP TABLE deployment", "DROP TABLE desired", "ALTER TABLE model DROP COLUMN place", "ALTER TABLE model DROP COLUMN first_commit",
    "ALTER TABLE model DROP COLUMN based",
)  # fmt: skip
SINCE_7 = ("DROP TABLE month", "DROP TABLE written", "DROP TABLE trouble", *SINCE_8)  # what release 7 brought, and what came since


def of_release(path: Path, release: int) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"PRAGMA user_version = {release}")
    database.close()


@pytest.mark.parametrize("release", [0, 1, 2, 3])
@pytest.mark.parametrize("alone", [True, False])
def test_a_folder_of_an_earlier_release_is_refused_with_what_to_do(tmp_path: Path, release: int, alone: bool) -> None:
    loaded = make(tmp_path / "d")
    file = loaded.state / agent_tables.FILE
    of_release(file, release)
    (tmp_path / "d" / "device.key").write_text("00" * 32)  # as it was written then: the folder is what is said first
    before = file.read_bytes()
    with pytest.raises(OldWire, match="made before wire 1 was final") as e, open_folder(loaded, alone=alone):
        pass
    assert "edgeagent init with --key" in e.value.next_step and "edge-device-key:" in e.value.next_step
    assert file.read_bytes() == before


def test_a_folder_of_a_later_release_is_said_to_be_damaged_as_ever(tmp_path: Path) -> None:
    loaded = make(tmp_path / "d")
    of_release(loaded.state / agent_tables.FILE, agent_tables.RELEASE + 1)
    with pytest.raises(StateDamaged, match="are of release"), open_folder(loaded, alone=True):
        pass


def test_a_folder_of_the_release_before_gets_the_tables_that_came_since(tmp_path: Path) -> None:
    loaded = make(tmp_path / "d")
    file = loaded.state / agent_tables.FILE
    back_to_4(file)
    assert not {"resume", "taking", "figure", "plan"} & set(objects(file))
    for alone in (False, True, False):
        with open_folder(loaded, alone=alone) as opened:
            assert opened.lineages["tiny"].wish() is None and opened.lineages["tiny"].takings.current() is None
            assert opened.database.number("PRAGMA user_version") == agent_tables.RELEASE
    assert objects(file) == objects(make(tmp_path / "e").state / agent_tables.FILE)


def test_a_folder_of_release_5_gets_the_tables_of_the_planner(tmp_path: Path) -> None:
    loaded = make(tmp_path / "d")
    file = loaded.state / agent_tables.FILE
    fresh, database = objects(file), sqlite3.connect(file, isolation_level=None)
    for statement in ("DROP TABLE figure", "DROP TABLE plan", *SINCE_7, "PRAGMA user_version = 5"):
        database.execute(statement)
    database.close()
    with open_folder(loaded, alone=True) as opened:
        assert opened.lineages["tiny"].plans.last() is None and opened.lineages["tiny"].figures.all() == {}
        assert opened.database.number("PRAGMA user_version") == agent_tables.RELEASE
    assert objects(file) == fresh


def test_a_folder_of_release_6_gets_the_tables_of_what_is_spent_and_what_befell_it(tmp_path: Path) -> None:
    loaded = make(tmp_path / "d")
    file = loaded.state / agent_tables.FILE
    fresh, database = objects(file), sqlite3.connect(file, isolation_level=None)
    for statement in (*SINCE_7, "PRAGMA user_version = 6"):
        database.execute(statement)
    database.close()
    assert objects(file) != fresh
    with open_folder(loaded, alone=True) as opened:
        assert months(opened.database) == [] and all_noted(opened.database) == [] and flash.written(opened.database).bytes == 0
        assert opened.database.number("PRAGMA user_version") == agent_tables.RELEASE
    assert objects(file) == fresh


def test_a_folder_of_release_7_gets_the_place_of_its_base_and_what_lies_beside(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        head, base = r.lineage.head(), r.lineage.base_commit
    file = tmp_path / "d" / "state" / agent_tables.FILE
    fresh, database = objects(file), sqlite3.connect(file, isolation_level=None)
    for statement in ("PRAGMA foreign_keys = OFF", *SINCE_8, "PRAGMA user_version = 7"):
        database.execute(statement)
    database.close()
    assert objects(file) != fresh
    loaded = reading.load(tmp_path / "d" / reading.FILE, environment={}, flags={})
    with open_folder(loaded, alone=True) as opened:
        lineage = opened.lineages["tiny"]
        assert lineage.head() == head and lineage.beside.all() == [] and lineage.store.place == ""
        assert opened.database.one("SELECT first_commit, base_commit, based FROM model")[:] == (base, base, 0)
        assert opened.database.number("PRAGMA user_version") == agent_tables.RELEASE
        assert opened.database.all("PRAGMA foreign_key_check") == []
    assert objects(file) == fresh


def test_commands_end_with_the_code_of_an_old_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_release(make(tmp_path / "d").state / agent_tables.FILE, 3)
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == OldWire.code
    assert "edgeagent init" in capsys.readouterr().err


def back_to_4(path: Path) -> None:
    """Make of a folder's database one as the release before made it."""
    database = sqlite3.connect(path, isolation_level=None)
    table = agent_tables.TABLES[agent_tables.TABLES.index("CREATE TABLE version") :]
    table = table[: table.index("\n);") + 2].replace(", 'lost'", "").replace("TABLE version", "TABLE old", 1)
    lines = [line for line in table.splitlines() if not line.strip().startswith(("held ", "sure "))]
    for statement in (
        "PRAGMA foreign_keys = OFF", "\n".join(lines),
        f"INSERT INTO old SELECT {', '.join(columns(database)[:-2])} FROM version",
        "DROP TABLE version", "ALTER TABLE old RENAME TO version", "CREATE INDEX version_by_state ON version (model, state, version)",
        "CREATE INDEX version_by_parent ON version (model, parent)", "DELETE FROM meta WHERE key='fork'", "DROP TABLE resume",
        "DROP TABLE taking", "DROP TABLE figure", "DROP TABLE plan", *SINCE_7, "PRAGMA user_version = 4",
    ):  # fmt: skip
        database.execute(statement)
    database.close()


def columns(database: sqlite3.Connection) -> list[str]:
    return [row[1] for row in database.execute("PRAGMA table_info(version)")]


def objects(path: Path) -> dict[str, str]:
    database = sqlite3.connect(path)
    rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    database.close()
    return {name: " ".join(sql.replace('"version"', "version").replace('"model"', "model").split()) for name, sql in rows}


@pytest.mark.parametrize("alone", [True, False])
def test_a_folder_of_the_release_before_is_brought_here_with_its_versions_and_what_waits(
    tmp_path: Path, clock: FakeClock, alone: bool
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        train(r, 2)
    path = tmp_path / "d" / "state" / agent_tables.FILE
    fresh = objects(path)
    database = sqlite3.connect(path, isolation_level=None)
    assert columns(database)[-2:] == ["held", "sure"]
    database.close()
    back_to_4(path)
    loaded = reading.load(tmp_path / "d" / reading.FILE, environment={}, flags={})
    with open_folder(loaded, alone=alone) as device:
        states = [(row["version"], row["state"], row["sure"]) for row in device.lineages["tiny"].versions()]
        assert states == [(4, "queued", 0), (3, "queued", 0), (2, "verified", 0), (1, "verified", 0)]
        assert [w.version for w in device.lineages["tiny"].outbox.waiting()] == [3, 4] and device.trust.fork is None
    assert objects(path) == fresh
    with rig(tmp_path / "d", c) as r:
        r.serve(60)
        assert set(r.states().values()) == {"verified"} and len(r.states()) == 4


def test_a_kill_while_a_folder_is_brought_here_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = make(tmp_path / "d")
    path = loaded.state / agent_tables.FILE
    back_to_4(path)
    before = objects(path)
    plain = Database.insert

    def killed(self: Database, table: str, **values: object) -> int:
        if values.get("key") == "fork":
            raise KeyboardInterrupt
        return plain(self, table, **values)

    monkeypatch.setattr(Database, "insert", killed)
    with pytest.raises(KeyboardInterrupt), open_folder(loaded, alone=True):
        pass
    assert objects(path) == before
    monkeypatch.setattr(Database, "insert", plain)
    with open_folder(loaded, alone=True) as device:
        assert device.trust.fork is None
