"""One SQLite connection with the registry's rules: WAL, FULL, immediate transactions, savepoints inside, errors by name."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelwire.errors import BadArgument, LineageError, ModelWireError, RegistryDamaged, StateBusy

BUSY_SECONDS = 30.0
FULL = 64 * 1024  # bytes of free disk below which SQLite's "disk I/O error" means that it is full: not even an index of the log fits
Row = tuple[Any, ...]


class Database:
    """A connection of one thread. Outside `transaction` every statement commits by itself."""

    def __init__(
        self, path: Path, *, readonly: bool = False, synchronous: str = "FULL", busy: float = BUSY_SECONDS, create: bool = False
    ) -> None:
        """synchronous: FULL survives a power cut; tests that kill no power may say OFF."""
        self.path = path
        self._depth = 0
        mode = "ro" if readonly else "rwc" if create else "rw"
        with self.named():
            # Statements are sent as they are; this class says BEGIN and COMMIT.
            self.connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=busy)
        try:
            self.run("PRAGMA foreign_keys = ON")
            if not readonly:
                self.run(f"PRAGMA synchronous = {synchronous}")
            if create:
                self.keep_log()
        except ModelWireError:
            self.connection.close()
            raise

    def keep_log(self) -> None:
        """Write ahead from now on. It changes the file, so it comes after a look at whose file it is."""
        self.run("PRAGMA journal_mode = WAL")

    def run(self, sql: str, *values: object) -> int:
        """Run one statement and return how many rows it changed."""
        with self.named():
            return self.connection.execute(sql, values).rowcount

    def insert(self, sql: str, *values: object) -> int:
        """Run one INSERT and return the new row's id."""
        with self.named():
            id = self.connection.execute(sql, values).lastrowid
        assert id is not None
        return id

    def one(self, sql: str, *values: object) -> Row | None:
        with self.named():
            row: Row | None = self.connection.execute(sql, values).fetchone()
            return row

    def all(self, sql: str, *values: object) -> list[Row]:
        with self.named():
            return self.connection.execute(sql, values).fetchall()

    def number(self, sql: str, *values: object) -> int:
        """Return the one integer that a query gives."""
        row = self.one(sql, *values)
        assert row is not None
        return int(row[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. IMMEDIATE: a transaction that starts as a reader and then writes can't wait for a lock."""
        name = f"s{self._depth}"
        self.run(f"SAVEPOINT {name}" if self._depth else "BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            # A full disk may already have ended the transaction.
            if self.connection.in_transaction:
                self.run(f"ROLLBACK TO {name}" if self._depth else "ROLLBACK")
                if self._depth:
                    self.run(f"RELEASE {name}")
            raise
        self._depth -= 1
        try:
            self.run(f"RELEASE {name}" if self._depth else "COMMIT")
        except ModelWireError:
            if not self._depth and self.connection.in_transaction:
                self.run("ROLLBACK")
            raise

    def copy_to(self, target: Database, progress: Callable[[int, int], None], pages: int = 2048) -> None:
        """Copy the whole database as it is at one moment, while others go on writing. progress: pages done, pages in all."""
        with self.named():
            # The open read keeps one moment for all steps; without it a write of another process starts the copy again.
            self.connection.execute("BEGIN")
            try:
                self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                self.connection.backup(
                    target.connection, pages=pages, progress=lambda _status, left, total: progress(total - left, total)
                )
            finally:
                self.connection.execute("ROLLBACK")

    def check(self) -> list[str]:
        """Return what SQLite finds wrong with the file; nothing when it is whole."""
        found = [str(row[0]) for row in self.all("PRAGMA integrity_check(20)") if row[0] != "ok"]
        return found + [f"{row[0]} row {row[1]} names a missing {row[2]}" for row in self.all("PRAGMA foreign_key_check")]

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Give SQLite's errors within the block their names."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise LineageError(reason=f"the registry keeps its rows as they are: {error}") from error
        except sqlite3.ProgrammingError as error:  # another thread's connection, or one that is closed
            fix = "open the registry once on each thread, and use nothing of it after it was closed"
            raise BadArgument(reason=f"{self.path}: {error}", fix=fix) from error
        except sqlite3.OperationalError as error:
            if error_is_busy(error):
                raise StateBusy(path=self.path) from error
            if self.path.is_dir():
                raise BadArgument(reason=f"{self.path} is a folder", fix="name the registry's file") from error
            if "is full" in str(error) or ("disk I/O" in str(error) and shutil.disk_usage(self.path.parent).free < FULL):
                raise BadArgument(reason=f"{self.path}: its disk is full: {error}", fix="make room there; nothing is damaged") from error
            if "readonly" in str(error) or "unable to open" in str(error):
                raise BadArgument(reason=f"{self.path}: {error}", fix="check who may write the file and its folder") from error
            raise RegistryDamaged(path=self.path, reason=str(error)) from error
        except sqlite3.DatabaseError as error:
            raise RegistryDamaged(path=self.path, reason=str(error)) from error


def error_is_busy(error: sqlite3.OperationalError) -> bool:
    """Return whether another process holds the lock."""
    return "locked" in str(error) or "busy" in str(error)
