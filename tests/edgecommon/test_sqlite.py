"""The database layer of both wings: a transaction is whole or nothing, and what is wrong with a file gets its owner's name."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edgecommon import sqlite
from edgecommon.sqlite import Database, Fault
from modelwire.errors import DiskUnwritable, StateBusy


class Named(Exception):
    """An owner's error: which fault of which file it was."""


def named(fault: Fault, path: Path, error: Exception) -> Exception | None:
    return None if fault is Fault.REFUSED else Named(fault, path)


def made(path: Path, **how: bool) -> Database:
    db = Database(path, named, mode="rwc", **how)
    db.run("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL)")
    return db


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return made(tmp_path / "x.db")


def test_a_transaction_is_whole_or_nothing_and_blocks_inside_join_it(db: Database) -> None:
    with pytest.raises(ZeroDivisionError), db.transaction():
        db.insert("t", b="one")
        with db.transaction():
            db.insert("t", b="two")
        _ = 1 // 0
    assert db.all("SELECT * FROM t") == []
    with db.transaction():
        first = db.insert("t", b="one")
        with db.transaction():
            db.insert("t", b="two")
    assert [r["b"] for r in db.all("SELECT b FROM t ORDER BY a")] == ["one", "two"] and first == 1
    with pytest.raises(sqlite3.IntegrityError), db.transaction():
        db.insert("t", b=None)


def test_a_second_writer_waits_and_then_says_that_the_file_is_busy(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY", 0.1)
    other = Database(db.path, named)
    with db.transaction(), pytest.raises(StateBusy), other.transaction():
        pass
    with other.transaction():
        other.insert("t", b="now")


def test_what_is_read_together_shows_one_state_while_others_write(db: Database) -> None:
    db.insert("t", b="one")
    reader = Database(db.path, named, mode="ro")
    with reader.reading():
        seen = reader.all("SELECT b FROM t")
        db.insert("t", b="two")
        assert reader.all("SELECT b FROM t") == seen
        with reader.reading():
            assert len(reader.all("SELECT b FROM t")) == 1
    assert len(reader.all("SELECT b FROM t")) == 2
    with pytest.raises(ZeroDivisionError), reader.reading():
        _ = 1 // 0
    assert not reader.connection.in_transaction
    with db.transaction(), db.reading():
        db.insert("t", b="three")
    assert len(reader.all("SELECT b FROM t")) == 3


def test_with_savepoints_a_block_inside_is_taken_back_alone(tmp_path: Path) -> None:
    db = made(tmp_path / "x.db", savepoints=True)
    with db.transaction():
        db.insert("t", b="one")
        with pytest.raises(ZeroDivisionError), db.transaction():
            db.insert("t", b="two")
            with db.transaction():
                db.insert("t", b="three")
            _ = 1 // 0
        with db.transaction():
            db.insert("t", b="four")
    assert [r["b"] for r in db.all("SELECT b FROM t ORDER BY a")] == ["one", "four"]


def test_one_row_is_wanted_or_may_be_missing(db: Database) -> None:
    assert db.maybe("SELECT * FROM t") is None
    with pytest.raises(KeyError):
        db.one("SELECT * FROM t")
    db.insert("t", a=7, b="seven")
    assert db.one("SELECT b FROM t")["b"] == "seven" and db.number("SELECT a FROM t") == 7


@pytest.mark.parametrize(
    ("error", "room", "fault"),
    [
        (sqlite3.OperationalError("disk I/O error"), 1 << 40, Fault.DAMAGED),
        (sqlite3.OperationalError("attempt to write a readonly database"), 1 << 40, Fault.DENIED),
        (sqlite3.OperationalError("unable to open database file"), 1 << 40, Fault.DENIED),
        (sqlite3.OperationalError("no such table: u"), 1 << 40, Fault.FAILED),
        (sqlite3.DatabaseError("file is not a database"), 1 << 40, Fault.DAMAGED),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), 1 << 40, Fault.MISUSED),
    ],
    ids=str,
)
def test_each_fault_gets_its_owners_name(
    db: Database, monkeypatch: pytest.MonkeyPatch, error: sqlite3.Error, room: int, fault: Fault
) -> None:
    monkeypatch.setattr(sqlite, "_free", lambda path: room)
    with pytest.raises(Named) as e, db.named():
        raise error
    assert e.value.args == (fault, db.path)


@pytest.mark.parametrize(
    ("said", "room", "reason"),
    [
        ("database or disk is full", 1 << 40, "No space left on device"),
        ("disk I/O error", 4096, "No space left on device"),
    ],
)
def test_a_disk_that_takes_nothing_more_is_said_for_every_owner(
    db: Database, monkeypatch: pytest.MonkeyPatch, said: str, room: int, reason: str
) -> None:
    monkeypatch.setattr(sqlite, "_free", lambda path: room)
    with pytest.raises(DiskUnwritable) as e, db.named():
        raise sqlite3.OperationalError(said)
    assert (e.value.facts["path"], e.value.facts["reason"], e.value.code) == (db.path, reason, 83)


@pytest.mark.parametrize("mode", ["ro", "rw", "rwc"])
def test_what_is_no_database_is_said_and_a_folder_is_not_called_damaged(tmp_path: Path, mode: str) -> None:
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    with pytest.raises(Named) as e:
        Database(tmp_path / "bad.db", named, mode=mode).number("SELECT count(*) FROM sqlite_schema")
    assert e.value.args[0] is Fault.DAMAGED
    with pytest.raises(Named) as e:
        Database(tmp_path, named, mode=mode).number("SELECT count(*) FROM sqlite_schema")
    assert e.value.args[0] is Fault.DENIED
