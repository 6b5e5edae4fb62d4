"""SQLite files as both wings keep them: one transaction at a time, and what is wrong with a file said in its owner's errors."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import NoReturn

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


_WRITES = ("INSERT", "UPDATE", "DELETE")  # statements that commit by themselves outside a transaction
_FAULTS = (sqlite3.DatabaseError, UnicodeDecodeError)  # that get a name
Name = Callable[[Fault, Path, Exception], Exception | None]


def in_memory() -> sqlite3.Connection:
    """Return an empty database of no file, to see what statements make."""
    return sqlite3.connect(":memory:", isolation_level=None)


class Database:
    """One SQLite file. Not for use from two threads. Outside `transaction` every statement commits by itself."""

    def __init__(
        self, path: Path, name: Name, *, mode: str = "rw", synchronous: str = "FULL", busy: float | None = None, savepoints: bool = False,
        patience: int = 0, still: bool = False, part: str = disk.OTHER,
    ) -> None:  # fmt: skip
        """name: the error that says a fault of this file; None leaves it SQLite's. mode: ro, rw or rwc, which makes a file.

        synchronous: FULL survives a power cut, NORMAL may then lose the last commits, OFF is for what is made durable as a whole.
        savepoints: a transaction inside another is taken back alone when it fails.
        still: nobody writes it, and nothing is written beside it to read it; what stands in its log alone is not seen.
        patience: millions of SQLite's steps that one statement may take, for a file into which others write; 0: any.
        part: for which what is written there is counted (`disk.WriteTally`).
        """
        self.part = part
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
        self.era = 0  # another one with each transaction and whenever something is taken back: within one, nobody else writes
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

    def make_durable(self) -> None:
        """Flush what stands in its log, before anything is decided by it: a process that was killed may have written a commit there and not
        flushed it, and when the power went after that, all that was done since would stand on what never was.

        Where another process writes just now, its commit does that.
        """
        self.run("PRAGMA busy_timeout = 0")
        try:
            self.run("PRAGMA wal_checkpoint(PASSIVE)")  # SQLite flushes the log before it copies what stands there
        except (StateBusy, DiskUnwritable):  # no room is needed to flush what is there
            with suppress(OSError):
                log = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(log)
                finally:
                    os.close(log)
        finally:
            self.run(f"PRAGMA busy_timeout = {self._busy}")

    def transaction(self) -> AbstractContextManager[None]:
        """Make everything in the block one transaction: all of it is there afterwards, or nothing. A block inside joins it."""
        return _Transaction(self, self._savepoints)

    def joined(self) -> AbstractContextManager[None]:
        """Make everything in the block part of the transaction around it, or one of its own. Inside, it is not taken back alone: for
        whose error ends what is around it.
        """
        return _Transaction(self, savepoints=False)

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
        return self._changed(sql, values).rowcount

    def _changed(self, sql: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        """Run a statement; what one that commits by itself writes is counted for this file's part."""
        self._steps, before = 0, ""
        try:
            if sql.startswith(_WRITES) and not self.connection.in_transaction:
                before = disk.begin_part(self.part)
            return self.connection.execute(sql, values)
        except _FAULTS as error:
            self._raise(error)
        finally:
            if before:
                disk.begin_part(before)

    def insert(self, table: str, **values: object) -> int:
        """Insert one row; return its rowid. Table and columns are named in the source, never by anyone else."""
        columns = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" * len(values))
        return self.add(f"INSERT INTO {table} ({columns}) VALUES ({marks})", *values.values())

    def add(self, sql: str, *values: object) -> int:
        """Run an INSERT of one row; return its rowid."""
        row_id = self._changed(sql, values).lastrowid
        assert row_id is not None
        return row_id

    def all(self, sql: str, *values: object) -> list[Row]:
        self._steps = 0
        try:  # SQLite looks for the rows as they are fetched
            return self.connection.execute(sql, values).fetchall()
        except _FAULTS as error:
            self._raise(error)

    def one(self, sql: str, *values: object) -> Row:
        """Return the one row; KeyError when there is none."""
        row = self.maybe(sql, *values)
        if row is None:
            raise KeyError(sql)
        return row

    def maybe(self, sql: str, *values: object) -> Row | None:
        """Return the first row, or None."""
        self._steps = 0
        try:
            row: Row | None = self.connection.execute(sql, values).fetchone()
        except _FAULTS as error:
            self._raise(error)
        return row

    def piece(self, table: str, column: str, row_id: int, start: int, size: int) -> bytes:
        """Return some bytes of a large value, and not the whole of it into memory, where this Python can."""
        if (open_blob := getattr(self.connection, "blobopen", None)) is not None:  # from Python 3.11 on
            with self.named(), open_blob(table, column, row_id, readonly=True) as blob:
                blob.seek(min(start, len(blob)))
                return bytes(blob.read(size))
        return bytes(self.one(f"SELECT substr({column}, ?, ?) FROM {table} WHERE rowid = ?", start + 1, size, row_id)[0])

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

    def named(self) -> AbstractContextManager[None]:
        """Give what SQLite finds wrong within the block the owner's name for it."""
        self._steps = 0
        return _Named(self)

    def _raise(self, error: Exception) -> NoReturn:
        """Raise what SQLite found wrong by the owner's name for it, or as it is where he has none."""
        if isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "busy" in str(error)):
            raise StateBusy(path=self.path) from error
        if isinstance(error, sqlite3.DatabaseError) and (full := _of_the_disk(error, self.path)) is not None:
            raise full from error
        # UnicodeDecodeError: the text of a row, or of what SQLite has to say, whose bytes were changed.
        fault = _fault(error, self.path) if isinstance(error, sqlite3.DatabaseError) else Fault.DAMAGED
        name = self._name(fault, self.path, error)
        if name is None:
            raise error
        raise name from error

    def _tired(self) -> bool:
        """Return whether SQLite is to give the statement up; it asks after each million of steps."""
        self._steps += 1
        return self._steps > self._patience


