"""The features that the spool keeps beside samples, in its own file, so that they go with their sample, whoever drops it.

All can be computed again at any time: a folder of an earlier release gets the tables when they are first wanted.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgecommon.sqlite import Database

from .spool_tables import by_name

TABLES = (
    """CREATE TABLE IF NOT EXISTS featured (
        model TEXT PRIMARY KEY REFERENCES model (name),
        base BLOB NOT NULL,             -- commit of the base whose frozen part computed them
        runtime TEXT NOT NULL,          -- key of the runtime that did
        width INTEGER NOT NULL          -- entries of a row
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS feature (
        sample INTEGER PRIMARY KEY REFERENCES sample (id) ON DELETE CASCADE,
        row BLOB NOT NULL               -- float16, little-endian
    )""",
)


class FeatureStore:
    """The features of one spool, in its database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @by_name
    def begin(self, model: str, *, base: bytes, runtime: str, width: int) -> None:
        """Say who computes the model's features from now on; those that another base or runtime computed are dropped."""
        with self._db.transaction():
            for table in TABLES:
                self._db.run(table)
            known = self._db.maybe("SELECT base, runtime, width FROM featured WHERE model=?", model)
            if known is None or tuple(known) != (base, runtime, width):
                self._db.run("DELETE FROM feature WHERE sample IN (SELECT id FROM sample WHERE model=?)", model)
                self._db.run("DELETE FROM featured WHERE model=?", model)
                self._db.insert("featured", model=model, base=base, runtime=runtime, width=width)

    @by_name
    def samples(self, model: str) -> set[int]:
        """Return the samples that have features."""
        rows = self._db.all("SELECT sample FROM feature WHERE sample IN (SELECT id FROM sample WHERE model=?)", model)
        return {row["sample"] for row in rows}

    @by_name
    def keep(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Keep (sample, row) pairs, all or none; a sample that was dropped meanwhile takes none."""
        with self._db.transaction():
            for sample, row in rows:
                self._db.run("INSERT OR REPLACE INTO feature SELECT id, ? FROM sample WHERE id=?", row, sample)

    def row(self, sample: int) -> bytes:
        """Return the features of a sample. Raises KeyError when it has none."""
        return bytes(self._db.one("SELECT row FROM feature WHERE sample=?", sample)["row"])
