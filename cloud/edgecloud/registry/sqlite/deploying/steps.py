"""What a director asks at each of its steps, in SQLite."""

from __future__ import annotations

from collections.abc import Iterable

from edgecloud.registry.rollout_rows import PAUSED, ROLLING_BACK, RUNNING, SOAKING, WAITING, AssignmentRow, RolloutCandidate
from edgecommon.sqlite import Database
from modelwire.deploying.states import State

from .rollouts import SqliteRollouts, assignment_of

_HEAD_BASE = (
    "SELECT coalesce(v.base, e.base) FROM epoch e LEFT JOIN head h ON h.lineage = e.lineage AND h.epoch = e.epoch"
    " LEFT JOIN version v ON v.id = h.version_id WHERE e.lineage = {} ORDER BY e.epoch DESC LIMIT 1"
)
_UNDER_WAY = ", ".join(f"'{state}'" for state in (RUNNING, SOAKING, PAUSED, ROLLING_BACK))


class SqliteRolloutSteps:
    """Implements RolloutSteps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def candidates(self, id: int, after: int, span: int) -> list[RolloutCandidate]:
        rows = self._database.all(
            f"SELECT l.id, l.device, ({_HEAD_BASE.format('l.id')}) AS base, coalesce(l.runtime, '') FROM lineage l"
            " JOIN rollout r ON r.id = ?1"
            " WHERE l.id > ?2 AND l.id <= ?2 + ?3 AND l.model = r.model"
            " AND EXISTS (SELECT 1 FROM device_key k WHERE k.device = l.device AND k.revoked_at IS NULL)"
            " AND NOT EXISTS (SELECT 1 FROM frozen f WHERE f.device = l.device AND f.model IN (l.model, ''))"
            " AND NOT EXISTS (SELECT 1 FROM assignment a JOIN rollout o ON o.id = a.rollout_id WHERE a.lineage = l.id"
            f" AND (o.id = r.id OR o.state IN ({_UNDER_WAY})))"
            " AND base IS NOT NULL AND base <> r.variant ORDER BY l.id",
            id, after, span,
        )  # fmt: skip
        return [RolloutCandidate(*row) for row in rows]

    def last_lineage(self) -> int:
        return self._database.number("SELECT coalesce(max(id), 0) FROM lineage")

    def base_of(self, lineage: int) -> bytes:
        row = self._database.maybe(_HEAD_BASE.format("?"), lineage)
        return b"" if row is None else bytes(row[0])

    def assigned_count(self, id: int, phase: int | None = None) -> int:
        only, values = ("", (id,)) if phase is None else (" AND phase = ?", (id, phase))
        return self._database.number(f"SELECT count(*) FROM assignment INDEXED BY assignment_stands WHERE rollout_id = ?{only}", *values)

    def frozen_count(self, id: int, phase: int) -> int:
        return self._database.number(
            "SELECT count(*) FROM frozen f JOIN lineage l ON l.device = f.device AND f.model IN (l.model, '')"
            " JOIN assignment a ON a.lineage = l.id WHERE a.rollout_id = ? AND a.phase = ? AND a.back = 0"
            f" AND a.state IN ('{WAITING}', '{State.OFFERED.value}')"
            " AND NOT (f.model <> '' AND EXISTS (SELECT 1 FROM frozen g WHERE g.device = f.device AND g.model = ''))",
            id, phase,
        )  # fmt: skip

    def offers_between(self, id: int, since: int, until: int, most: int) -> int:
        newest = "SELECT at FROM desired WHERE rollout_id = ? ORDER BY id DESC LIMIT ?"
        return self._database.number(f"SELECT count(*) FROM ({newest}) WHERE at > ? AND at <= ?", id, most, since, until)

    def scores(self, id: int, phase: int, limit: int) -> list[AssignmentRow]:
        where = "WHERE a.rollout_id = ? AND a.phase = ? AND a.rows > 0 ORDER BY a.id LIMIT ?"
        return [assignment_of(row) for row in self._database.all(f"{SqliteRollouts.ASSIGNED} {where}", id, phase, limit)]

    def under_way(
        self, id: int, states: Iterable[str], *, back: bool, before: int, after: int = 0, limit: int
    ) -> list[AssignmentRow]:  # fmt: skip
        named = tuple(states)
        rows = self._database.all(
            f"{SqliteRollouts.ASSIGNED} WHERE a.rollout_id = ? AND a.lineage > ? AND a.state IN ({', '.join('?' * len(named))})"
            " AND a.back = ? AND a.offered_at < ?"
            " AND NOT EXISTS (SELECT 1 FROM desired d WHERE d.lineage = a.lineage AND d.number > a.number) ORDER BY a.lineage LIMIT ?",
            id, after, *named, int(back), before, limit,
        )  # fmt: skip
        return [assignment_of(row) for row in rows]
