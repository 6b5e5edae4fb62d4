"""The registry's SQLite file: opened with its rules, copied while it is in use, looked through for damage, its faults by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgecommon import disk
from edgecommon.files import make_private_file
from edgecommon.sqlite import BUSY, Database, Fault
from modelwire.errors import BadArgument, LineageError, ModelWireError, RegistryDamaged

SIDES = ("-wal", "-shm", "-journal")  # what SQLite plays into the file whose name they bear, whoever wrote it


def open_database(
    path: Path, *, readonly: bool = False, synchronous: str = "FULL", busy: float = BUSY, create: bool = False
) -> Database:
    """Return the file at `path`. synchronous: FULL survives a power cut; tests that kill no power may say OFF.

    create: make it where it is not there, for its owner alone.
    """
    if create:
        try:
            make_private_file(path)  # SQLite gives its other files the mode of this one
        except FileExistsError:
            pass
        except OSError as error:
            if (full := disk.unwritable(error, path)) is not None:
                raise full from error
            raise BadArgument(reason=f"{path}: {error.strerror}", fix="check who may write its folder") from error
    mode = "ro" if readonly else "rwc" if create else "rw"
    return Database(path, _named, mode=mode, synchronous=synchronous, busy=busy, savepoints=True)


def require_no_sides(path: Path) -> None:
    """Raise BadArgument for what another file of this name has left: SQLite would play it into a new one."""
    for end in SIDES:
        side = path.with_name(path.name + end)
        if side.exists() or side.is_symlink():
            raise BadArgument(reason=f"{side} is left of another file of this name", fix="move it away, or name another file")


def copy_to(source: Database, target: Database, progress: Callable[[int, int], None], pages: int = 2048) -> None:
    """Copy the whole database as it is at one moment, while others go on writing. progress: pages done, pages in all."""
    with source.named():
        # The open read keeps one moment for all steps; without it a write of another process starts the copy again.
        source.connection.execute("BEGIN")
        try:
            source.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.connection.backup(target.connection, pages=pages, progress=lambda _status, left, total: progress(total - left, total))
        finally:
            source.connection.execute("ROLLBACK")


def problems(database: Database) -> list[str]:
    """Return what SQLite finds wrong with the file, and values that no release has written; nothing when it is whole."""
    wrong = [str(row[0]) for row in database.all("PRAGMA integrity_check(20)") if row[0] != "ok"]
    wrong += [f"{row[0]} row {row[1]} names a missing {row[2]}" for row in database.all("PRAGMA foreign_key_check")]
    return wrong + odd_values(database)


def odd_values(database: Database) -> list[str]:
    """Return the columns in which a value is not of the declared type: SQLite keeps whatever is written."""
    out = []
    for (table,) in database.all("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%sqlite%' ORDER BY name"):
        columns = [(row[1], row[2].lower()) for row in database.all(f'PRAGMA table_info("{table}")')]
        odd = ", ".join(f"max(typeof(\"{name}\") NOT IN ('{kind}', 'null'))" for name, kind in columns)
        found = database.one(f'SELECT {odd} FROM "{table}"')
        out += [f"{table}.{name} has a value that is no {kind.upper()}" for (name, kind), one in zip(columns, found, strict=True) if one]
    return out


def no_registry(path: Path, reason: str) -> RegistryDamaged:
    """Return the error for a file that may well be another's, whole, and only named by mistake: nothing is to be restored over it."""
    fix = "name the registry's file with --db; of an encrypted backup that is edgecloud restore; of a damaged one, restore a backup"
    return RegistryDamaged(path=path, reason=reason, fix=fix)


def _named(fault: Fault, path: Path, error: Exception) -> ModelWireError:
    if fault is Fault.REFUSED:
        return LineageError(reason=f"the registry keeps its rows as they are: {error}")
    if fault is Fault.MISUSED:
        fix = "open the registry once on each thread, and use nothing of it after it was closed"
        return BadArgument(reason=f"{path}: {error}", fix=fix)
    if fault is Fault.DENIED:
        if path.is_dir():
            return BadArgument(reason=f"{path} is a folder", fix="name the registry's file")
        return BadArgument(reason=f"{path}: {error}", fix="check who may write the file and its folder")
    if "not a database" in str(error):
        return no_registry(path, "it is not a registry: no database at all")
    return RegistryDamaged(path=path, reason=str(error))
