"""Looks whether a file or a folder of the state has another thing in its place, which every start would stumble over."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from modelwire.errors import StateDamaged

JOURNAL = bytes.fromhex("d9d505f920a163d7")  # with which a rollback journal of SQLite begins
WAL = b"\x02\x02"  # versions of who writes and who reads a database that has a log; such a one has no rollback journal


def check_places(state: Path, database: str, models: Iterable[str], lock: str) -> None:
    """Raise StateDamaged where a folder of the state is none, or a file is none. What is not there is no matter here."""
    of_models = [state / "models" / name for name in models]
    parts = (one / part for one in of_models for part in ("a", "b", "history", "bases"))
    others = (base / part for one in of_models for base in _in(one / "bases") for part in ("", "a", "b"))
    for folder in (state / "models", state / "samples", *of_models, *parts, *others):
        if os.path.lexists(folder) and not os.path.isdir(folder):
            raise _taken(folder, "it is no folder, and there is to be one")
    beside = (state / f"{database}{end}" for end in ("-wal", "-shm", "-journal"))
    for file in (state / lock, *beside, *(one / "round" for one in of_models)):
        if os.path.lexists(file) and not os.path.isfile(file):
            raise _taken(file, "it is no file, and there is to be one or nothing")


def _in(folder: Path) -> list[Path]:
    """Return what lies in a folder; nothing where it is none, or is another user's."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def base_of(model: Path) -> Path:
    """Return the file of the base that a model is served on, as the link to the served file says it: no database is needed for that.

    model: its folder. That of its first base where the link says nothing.
    """
    try:
        place = Path(os.readlink(model / "served.tflite")).parent.parent
    except OSError:
        place = Path()
    found = model / place / "base.tflite"
    return found if not place.is_absolute() and ".." not in place.parts and os.path.isfile(found) else model / "base.tflite"


def check_journal(path: Path, head: bytes) -> None:
    """Raise StateDamaged for a rollback journal beside a database that has none: SQLite would play it into it. head: its first bytes."""
    journal = path.with_name(f"{path.name}-journal")
    try:
        with journal.open("rb") as file:
            begins = file.read(len(JOURNAL))
    except OSError:
        return
    if begins == JOURNAL and head[18:20] == WAL:
        raise _taken(journal, "it is the journal of another database, and SQLite would play it into this one")


def _taken(path: Path, reason: str) -> StateDamaged:
    fix = f"see what it is, and move it away: ls -ld {shlex.quote(str(path))}"
    return StateDamaged(path=path, reason=reason, trouble="place-taken", fix=fix)