class _Named:
    """The block of `Database.named`. A class: a generator would cost as much as a statement."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _FAULTS):
            self._database._raise(error)


class _Transaction:
    """The block of a transaction, or of a part of one."""

    __slots__ = ("_before", "_database", "_inside", "_savepoints")

    def __init__(self, database: Database, savepoints: bool) -> None:
        self._database, self._savepoints, self._before = database, savepoints, ""

    def __enter__(self) -> None:
        try:
            self._inside = self._database.connection.in_transaction
        except _FAULTS as error:  # it may be closed
            self._database._raise(error)
        if not self._inside:
            self._before = disk.begin_part(self._database.part)
            # IMMEDIATE: a deferred transaction that turns into a writer does not wait for another one, it fails.
            try:
                self._database.run("BEGIN IMMEDIATE")
            except BaseException:
                disk.begin_part(self._before)
                raise
            self._database.era += 1
        elif self._savepoints:
            self._database.run("SAVEPOINT inside")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._inside and not self._savepoints:
            return
        try:
            if error is None:
                try:
                    self._database.run("RELEASE inside" if self._inside else "COMMIT")
                except BaseException:
                    self._take_back()
                    raise
            else:
                self._take_back()
        finally:
            if not self._inside:
                disk.begin_part(self._before)

    def _take_back(self) -> None:
        self._database.era += 1
        if self._database.connection.in_transaction:  # SQLite takes some back by itself: a full disk
            for statement in ("ROLLBACK TO inside", "RELEASE inside") if self._inside else ("ROLLBACK",):
                self._database.run(statement)


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
    # "Could not decode": a blob that a changed byte made text.
    return Fault.DAMAGED if "disk I/O" in said or "Could not decode" in said else Fault.FAILED


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
