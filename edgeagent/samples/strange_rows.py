"""Takes out of a spool what no `append` wrote: whoever may write to the file can write any row, and one must not end all training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgecommon.sqlite import Database, Row
from modelwire.tensors import Codes


@dataclass(frozen=True, slots=True)
class Shape:
    """What one model's samples look like."""

    x: tuple[int, ...]
    y: tuple[int, ...]
    codes: Codes = Codes.NONE  # what an int8 head asks of them

    @property
    def classes(self) -> int:
        return self.y[0] if len(self.y) == 1 else 0


_NUMBERS = " AND ".join(f"typeof({column})='integer'" for column in ("class", "bytes", "at", "cell", "rank"))
# Lengths of blobs are known without reading them: a row of gigabytes costs nothing here.
_GOOD = f"""{_NUMBERS} AND id>0 AND typeof(x)='blob' AND length(x)=? AND bytes=length(x)+coalesce(length(target), 0)
    AND ((target IS NULL AND class>=0 AND class<?) OR (target IS NULL AND class=-1 AND ?)
        OR (typeof(target)='blob' AND length(target)=? AND class=-1))
    AND (cell=0 OR EXISTS (SELECT 1 FROM cell c WHERE c.id=sample.cell AND c.model=sample.model AND c.class=sample.class))"""


def sweep(database: Database, model: str, shape: Shape, after: int) -> int:
    """Drop the rows of a model that no sample of it can be, and return how many there were; of those above `after` also what is no number.

    Cells then say again how many samples they have.
    """
    x, y = 4 * math.prod(shape.x), 4 * math.prod(shape.y)
    with database.transaction():
        strange = database.all(
            f"SELECT id FROM sample WHERE model=? AND ({_GOOD}) IS NOT 1", model, x, shape.classes, int(shape.x == shape.y), y
        )
        for row in strange:
            database.run("DELETE FROM sample WHERE id=?", row["id"])
        infinite = 0
        for row in database.all("SELECT id FROM sample WHERE model=? AND id>?", model, after):
            found = database.maybe("SELECT x, target FROM sample WHERE id=?", row["id"])  # one at a time: thousands may be large
            if found is not None and not _finite(found):
                infinite += database.run("DELETE FROM sample WHERE id=?", row["id"])
        database.run(
            "UPDATE cell SET samples=(SELECT count(*) FROM sample s WHERE s.cell=cell.id),"
            " bytes=(SELECT coalesce(sum(s.bytes), 0) FROM sample s WHERE s.cell=cell.id) WHERE model=?",
            model,
        )  # fmt: skip
        database.run("DELETE FROM cell WHERE model=? AND samples=0", model)
    return len(strange) + infinite


def _finite(row: Row) -> bool:
    return all(bool(np.isfinite(np.frombuffer(row[name] or b"", "<f4")).all()) for name in ("x", "target"))
