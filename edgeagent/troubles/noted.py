"""What the agent got over alone, kept in its database so that `status` can say so afterwards."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

from edgecommon.sqlite import Database
from modelwire.errors import ModelWireError

from .table import TABLE as TROUBLES

TABLE = """
CREATE TABLE trouble (                          -- what the agent got over alone
    id TEXT PRIMARY KEY,                        -- of edgeagent.troubles
    text TEXT NOT NULL,                         -- the last time, in words
    count INTEGER NOT NULL,
    at INTEGER NOT NULL                         -- Unix seconds of the last time
) WITHOUT ROWID;
"""
TEXT_MAX = 500
_log = logging.getLogger("edgeagent")


@dataclass(frozen=True, slots=True)
class NotedTrouble:
    """One trouble that was got over."""

    id: str
    text: str
    count: int
    at: int  # Unix seconds of the last time


def note(database: Database, name: str, text: str, now: float) -> None:
    """Say in the log, and keep, that a trouble was got over. now: Unix seconds. On a disk that takes nothing it is said alone."""
    _log.warning("trouble %s: %s", name, text)
    with suppress(ModelWireError):
        database.run(
            "INSERT INTO trouble (id, text, count, at) VALUES (?,?,1,?)"
            " ON CONFLICT (id) DO UPDATE SET text=excluded.text, count=count+1, at=excluded.at",
            name, text[:TEXT_MAX], int(now),
        )  # fmt: skip


def all_noted(database: Database) -> list[NotedTrouble]:
    """Return all that were got over, the newest first."""
    rows = database.all("SELECT id, text, count, at FROM trouble ORDER BY at DESC, id LIMIT ?", len(TROUBLES))
    return [NotedTrouble(str(r["id"]), str(r["text"]), int(r["count"]), int(r["at"])) for r in rows]
