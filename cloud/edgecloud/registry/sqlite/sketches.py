"""Sketches of versions in SQLite: derived data, a row of 1,024 bytes a version."""

from __future__ import annotations

from collections.abc import Sequence

from edgecommon.sqlite import Database

_AT_ONCE = 500  # numbers in one statement
_GONE = "EXISTS (SELECT 1 FROM thinned t WHERE t.version_id = v.id AND t.gone = 1)"
# Numbers rise over all epochs of a lineage, so the newest one is found by the index that keeps them unique.
_NEWEST = (
    f"SELECT v.id FROM version v WHERE v.lineage = l.id AND v.status = 'verified' AND NOT {_GONE} ORDER BY v.version DESC LIMIT 1"
)
TABLES = """
CREATE INDEX version_root ON version (substr(root, 1, 8));
CREATE TABLE sketch (
  version_id INTEGER PRIMARY KEY REFERENCES version (id),
  counts BLOB NOT NULL CHECK (typeof(counts) = 'blob' AND length(counts) = 1024)
)
"""


class SqliteSketches:
    """Implements Sketches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, version_id: int, counts: bytes) -> None:
        self._database.run("INSERT INTO sketch VALUES (?, ?) ON CONFLICT DO UPDATE SET counts = excluded.counts", version_id, counts)

    def get(self, version_id: int) -> bytes | None:
        row = self._database.maybe("SELECT counts FROM sketch WHERE version_id = ?", version_id)
        return None if row is None else bytes(row[0])

    def of(self, version_ids: Sequence[int]) -> dict[int, bytes]:
        out: dict[int, bytes] = {}
        for start in range(0, len(version_ids), _AT_ONCE):
            some = version_ids[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            rows = self._database.all(f"SELECT version_id, counts FROM sketch WHERE version_id IN ({marks})", *some)
            out.update((row[0], row[1]) for row in rows)
        return out

    def heads(self, base: bytes) -> list[tuple[int, bytes | None]]:
        return self._found(
            f"SELECT n.id, s.counts FROM (SELECT ({_NEWEST}) AS id FROM lineage l) n JOIN version v ON v.id = n.id"
            " LEFT JOIN sketch s ON s.version_id = n.id WHERE v.base = ? ORDER BY n.id",
            base,
        )

    def every(self, base: bytes, after: int = 0, limit: int = -1) -> list[tuple[int, bytes | None]]:
        return self._found(
            "SELECT v.id, s.counts FROM version v LEFT JOIN sketch s ON s.version_id = v.id"
            f" WHERE v.base = ? AND v.id > ? AND v.status = 'verified' AND NOT {_GONE} ORDER BY v.id LIMIT ?",
            base, after, limit,
        )  # fmt: skip

    def missing(self, after: int, limit: int) -> list[int]:
        rows = self._database.all(
            f"SELECT v.id FROM version v WHERE v.id > ? AND v.status = 'verified' AND NOT {_GONE}"
            " AND NOT EXISTS (SELECT 1 FROM sketch s WHERE s.version_id = v.id) ORDER BY v.id LIMIT ?",
            after, limit,
        )  # fmt: skip
        return [int(row[0]) for row in rows]

    def models(self) -> dict[bytes, int]:
        rows = self._database.all(
            f"SELECT v.base, count(*) FROM (SELECT ({_NEWEST}) AS id FROM lineage l) n JOIN version v ON v.id = n.id GROUP BY v.base"
        )
        return {row[0]: row[1] for row in rows}

    def with_root(self, root: bytes) -> list[int]:
        rows = self._database.all(
            "SELECT id FROM version WHERE substr(root, 1, 8) = substr(?1, 1, 8) AND root = ?1 AND status = 'verified' ORDER BY id", root
        )
        return [int(row[0]) for row in rows]

    def judged(self) -> int:
        first = "SELECT min(id) - 1 FROM version WHERE status = 'stored'"
        return self._database.number(f"SELECT coalesce(({first}), (SELECT max(id) FROM version), 0)")

    def drop(self) -> int:
        return self._database.run("DELETE FROM sketch")

    def _found(self, statement: str, *values: object) -> list[tuple[int, bytes | None]]:
        return [(row[0], row[1]) for row in self._database.all(statement, *values)]
