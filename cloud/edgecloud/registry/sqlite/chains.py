"""The versions' rows as arrays of numbers, for what looks at all of a fleet at once: a million of them in about a second."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecommon.sqlite import Database
from modelwire.errors import RegistryDamaged

I64: TypeAlias = NDArray[np.int64]

AT_ONCE = 50_000  # row numbers that one statement covers
LARGEST = 1 << 48  # bytes of a version, above which a row was written by another program
# One number for kind and parent: each more that SQLite writes as text costs as much as the others.
_CODE = "CASE kind WHEN 'delta' THEN 0 WHEN 'exact' THEN 1 WHEN 'recipe' THEN 2 ELSE 3 END + 4 * (parent_id IS NULL)"
_COLUMNS = ("id", "lineage", "size", _CODE, "received_at")


def verified(database: Database, device: str | None = None, *, times: bool = True) -> list[I64]:
    """Return id, lineage, bytes, kind (delta 0, exact 1, recipe 2, snapshot 3), whether on a base, and time of all verified versions.

    Arrays of one length, by lineage and in the order of linking. device: of this one alone. times: without, the last one is 0.
    Raises RegistryDamaged for a row that holds no numbers.
    """
    chosen = _COLUMNS if times else _COLUMNS[:-1]
    said = ", ".join(f"group_concat({column})" for column in chosen)
    only, values = ("", []) if device is None else (" AND lineage IN (SELECT id FROM lineage WHERE device = ?)", [device])
    if device is None:
        last = database.number("SELECT coalesce(max(id), 0) FROM version")
        spans = [(low, min(low + AT_ONCE - 1, last)) for low in range(1, last + 1, AT_ONCE)]
    else:
        spans = [(1, (1 << 63) - 1)]
    parts = []
    for low, high in spans:
        row = database.one(f"SELECT {said} FROM version WHERE status = 'verified' AND id BETWEEN ? AND ?{only}", low, high, *values)
        if row[0] is not None:
            parts.append([_numbers(text, database) for text in row])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.zeros(0, np.int64)] * len(chosen)
    if len({len(column) for column in columns}) != 1 or (len(columns[2]) and not 0 <= columns[2].min() <= columns[2].max() < LARGEST):
        raise RegistryDamaged(path=database.path, reason="rows of its versions hold no numbers where there must be some")
    if not times:
        columns.append(np.zeros_like(columns[0]))
    order = np.lexsort((columns[0], columns[1]))
    id_, lineage, size, code, at = (column[order] for column in columns)
    return [id_, lineage, size, code & 3, code >> 2, at]


def pairs(database: Database, sql: str, *values: object) -> tuple[I64, I64]:
    """Return the two columns of numbers that a query gives, in the order of the first."""
    rows = database.all(sql, *values)
    found = np.array([(row[0], row[1]) for row in rows], np.int64).reshape(-1, 2)
    order = np.argsort(found[:, 0], kind="stable")
    return found[order, 0], found[order, 1]


def _numbers(text: str, database: Database) -> I64:
    """Return the numbers in a text, which SQLite wrote of one column."""
    if not isinstance(text, str) or text.encode().translate(None, b"0123456789,-"):
        raise RegistryDamaged(path=database.path, reason="rows of its versions hold no numbers where there must be some")
    return np.fromstring(text, np.int64, sep=",")
