"""What versions and bases have come to on probe sets, in SQLite. Derived: it may be emptied, and is scored again."""

from __future__ import annotations

from collections.abc import Sequence

from edgecloud.registry.rows import EvaluationRow
from edgecommon.sqlite import Database

_AT_ONCE = 500  # numbers in one statement
_COLUMNS = """
  probes BLOB NOT NULL CHECK (length(probes) = 32),
  context TEXT NOT NULL,
  n INTEGER NOT NULL CHECK (n > 0),
  "right" INTEGER CHECK ("right" BETWEEN 0 AND n),
  base_right INTEGER CHECK (base_right BETWEEN 0 AND n),
  loss REAL,
  broken INTEGER NOT NULL CHECK (broken BETWEEN 0 AND n),
  milliseconds REAL NOT NULL CHECK (milliseconds >= 0),
  at INTEGER NOT NULL,
  fault TEXT NOT NULL,
"""
TABLES = f"""
CREATE TABLE evaluation (
  version_id INTEGER NOT NULL REFERENCES version (id),{_COLUMNS}  PRIMARY KEY (version_id, probes, context)
);
CREATE TABLE base_evaluation (
  base BLOB NOT NULL REFERENCES base ("commit"),{_COLUMNS}  PRIMARY KEY (base, probes, context)
)
"""
_OF = 'SELECT {0}, probes, context, n, "right", base_right, loss, broken, milliseconds, at, fault FROM {1}'
_VERSIONS, _BASES = _OF.format("version_id", "evaluation"), _OF.format("base", "base_evaluation")


class SqliteEvaluations:
    """Implements Evaluations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, rows: Sequence[EvaluationRow]) -> None:
        with self._database.transaction():
            for row in rows:
                table = "evaluation" if isinstance(row.subject, int) else "base_evaluation"
                self._database.run(
                    f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    row.subject, row.probes, row.context, row.n, row.right, row.base_right, row.loss, row.broken, row.milliseconds, row.at,
                    row.fault,
                )  # fmt: skip

    def of(self, subject: int | bytes, probes: bytes | None = None) -> list[EvaluationRow]:
        all_of, column = (_VERSIONS, "version_id") if isinstance(subject, int) else (_BASES, "base")
        rows = self._database.all(
            f"{all_of} WHERE {column} = ?1 AND (?2 IS NULL OR probes = ?2) ORDER BY probes, context", subject, probes
        )
        return [EvaluationRow(*row) for row in rows]

    def matrix(
        self, probes: bytes, subjects: Sequence[int | bytes], context: str | None = None
    ) -> dict[int | bytes, dict[str, EvaluationRow]]:
        out: dict[int | bytes, dict[str, EvaluationRow]] = {subject: {} for subject in subjects}
        for all_of, column, kind in ((_VERSIONS, "version_id", int), (_BASES, "base", bytes)):
            some = [subject for subject in out if isinstance(subject, kind)]
            for start in range(0, len(some), _AT_ONCE):
                part = some[start : start + _AT_ONCE]
                where = f"{column} IN ({', '.join('?' * len(part))}) AND probes = ?"
                values: list[object] = [*part, probes]
                if context is not None:
                    where, values = f"{where} AND context = ?", [*values, context]
                for row in self._database.all(f"{all_of} WHERE {where}", *values):
                    out[row[0]][row[2]] = EvaluationRow(*row)
        return out

    def missing(self, probes: bytes, subjects: Sequence[int | bytes]) -> list[int | bytes]:
        return [subject for subject, held in self.matrix(probes, subjects, "").items() if not held]

    def due(self, probes: bytes, model: str, bases: Sequence[bytes], since: int, above: int, limit: int) -> list[int]:
        marks = ", ".join("?" * len(bases))
        rows = self._database.all(
            "SELECT v.id FROM version v JOIN lineage l ON l.id = v.lineage"
            f" WHERE v.id > ? AND v.status = 'verified' AND v.received_at >= ? AND ? IN ('', l.model) AND v.base IN ({marks})"
            " AND NOT EXISTS (SELECT 1 FROM evaluation e WHERE e.version_id = v.id AND e.probes = ? AND e.context = '')"
            " AND NOT EXISTS (SELECT 1 FROM thinned t WHERE t.version_id = v.id AND t.gone = 1) ORDER BY v.id DESC LIMIT ?",
            above, since, model, *bases, probes, limit,
        )  # fmt: skip
        return [int(row[0]) for row in rows]

    def probes(self, subject: int | bytes | None = None) -> list[bytes]:
        if subject is None:
            sql, values = "SELECT probes FROM evaluation UNION SELECT probes FROM base_evaluation ORDER BY 1", list[object]()
        else:
            of = "evaluation WHERE version_id" if isinstance(subject, int) else "base_evaluation WHERE base"
            sql, values = f"SELECT DISTINCT probes FROM {of} = ? ORDER BY 1", [subject]
        return [bytes(row[0]) for row in self._database.all(sql, *values)]

    def drop(self, probes: bytes | None = None) -> int:
        gone = 0
        with self._database.transaction():
            for table in ("evaluation", "base_evaluation"):
                gone += self._database.run(f"DELETE FROM {table} WHERE ?1 IS NULL OR probes = ?1", probes)
        return gone
