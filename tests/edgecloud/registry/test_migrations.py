"""A registry of an earlier wire is refused by name and left as it is; the way to later schemas is there."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlite_utils import Migrations

from edgecloud.registry import AlarmRow, open_registry
from edgecloud.registry.sqlite import schema
from modelwire.errors import OldWire, UnsupportedWire
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice

ALARM = AlarmRow("pi-7", "digits", "fork", "two folders", 20, times=3)


def make_schema(path: Path, number: int) -> None:
    """Let a registry say that it is of another schema."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {number}")


@pytest.mark.parametrize("number", [0, 1, 4, 6])
def test_a_registry_from_before_wire_1_was_final_is_refused_by_name_and_left_as_it_is(desk: Desk, base: Base, number: int) -> None:
    path = desk.folder / "fleet.db"
    make_registry(path, base).close()
    make_schema(path, number)
    before = path.read_bytes()
    for readonly in (True, False):
        with pytest.raises(OldWire, match="before wire 1 was final"):
            open_registry(path, readonly=readonly)
    for words in (["log", "pi-7"], ["devices"], ["ingest", "--once"], ["backup", "copy.db"], ["bases", "list"]):
        said = desk.error(*words)
        assert said["error"] == "OldWire" and "edgecloud init --db" in str(said["hint"])
    assert path.read_bytes() == before and not (desk.folder / "copy.db").exists()


def test_a_copy_of_such_a_registry_is_not_restored(desk: Desk, base: Base) -> None:
    make_registry(desk.folder / "copy.db", base).close()
    make_schema(desk.folder / "copy.db", 4)
    assert desk.error("restore", "copy.db", "--db", "new.db")["error"] == "OldWire"
    assert not (desk.folder / "new.db").exists()


def test_a_registry_of_a_newer_release_is_refused(tmp_path: Path, base: Base) -> None:
    make_registry(tmp_path / "fleet.db", base).close()
    make_schema(tmp_path / "fleet.db", schema.SCHEMA + 1)
    with pytest.raises(UnsupportedWire, match="registry schema"):
        open_registry(tmp_path / "fleet.db")


def test_the_number_is_above_all_that_were_made_before(tmp_path: Path, base: Base) -> None:
    store = make_registry(tmp_path / "fleet.db", base)
    assert store.database.number("PRAGMA user_version") == schema.SCHEMA >= schema.FIRST > 4
    store.close()


@pytest.mark.parametrize("number", [12, 13, 14, 15, 18, 19, 20, 21])
def test_a_backup_of_each_older_release_is_restored(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    older, apply = tmp_path / "older.db", Migrations.apply
    names = {
        12: "m013_keeping", 13: "m014_thinning", 14: "m015_tallies", 15: "m016_sketches", 18: "m019_merges", 19: "m020_quotas",
        20: "m021_rollouts", 21: "m022_alarms_of_boards",
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Migrations, "apply", lambda self, tables: apply(self, tables, stop_before=names[number]))
        patch.setattr(schema, "SCHEMA", number)
        patch.setattr(schema, "_require_own_objects", lambda database: None)
        store = make_registry(older, base, files_from=100)
        store.losses.raise_alarm(ALARM)
        store.close()
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, capsys)
    desk.ok("restore", "older.db", "--db", "new.db")
    assert desk.json("verify", "--all", "--db", "new.db")["tampered"] == []
    store = open_registry(tmp_path / "new.db", readonly=True)
    assert store.database.number("PRAGMA user_version") == schema.SCHEMA and len(store.bases.all()) == 1
    assert store.losses.alarms() == [replace(ALARM, first_at=ALARM.last_at)]
    store.close()


NEXT = """
import sys, pathlib
from edgecloud.registry import open_registry
from edgecloud.registry.sqlite import schema
given = schema.steps
def steps(migrations):
    given(migrations)
    @migrations(name="m099_next")
    def m099_next(tables):
        tables.execute("ALTER TABLE device ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'")
schema.steps, schema.SCHEMA = steps, schema.SCHEMA + 1
store = open_registry(pathlib.Path(sys.argv[1]))
print(store.database.all("SELECT name, colour FROM device")[0][1], store.database.number("PRAGMA user_version"))
"""


@pytest.mark.slow("starts many processes at once")
def test_many_processes_of_a_later_release_bring_a_registry_there_once_with_all_that_it_holds(tmp_path: Path, base: Base) -> None:
    path = tmp_path / "fleet.db"
    store = make_registry(path, base)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    centre.rebuild()
    store.close()
    command = [sys.executable, "-c", NEXT, str(path)]
    opening = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in opening:
        out, err = process.communicate(timeout=500)
        assert (process.returncode, out.split()) == (0, ["grey", str(schema.SCHEMA + 1)]), err
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT version, status FROM version").fetchall() == [(1, "verified")]
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
