"""SQLite files as both wings keep them: one transaction at a time, and what is wrong with a file said in its owner's errors."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from modelwire.errors import DiskUnwritable, StateBusy

from . import disk

Row = sqlite3.Row
Unnamed = sqlite3.Error  # what SQLite raises where the owner of a file has no name for it
BUSY = 30.0  # seconds to wait for another process's transaction
FULL = disk.TRIED  # bytes of free disk below which a "disk I/O error" means a full one: SQLite's own files need some of them
_IO_ERROR = 10  # SQLite's code; what was done stands in the byte above it
_OF_THE_DISK = {1, 3, 4, 5, 6, 7, 10, 18, 19, 21, 24}  # to read, write, flush, cut, look at or remove a file, to make room for `-shm`


class Fault(Enum):
    """What SQLite's errors come to. For everyone alike, and so not among them: StateBusy for a file that another process holds, and
    DiskUnwritable for a disk that takes nothing more."""

    DENIED = "it may not be opened or written"
    DAMAGED = "SQLite can't read it"
    REFUSED = "a row that breaks a rule of its table"
    MISUSED = "used after it was closed, or from another thread"
    FAILED = "a statement that fails, of a file that another program wrote or a fault of ours"


Name = Callable[[Fault, Path, Exception], Exception | None]


def in_memory() -> sqlite3.Connection:
    """Return an empty database of no file, to see what statements make."""
    return sqlite3.connect(":memory:", isolation_level=None)


class Database:
    """One SQLite file. Not for use from two threads. Outside `transaction` every statement commits by itself."""

    def __init__(
        self, path: Path, name: Name, *, mode: str = "rw", synchronous: str = "FULL", busy: float | None = None, savepoints: bool = False,
        patience: int = 0, still: bool = False,
    ) -> None:  # fmt: skip
        """name: the error that says a fault of this file; None leaves it SQLite's. mode: ro, rw or rwc, which makes a file.

        synchronous: FULL survives a power cut, NORMAL may then lose the last commits, OFF is for what is made durable as a whole.
        savepoints: a transaction inside another is taken back alone when it fails.
        still: nobody writes it, and nothing is written beside it to read it; what stands in its log alone is not seen.
        patience: millions of SQLite's steps that one statement may take, for a file into which others write; 0: any.
        """
        self.path, self._name, self._savepoints = path, name, savepoints
        timeout = BUSY if busy is None else busy
        if path.exists() and not path.is_file() and not path.is_dir():
            raise name(Fault.DENIED, path, OSError("it is no regular file")) or OSError(None, "it is no regular file", str(path))
        self._busy = int(1000 * timeout)
        with self.named():  # statements are sent as they are: `transaction` says BEGIN and COMMIT
            uri = f"{path.absolute().as_uri()}?mode={mode}{'&immutable=1' if still else ''}"
            self.connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None)
        self.connection.row_factory = Row
        self._patience, self._steps = patience, 0
        if patience:
            self.connection.set_progress_handler(self._tired, 1_000_000)
        try:
            self.run("PRAGMA foreign_keys = ON")
            if mode != "ro":
                self.run(f"PRAGMA synchronous = {synchronous}")
            if mode == "rwc":
                self.keep_log()
        except BaseException:
            self.close()
            raise

    def keep_log(self) -> None:
        """Write ahead from now on. It changes the file, so it comes after a look at whose file it is."""
        self.run("PRAGMA journal_mode = WAL")

    def shorten_log(self) -> None:
        """Put into the file what stands in its log, and give back the log's room, unless somebody reads or writes just now."""
        self.run("PRAGMA busy_timeout = 0")
        try:
            self.run("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self.run(f"PRAGMA busy_timeout = {self._busy}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything in the block one transaction: all of it is there afterwards, or nothing. A block inside joins it."""
        with self.named():  # it may be closed
            inside = self.connection.in_transaction
        if inside and not self._savepoints:
            yield
            return
        # IMMEDIATE: a deferred transaction that turns into a writer does not wait for another one, it fails.
        self.run("SAVEPOINT inside" if inside else "BEGIN IMMEDIATE")
        try:
            yield
            self.run("RELEASE inside" if inside else "COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # SQLite takes some back by itself: a full disk
                for statement in ("ROLLBACK TO inside", "RELEASE inside") if inside else ("ROLLBACK",):
                    self.run(statement)
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read everything in the block as of one moment, while others go on writing."""
        if self.connection.in_transaction:
            yield
            return
        self.run("BEGIN")
        try:
            yield
        finally:
            self.run("ROLLBACK")

    def run(self, sql: str, *values: object) -> int:
        """Run a statement; return how many rows it changed."""
        with self.named():
            return self.connection.execute(sql, values).rowcount

    def insert(self, table: str, **values: object) -> int:
        """Insert one row; return its rowid. Table and columns are named in the source, never by anyone else."""
        columns = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" * len(values))
        with self.named():
            row_id = self.connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values())).lastrowid
        assert row_id is not None
        return row_id

    def all(self, sql: str, *values: object) -> list[Row]:
        with self.named():  # SQLite looks for the rows as they are fetched
            return self.connection.execute(sql, values).fetchall()

    def one(self, sql: str, *values: object) -> Row:
        """Return the one row; KeyError when there is none."""
        row = self.maybe(sql, *values)
        if row is None:
            raise KeyError(sql)
        return row

    def maybe(self, sql: str, *values: object) -> Row | None:
        """Return the first row, or None."""
        with self.named():
            row: Row | None = self.connection.execute(sql, values).fetchone()
        return row

    def number(self, sql: str, *values: object) -> int:
        """Return the one integer that a query gives."""
        return int(self.one(sql, *values)[0])

    def check(self) -> None:
        """Raise the owner's error for a damaged file when SQLite finds it broken."""
        with self.named():
            said = self.one("PRAGMA quick_check")[0]
            if said != "ok":
                raise sqlite3.DatabaseError(said)

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Give what SQLite finds wrong within the block the owner's name for it."""
        self._steps = 0
        try:
            yield
        except sqlite3.DatabaseError as e:
            if isinstance(e, sqlite3.OperationalError) and ("locked" in str(e) or "busy" in str(e)):
                raise StateBusy(path=self.path) from e
            if (full := _of_the_disk(e, self.path)) is not None:
                raise full from e
            error = self._name(_fault(e, self.path), self.path, e)
            if error is None:
                raise
            raise error from e
        except UnicodeDecodeError as e:  # the text of a row, or of what SQLite has to say, whose bytes were changed
            error = self._name(Fault.DAMAGED, self.path, e)
            if error is None:
                raise
            raise error from e

    def _tired(self) -> bool:
        """Return whether SQLite is to give the statement up; it asks after each million of steps."""
        self._steps += 1
        return self._steps > self._patience


