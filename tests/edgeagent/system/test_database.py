"""The agent's databases: a file of another release is refused, and what is wrong with one is said in the operator's errors."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edgeagent.system.database import create_database, open_database
from edgecommon.sqlite import Database
from modelwire.errors import ConfigError, DiskUnwritable, MissingFile, StateDamaged

TABLES = "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL);"


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return create_database(tmp_path / "x.db", TABLES, 3)


def test_a_missing_a_foreign_and_a_damaged_file_are_told_apart(tmp_path: Path, db: Database) -> None:
    with pytest.raises(MissingFile):
        open_database(tmp_path / "no.db", 3)
    with pytest.raises(StateDamaged, match="release 3, this agent reads 4"):
        open_database(db.path, 4)
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    with pytest.raises(StateDamaged, match="not a database"):
        open_database(tmp_path / "bad.db", 3)
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(ConfigError, match="unable to open"):
        open_database(tmp_path / "folder.db", 3)


def test_a_full_disk_takes_the_transaction_back_and_is_named(db: Database) -> None:
    pages = db.one("PRAGMA page_count")[0]
    db.run(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(DiskUnwritable, match="No space left"), db.transaction():
        for _ in range(100):
            db.insert("t", b="x" * 4000)
    assert db.all("SELECT * FROM t") == []
    with db.transaction():
        db.insert("t", b="small")
    db.check()


def test_a_damaged_page_is_found_by_the_check(db: Database) -> None:
    with db.transaction():
        for n in range(200):
            db.insert("t", b=str(n) * 100)
    db.run("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    data = bytearray(db.path.read_bytes())
    for at in range(4096, len(data), 512):
        data[at : at + 64] = b"\xff" * 64
    db.path.write_bytes(data)
    with pytest.raises(StateDamaged):
        open_database(db.path, 3).check()


def test_a_full_disk_is_not_called_a_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = create_database(tmp_path / "x.db", "CREATE TABLE t (a);", 1)
    monkeypatch.setattr("edgecommon.sqlite._free", lambda path: 4096)
    with pytest.raises(DiskUnwritable, match="No space left"), db.named():
        raise sqlite3.OperationalError("disk I/O error")
    monkeypatch.undo()
    with pytest.raises(StateDamaged), db.named():
        raise sqlite3.OperationalError("disk I/O error")
    db.close()
