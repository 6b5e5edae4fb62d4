"""Looks at a board's database before and after it is opened, and mends what can be mended without a guess."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from edgecommon.sqlite import Database
from modelwire.errors import ModelWireError, StateDamaged

from .places import check_journal

_HEADER = struct.Struct(">16sHBBBBBBII")  # SQLite's first 32 bytes: magic, page size, ..., change counter, pages
_MAGIC = b"SQLite format 3\x00"
_INDEX = ("missing from index", "wrong # of entries in index", "non-unique entry in index")
SHOWN = 200  # characters of what SQLite says


def check_length(path: Path) -> None:
    """Raise StateDamaged for a database that was cut: SQLite would take an empty one for new, and delete its log."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except OSError:
        return  # whose it is, and what stands there, is said by who opens it
    log = path.with_name(f"{path.name}-wal")
    if len(head) < _HEADER.size:
        raise StateDamaged(path=path, reason=f"it was cut: {size} bytes are left", trouble="database-cut")
    magic, page, *_, pages = _HEADER.unpack(head)
    if magic != _MAGIC:
        raise StateDamaged(path=path, reason="its first bytes are none of a database", trouble="database-damaged")
    check_journal(path, head)
    whole = (65_536 if page == 1 else page) * pages
    if size < whole and not _has_log(log):  # a log that is not empty may hold the pages that are still to come
        raise StateDamaged(path=path, reason=f"it was cut: {size} of {whole} bytes are left", trouble="database-cut")


def _has_log(log: Path) -> bool:
    try:
        return log.stat().st_size > 0
    except OSError:
        return False


def check_pages(database: Database) -> str:
    """Look at all pages, and make indexes anew that do not tell what their tables hold; return what was mended, mostly nothing.

    Raises StateDamaged for what can't be mended.
    """
    said = _said(database)
    if not said:
        return ""
    if all(any(one in line for one in _INDEX) for line in said):
        try:
            with database.transaction():
                database.run("REINDEX")
        except ModelWireError:
            raise
        if not _said(database):
            return f"{database.path}: indexes made anew: {'; '.join(said)[:SHOWN]}"
    raise StateDamaged(path=database.path, reason="; ".join(said)[:SHOWN], trouble="database-damaged")


def _said(database: Database) -> list[str]:
    rows = database.all("PRAGMA integrity_check(20)")
    lines = [line for row in rows for line in str(row[0]).splitlines()]
    return [line for line in lines if line != "ok" and not line.startswith("***")]


def put_aside(file: Path) -> Path:
    """Give a file that can't be read another name beside its own, its logs with it; one aside stays. Raises OSError."""
    aside = file.with_name(f"{file.name}.damaged")
    for end in ("-wal", "-shm", ""):
        if os.path.lexists(one := file.with_name(f"{file.name}{end}")):
            os.replace(one, aside.with_name(f"{aside.name}{end}"))
        elif os.path.lexists(left := aside.with_name(f"{aside.name}{end}")):
            left.unlink()  # of the one before
    return aside
