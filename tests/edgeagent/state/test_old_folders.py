"""A state folder of a release before wire 1 was final is refused by name, and nothing of it is touched."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edgeagent import cli
from edgeagent.state import agent_tables
from edgeagent.state.folder import open_folder
from modelwire.errors import OldWire, StateDamaged
from tests.edgeagent.boards import make


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
    of_release(file, 4)
    database = sqlite3.connect(file, isolation_level=None)
    for table in ("resume", "taking"):
        database.execute(f"DROP TABLE {table}")
    database.close()
    for alone in (False, True, False):
        with open_folder(loaded, alone=alone) as opened:
            assert opened.lineages["tiny"].wish() is None and opened.lineages["tiny"].takings.current() is None
            assert opened.database.number("PRAGMA user_version") == agent_tables.RELEASE
    made = sorted(r[0] for r in sqlite3.connect(file).execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
    fresh = make(tmp_path / "e").state / agent_tables.FILE
    assert made == sorted(r[0] for r in sqlite3.connect(fresh).execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))


def test_commands_end_with_the_code_of_an_old_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_release(make(tmp_path / "d").state / agent_tables.FILE, 3)
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == OldWire.code
    assert "edgeagent init" in capsys.readouterr().err
