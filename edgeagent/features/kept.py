"""The features of each sample, computed once and kept beside it: what the frozen part of a model made of it, as float16.

They lie in the spool's own file, so that they go with their sample, whoever drops it. All can be computed again at any time: those of
another base or another runtime are dropped, and a folder of an earlier release gets the tables when they are first wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeagent.samples.spool import Spool
from modelwire.errors import NotTrainable
from modelwire.tensors import F32

if TYPE_CHECKING:
    from .extractor import Extractor

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
TOGETHER = 16  # rows of one transaction: the application's own appends wait for no more than a few samples' inference


class Features:
    """The kept features of one model's samples."""

    def __init__(self, spool: Spool, model: str, *, base: bytes, runtime: str, width: int) -> None:
        """Those that another base or runtime computed are dropped here."""
        self._db, self._spool, self.model, self.width = spool.database, spool, model, width
        with self._db.transaction():
            for table in TABLES:
                self._db.run(table)
            known = self._db.maybe("SELECT base, runtime, width FROM featured WHERE model=?", model)
            if known is None or tuple(known) != (base, runtime, width):
                self._db.run("DELETE FROM feature WHERE sample IN (SELECT id FROM sample WHERE model=?)", model)
                self._db.run("DELETE FROM featured WHERE model=?", model)
                self._db.insert("featured", model=model, base=base, runtime=runtime, width=width)

    def missing(self, ids: NDArray[np.int64]) -> list[int]:
        """Return which of these samples have none yet."""
        have = {
            row["sample"]
            for row in self._db.all("SELECT sample FROM feature WHERE sample IN (SELECT id FROM sample WHERE model=?)", self.model)
        }
        return [int(sample) for sample in ids if int(sample) not in have]

    def compute(self, extractor: Extractor, ids: Sequence[int]) -> Iterator[int]:
        """Compute and keep the features of these samples, yielding how many are done; what a kill leaves is whole.

        Raises NotTrainable for features that float16 can't hold.
        """
        for first in range(0, len(ids), TOGETHER):
            some = ids[first : first + TOGETHER]
            rows = []
            for sample, x in self._spool.inputs(self.model, some):
                rows.append((sample, half(extractor.features(x), model=self.model).tobytes()))
                yield first + len(rows)
            with self._db.transaction():
                for sample, row in rows:  # a sample that was dropped meanwhile takes none
                    self._db.run("INSERT OR REPLACE INTO feature SELECT id, ? FROM sample WHERE id=?", row, sample)

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the features of these samples, [n, width]. Raises KeyError when one has none."""
        out = np.empty((len(ids), self.width), "<f2")
        for i, sample in enumerate(ids):
            out[i] = np.frombuffer(self._db.one("SELECT row FROM feature WHERE sample=?", int(sample))["row"], "<f2", self.width)
        return out.astype(np.float16, copy=False)


def half(features: F32, *, model: str) -> NDArray[np.float16]:
    """Return features as they are kept. Raises NotTrainable where one is no number, or too large for float16."""
    with np.errstate(over="ignore"):
        out = features.astype("<f2")
    if not np.isfinite(out).all():
        raise NotTrainable(model=model, reason="mode features: a feature is no number that float16 has; another mode trains it")
    return out
