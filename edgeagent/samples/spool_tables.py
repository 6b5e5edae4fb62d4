"""The tables of the spool: each model's bounds and cards, the samples, and how many there are of each class and context."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from edgecommon.sqlite import Database, Unnamed
from modelwire.errors import StateDamaged

from .reservoir import rank_of

FOLDER = "samples"  # in the state folder: who may write there appends samples, and needs nothing else of the state
FILE = "samples.db"
RELEASE = 2
PATIENCE = 1000  # millions of SQLite's steps for one statement; a million samples come to some 20, a table that never ends to all

TABLES = """
CREATE TABLE model (
    name TEXT PRIMARY KEY,
    x_shape TEXT NOT NULL,          -- JSON list, without the batch
    y_shape TEXT NOT NULL,          -- JSON list: [classes], or the shape of a target
    max_samples INTEGER NOT NULL,
    max_bytes INTEGER NOT NULL,
    channels TEXT NOT NULL DEFAULT '',      -- of its data cards, as the settings say them
    seen INTEGER NOT NULL DEFAULT 0,        -- the newest sample that was there when the last round began
    carded INTEGER NOT NULL DEFAULT 0,      -- the newest sample that the card of an accepted version tells of
    gone BLOB,                              -- card of dropped samples up to `seen` that no accepted version has told of
    gone_since BLOB,                        -- the same of those above `seen`
    coming BLOB,                            -- card of all that came between `carded` and `seen`
    known BLOB,                             -- card of what accepted rounds had come; a round's weight halves with each one after it
    codes INTEGER NOT NULL DEFAULT 0,       -- Codes: what an int8 head asks of them
    held INTEGER NOT NULL DEFAULT 0         -- the newest sample of the round under way: those up to it stay until it is over; 0: none is
);
CREATE TABLE cell (                         -- kept with each append, so that no append counts the whole table
    id INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    class INTEGER NOT NULL,                 -- -1 where the samples have a target instead
    context TEXT NOT NULL,                  -- JSON object, names sorted, or empty without a context
    samples INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    UNIQUE (model, class, context)
);
CREATE TABLE sample (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never reused: the held-out split and the reservoir go by it
    model TEXT NOT NULL REFERENCES model(name),
    class INTEGER NOT NULL,                 -- -1 where the sample has a target instead
    x BLOB NOT NULL,                        -- float32, little-endian
    target BLOB,                            -- NULL with class -1: the target is x
    bytes INTEGER NOT NULL,
    at INTEGER NOT NULL,
    cell INTEGER NOT NULL DEFAULT 0,        -- 0: it leaves when the round under way is over, and counts no more
    rank INTEGER NOT NULL DEFAULT 0         -- a hash of the id: the highest one goes first
);
CREATE INDEX sample_by_class ON sample (model, class, id);
CREATE INDEX sample_by_cell ON sample (cell, id);
CREATE INDEX sample_by_rank ON sample (cell, rank);
"""

_COLUMNS = (
    "channels TEXT NOT NULL DEFAULT ''", "seen INTEGER NOT NULL DEFAULT 0", "carded INTEGER NOT NULL DEFAULT 0",
    "gone BLOB", "gone_since BLOB", "coming BLOB", "known BLOB", "codes INTEGER NOT NULL DEFAULT 0",
    "held INTEGER NOT NULL DEFAULT 0",
)  # fmt: skip

_UNLIKE_OURS = (ValueError, TypeError, LookupError, OverflowError, Unnamed)  # what rows come to that no spool of ours holds

P = ParamSpec("P")
T = TypeVar("T")


class _OfFile(Protocol):
    _db: Database


S = TypeVar("S", bound=_OfFile)


def by_name(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Let a method that reads the spool raise StateDamaged for rows that this program never wrote: whoever may append can write any."""

    @functools.wraps(method)
    def named(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except StateDamaged as e:
            if e.hint == StateDamaged.hint:  # of a file that SQLite can't read
                e.hint = f"see who may write to {self._db.path.parent}; then {StateDamaged.hint}"
            raise
        except _UNLIKE_OURS as e:
            path = self._db.path
            error = StateDamaged(path=path, reason=f"it holds what no spool of samples does ({type(e).__name__}: {e})"[:500])
            error.hint = f"see who may write to {path.parent}; then {StateDamaged.hint}"
            raise error from e

    return named


def forget(database: Database, model: str) -> None:
    """Take a model out of a spool with all its samples and what was computed of them; of one that is not there nothing happens."""
    with database.transaction():
        tables = {row["name"] for row in database.all("SELECT name FROM sqlite_master WHERE type='table'")}
        if "feature" in tables:
            database.run("DELETE FROM feature WHERE sample IN (SELECT id FROM sample WHERE model=?)", model)
        for table in {"featured", "sample", "cell"} & tables:
            database.run(f"DELETE FROM {table} WHERE model=?", model)
        database.run("DELETE FROM model WHERE name=?", model)


def migrate(database: Database) -> None:
    """Bring a spool of release 1 to this one, in one transaction, every sample with its id; one of this release stays as it is."""
    with database.transaction():
        if database.one("PRAGMA user_version")[0] != 1:  # in here: of two processes that open it, one changes it
            return
        for column in _COLUMNS:
            database.run(f"ALTER TABLE model ADD COLUMN {column}")
        for column in ("cell", "rank"):
            database.run(f"ALTER TABLE sample ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
        start = TABLES.index("CREATE TABLE cell")
        database.run(TABLES[start : TABLES.index("\n);", start) + 2])
        database.run(
            "INSERT INTO cell (model, class, context, samples, bytes)"
            " SELECT model, class, '', count(*), sum(bytes) FROM sample GROUP BY model, class"
        )
        database.run("UPDATE sample SET cell=(SELECT c.id FROM cell c WHERE c.model=sample.model AND c.class=sample.class)")
        for row in database.all("SELECT id FROM sample"):
            database.run("UPDATE sample SET rank=? WHERE id=?", rank_of(row["id"]), row["id"])
        database.run("CREATE INDEX sample_by_cell ON sample (cell, id)")
        database.run("CREATE INDEX sample_by_rank ON sample (cell, rank)")
        database.run("DROP TABLE held")
        database.run(f"PRAGMA user_version={RELEASE}")
