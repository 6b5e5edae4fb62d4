"""The agent's SQLite files: made and opened the same way everywhere, refused when of another release."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgecommon import access
from edgecommon.sqlite import Database, Fault
from modelwire.errors import BadArgument, ConfigError, DiskUnwritable, MissingFile, ModelWireError, StateDamaged

DATABASE, SAMPLES = "database", "samples"  # parts of what the agent writes
LATER = 1000  # releases of tables ahead of ours that are taken for a later agent's; beyond them the number itself is damaged
LOG = 128  # pages of the log after which it begins anew: while it grows, each commit makes the file system write its own journal, too
CACHE = 256  # KiB of pages that SQLite keeps for itself; the kernel keeps the file's in its own cache anyway


def create_database(path: Path, schema: str, release: int) -> Database:
    """Return a new file with the tables of `schema`; it must not exist yet."""
    database = Database(path, _named, mode="rwc")
    database.run(f"PRAGMA cache_size=-{CACHE}")
    with database.named():
        database.connection.executescript(f"BEGIN; {schema} PRAGMA user_version={release}; COMMIT;")
    return database


def open_database(
    path: Path, release: int, *, durable: bool = True, migrate: Callable[[Database], None] | None = None,
    older: Callable[[Path], ModelWireError] | None = None, patience: int = 0, part: str = DATABASE,
) -> Database:  # fmt: skip
    """Return the file at `path`. durable=False: the last commits may be lost when the power is cut, never more.

    part: for which its writes are counted. migrate: brings a file of an earlier release to this one.
    older: the error for one that can't be brought to it.
    Raises MissingFile, or StateDamaged when it is of another release.
    """
    if not path.exists():
        raise MissingFile(path=path, what="the agent's state")
    database = Database(path, _named, synchronous="FULL" if durable else "NORMAL", patience=patience, part=part)
    database.run(f"PRAGMA cache_size=-{CACHE}")
    if durable:  # each commit is flushed
        database.run(f"PRAGMA wal_autocheckpoint={LOG}")
    if migrate is not None and database.number("PRAGMA user_version") < release:
        migrate(database)
    written = database.number("PRAGMA user_version")
    if written < release and older is not None:
        database.close()
        raise older(path)
    if written != release:
        database.close()
        raise _of_other_release(path, written, release)
    return database


def look_into(path: Path, release: int, *, patience: int = 0) -> tuple[Database, str]:
    """Return the file at `path` for one who may not write there, or has no room to, and what of it is not seen; mostly nothing.

    SQLite wants a file of its own beside one that it reads. Where it can't have it, the file is read as it lies there, or, when commits
    still stand in its log, as a copy in memory. Raises what opening it raises when none of that can be had; StateDamaged for another
    release.
    """
    missed = ""
    try:
        database = _looked(path, patience)
    except (DiskUnwritable, ConfigError):
        if not os.access(path, os.R_OK):
            raise
        log = path.with_name(path.name + "-wal")
        if not _has_commits(log):
            database = _looked(path, patience, still=True)
        else:
            try:
                database = _looked_at_copy(path, log, patience)
            except OSError:
                database = _looked(path, patience, still=True)
                missed = f"what was written last: it stands in {log} alone, and there is no room for a copy"
    written = database.number("PRAGMA user_version")
    if written != release:
        database.close()
        raise _of_other_release(path, written, release)
    return database, missed


def _of_other_release(path: Path, written: int, release: int) -> StateDamaged:
    """Return the error for tables that this release does not read: later ones are whole, and nothing is to be set up anew."""
    error = StateDamaged(path=path, reason=f"its tables are of release {written}, this agent reads {release}")
    if release < written < release + LATER:
        error.facts |= {"trouble": "newer-release", "fix": "install the release of edgeagent again that wrote it, or a later one"}
    return error


def _looked(path: Path, patience: int, *, still: bool = False) -> Database:
    database = Database(path, _named, mode="ro", patience=patience, still=still)
    try:
        database.number("SELECT count(*) FROM sqlite_master")  # it is opened with the first look
    except BaseException:
        database.close()
        raise
    return database


def _has_commits(log: Path) -> bool:
    try:
        return log.stat().st_size > 0
    except OSError:
        return False


def _looked_at_copy(path: Path, log: Path, patience: int) -> Database:
    """Return a copy in memory, or in the folder for temporary files; its files have no name any more. Raises OSError."""
    import shutil  # for those who are shut out
    import tempfile

    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="edgeagent-", dir=shared if os.access(shared, os.W_OK) else None) as folder:
        copy = Path(folder) / path.name
        for file in (path, log):
            shutil.copyfile(file, copy.with_name(file.name))
        return _looked(copy, patience)


def _named(fault: Fault, path: Path, error: Exception) -> ModelWireError | None:
    """Return the error that the operator gets; a fault of ours stays what it is."""
    if fault is Fault.DENIED:
        return access.denied(path, str(error))
    if fault is Fault.MISUSED and ("closed" in str(error) or "thread" in str(error)):
        why = f"it was closed, or opened in another thread: {error}"
        return BadArgument(reason=f"{path}: {why}", fix="open it once on each thread, and use nothing of it after it was closed")
    return StateDamaged(path=path, reason=str(error)) if fault is Fault.DAMAGED else None
