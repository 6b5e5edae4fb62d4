"""The agent's SQLite files: opened the same way everywhere, changed in one transaction at a time, refused when of another release."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelwire.errors import ConfigError, MissingFile, StateBusy, StateDamaged

Row = sqlite3.Row
BUSY = 30.0  # seconds to wait for another process's transaction
CACHE = 256  # KiB of pages that SQLite keeps for itself; the kernel keeps the file's in its own cache anyway
FULL = 256 * 1024  # bytes; SQLite's own files beside a database need some of them


class Database:
    """One SQLite file in WAL mode. Not for use from two threads."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, schema: str, release: int) -> Database:
        """Return a new file with the tables of `schema`; it must not exist yet."""
        made = cls(path, _connect(path, "rwc"))
        made.run(f"PRAGMA cache_size=-{CACHE}")
        made.run("PRAGMA journal_mode=WAL")
        made.run("PRAGMA synchronous=FULL")
        made._connection.executescript(f"BEGIN; {schema} PRAGMA user_version={release}; COMMIT;")
        return made

    @classmethod
    def open(cls, path: Path, release: int, *, durable: bool = True, migrate: Callable[[Database], None] | None = None) -> Database:
        """Return the file at `path`. durable=False: the last commits may be lost when the power is cut, never more.

        migrate: brings a file of an earlier release to this one. Raises MissingFile, or StateDamaged when it is of another release.
        """
        if not path.exists():
            raise MissingFile(path=path, what="the agent's state")
        opened = cls(path, _connect(path, "rw"))
        found = opened.one("PRAGMA user_version")[0]
        opened.run(f"PRAGMA cache_size=-{CACHE}")
        opened.run(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        if found < release and migrate is not None:
            migrate(opened)
            found = opened.one("PRAGMA user_version")[0]
        if found != release:
            raise StateDamaged(path=path, reason=f"its tables are of release {found}, this agent reads {release}")
        return opened

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything in the block one transaction: all of it is there afterwards, or nothing. A block inside joins it."""
        if self._begun():
            yield
            return
        # IMMEDIATE: a deferred transaction that turns into a writer does not wait for another one, it fails.
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            if self._begun():  # SQLite takes some back by itself: a full disk
                self._execute("ROLLBACK")
            raise

    def run(self, sql: str, *values: Any) -> int:
        """Run a statement; return how many rows it changed."""
        return self._execute(sql, values).rowcount

    def insert(self, table: str, **values: Any) -> int:
        """Insert one row; return its rowid. Table and columns are named in the source, never by anyone else."""
        columns = ", ".join(values)
        marks = ", ".join("?" * len(values))
        at = self._execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values())).lastrowid
        assert at is not None
        return at

    def all(self, sql: str, *values: Any) -> list[Row]:
        with self._naming():  # SQLite looks for the rows as they are fetched
            return self._connection.execute(sql, values).fetchall()

    def one(self, sql: str, *values: Any) -> Row:
        """Return the one row; KeyError when there is none."""
        row = self.maybe(sql, *values)
        if row is None:
            raise KeyError(sql)
        return row

    def maybe(self, sql: str, *values: Any) -> Row | None:
        """Return the first row, or None."""
        with self._naming():
            row: Row | None = self._connection.execute(sql, values).fetchone()
        return row

    def check(self) -> None:
        """Raise StateDamaged when SQLite finds the file broken."""
        found = self.one("PRAGMA quick_check")[0]
        if found != "ok":
            raise StateDamaged(path=self.path, reason=found)

    def close(self) -> None:
        self._connection.close()

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        with self._naming():
            return self._connection.execute(sql, values)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn what is wrong with the file into StateBusy, ConfigError or StateDamaged; a fault of ours stays what it is."""
        try:
            yield
        except sqlite3.OperationalError as e:
            if "locked" in str(e) or "busy" in str(e):
                raise StateBusy(path=self.path) from None
            if "full" in str(e) or "readonly" in str(e) or "unable to open" in str(e):
                raise ConfigError(reason=f"{self.path}: {e}") from None
            if "disk I/O" in str(e):
                if _free(self.path.parent) < FULL:  # not every write of SQLite's says so
                    raise ConfigError(reason=f"{self.path}: the disk is full") from None
                raise StateDamaged(path=self.path, reason=str(e)) from None
            raise
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise
        except sqlite3.DatabaseError as e:
            raise StateDamaged(path=self.path, reason=str(e)) from None

    def _begun(self) -> bool:
        return self._connection.in_transaction


def _free(folder: Path) -> int:
    """Return the bytes that are free in the file system of `folder`."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys=ON")
    except sqlite3.OperationalError as e:  # a folder that may not be read
        raise ConfigError(reason=f"{path}: {e}") from None
    except sqlite3.DatabaseError as e:  # the size of the cache is the first thing that SQLite looks into the file for
        raise StateDamaged(path=path, reason=str(e)) from None
    return connection
