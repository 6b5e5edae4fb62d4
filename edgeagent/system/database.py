"""The agent's SQLite files: made and opened the same way everywhere, refused when of another release."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgecommon.sqlite import Database, Fault
from modelwire.errors import ConfigError, MissingFile, ModelWireError, StateDamaged

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
    older: Callable[[Path], ModelWireError] | None = None, patience: int = 0,
) -> Database:  # fmt: skip
    """Return the file at `path`. durable=False: the last commits may be lost when the power is cut, never more.

    migrate: brings a file of an earlier release to this one. older: the error for one that can't be brought to it.
    Raises MissingFile, or StateDamaged when it is of another release.
    """
    if not path.exists():
        raise MissingFile(path=path, what="the agent's state")
    database = Database(path, _named, synchronous="FULL" if durable else "NORMAL", patience=patience)
    database.run(f"PRAGMA cache_size=-{CACHE}")
    if migrate is not None and database.number("PRAGMA user_version") < release:
        migrate(database)
    written = database.number("PRAGMA user_version")
    if written < release and older is not None:
        database.close()
        raise older(path)
    if written != release:
        raise StateDamaged(path=path, reason=f"its tables are of release {written}, this agent reads {release}")
    return database


def _named(fault: Fault, path: Path, error: Exception) -> ModelWireError | None:
    """Return the error that the operator gets; a fault of ours stays what it is."""
    if fault is Fault.DENIED:
        return ConfigError(reason=f"{path}: {error}")
    return StateDamaged(path=path, reason=str(error)) if fault is Fault.DAMAGED else None