def _fault(error: sqlite3.DatabaseError, path: Path) -> Fault:
    if isinstance(error, sqlite3.IntegrityError):
        return Fault.REFUSED
    if isinstance(error, sqlite3.ProgrammingError):
        return Fault.MISUSED
    if not isinstance(error, sqlite3.OperationalError):
        return Fault.DAMAGED
    said = str(error)
    if os.path.isdir(path):
        return Fault.DENIED
    if "readonly" in said or "unable to open" in said:
        return Fault.DENIED
    return Fault.DAMAGED if "disk I/O" in said else Fault.FAILED


def _of_the_disk(error: sqlite3.DatabaseError, path: Path) -> DiskUnwritable | None:
    """Return the error for a disk that takes nothing more. SQLite seldom says that it is full, or read-only: it is tried out."""
    said = str(error)
    if not isinstance(error, sqlite3.OperationalError) or os.path.isdir(path):
        return None
    if "is full" in said:
        return disk.of(errno.ENOSPC, path)
    if "disk I/O" not in said and "readonly" not in said and "unable to open" not in said:
        return None
    if "disk I/O" in said and _free(path.parent) < FULL:
        return disk.of(errno.ENOSPC, path)
    if (found := disk.refusal(path.parent)) is not None:
        return DiskUnwritable(**{**found.facts, "path": path})
    code = getattr(error, "sqlite_errorcode", 0)  # Python 3.11 and later
    return disk.of(errno.EIO, path) if code & 255 == _IO_ERROR and code >> 8 in _OF_THE_DISK else None


def _free(folder: Path) -> int:
    """Return the bytes that are free in the file system of `folder`."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize
