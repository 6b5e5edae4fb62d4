"""Deployments in SQLite."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from edgecloud.registry.rollout_rows import (
    APPROVED,
    DRAFT,
    ENDED,
    RUNNING,
    WAITING,
    AssignmentRow,
    DecisionRow,
    DesiredRow,
    FrozenRow,
    ReportRow,
    RolloutRow,
    RolloutTally,
    VariantRow,
)
from edgecloud.registry.seams.rollouts import ReportTaken
from edgecloud.registry.seams.trust import Log
from edgecommon.sqlite import Database, Row
from modelwire.deploying.plans import RolloutPlan
from modelwire.deploying.reports import Code, DeviceFigures
from modelwire.deploying.states import FINAL, State
from modelwire.errors import LineageError
from modelwire.wire.records import Report

ID_DIGITS = 8  # of a rollout's id in hex, below which it names none
# How far a state is on the way; what a device said before and comes late never takes it back.
_REACHED = MappingProxyType({
    WAITING: -1, State.OFFERED.value: 0, State.FETCHING.value: 1, State.STAGED.value: 2, State.PROBING.value: 3, State.SOAKING.value: 4,
    **{state.value: 5 for state in FINAL},
})  # fmt: skip


class SqliteRollouts:
    """Implements Rollouts."""

    _VARIANT = 'SELECT "commit", model, number, name, statement, at FROM variant'
    _ROLLOUT = "SELECT id, rollout, name, model, variant, plan, state, phase, reason, created_at, phase_at, changed_at FROM rollout"
    ASSIGNED = (
        "SELECT a.rollout_id, a.lineage, l.device, l.model, a.phase, a.state, a.number, a.code, a.reason, a.before, a.after, a.accuracy,"
        " a.rows, a.better, a.worse, a.micros, a.micros_before, a.learned, a.bytes, a.offered_at, a.changed_at, a.back"
        " FROM assignment a JOIN lineage l ON l.id = a.lineage"
    )
    _DESIRED = "SELECT lineage, number, rollout_id, variant, record, expiry, at, ended, id FROM desired"
    _FROZEN = "SELECT 1 FROM frozen f WHERE f.device = {} AND f.model IN ({}, '')"

    def __init__(self, database: Database, log: Log) -> None:
        self._database, self._log = database, log

    def add_variant(self, variant: VariantRow) -> None:
        v = variant
        with self._database.transaction():
            newest = self._database.number("SELECT coalesce(max(number), 0) FROM variant WHERE model = ?", v.model)
            if v.number <= newest:
                raise LineageError(reason=f"variant {v.number} of {v.model} does not follow variant {newest}: numbers only rise")
            self._database.run(
                'INSERT INTO variant ("commit", model, number, name, statement, at) VALUES (?, ?, ?, ?, ?, ?)',
                v.commit, v.model, v.number, v.name, v.statement, v.at,
            )  # fmt: skip
            self._log.append("variant", record=v.statement)

    def variant(self, commit: bytes) -> VariantRow | None:
        row = self._database.maybe(f'{self._VARIANT} WHERE "commit" = ? ORDER BY number DESC, at DESC LIMIT 1', commit)
        return None if row is None else VariantRow(*row)

    def variants(self, model: str | None = None) -> list[VariantRow]:
        where, values = ("", ()) if model is None else (" WHERE model = ?", (model,))
        return [VariantRow(*row) for row in self._database.all(f"{self._VARIANT}{where} ORDER BY model, number", *values)]

    def add(self, plan: bytes, said: RolloutPlan, now: int) -> RolloutRow:
        with self._database.transaction():
            if self.get(said.rollout) is not None:
                raise LineageError(reason=f"there is a rollout {said.rollout.hex()[:ID_DIGITS]}: a plan never changes")
            if said.name and self._first("WHERE name = ?", said.name) is not None:
                raise LineageError(reason=f"there is a rollout {said.name!r}", fix="name this one otherwise")
            id = self._database.insert(
                "rollout", rollout=said.rollout, name=said.name, model=said.model, variant=said.variant, plan=plan, state=DRAFT,
                created_at=now, phase_at=now, changed_at=now,
            )  # fmt: skip
            self._log.append("plan", record=plan)
        return self.by_id(id)

    def get(self, rollout: bytes) -> RolloutRow | None:
        return self._first("WHERE rollout = ?", rollout)

    def by_id(self, id: int) -> RolloutRow:
        found = self._first("WHERE id = ?", id)
        if found is None:
            raise LineageError(reason=f"there is no rollout {id}")
        return found

    def named(self, text: str) -> RolloutRow | None:
        found = self._first("WHERE name = ? AND name <> ''", text)
        if found is not None or len(text) < ID_DIGITS or text.strip("0123456789abcdef"):
            return found
        low, high = text.ljust(32, "0"), text.ljust(32, "f")
        if len(low) != 32:
            return None
        rows = self._database.all(f"{self._ROLLOUT} WHERE rollout BETWEEN ? AND ? LIMIT 2", bytes.fromhex(low), bytes.fromhex(high))
        return RolloutRow(*rows[0]) if len(rows) == 1 else None

    def all(self, *, ended: bool = True) -> list[RolloutRow]:
        rows = [RolloutRow(*row) for row in self._database.all(f"{self._ROLLOUT} ORDER BY id")]
        return [row for row in rows if ended or row.state not in ENDED]

    def move(
        self, id: int, *, state: str | None = None, phase: int | None = None, reason: str | None = None, now: int
    ) -> RolloutRow:
        with self._database.transaction():
            row = self.by_id(id)
            anew = phase not in (None, row.phase) or (state == RUNNING and row.state in (DRAFT, APPROVED))
            self._database.run(
                "UPDATE rollout SET state = ?, phase = ?, reason = ?, phase_at = ?, changed_at = ? WHERE id = ?",
                row.state if state is None else state, row.phase if phase is None else phase,
                row.reason if reason is None else reason, now if anew else row.phase_at, now, id,
            )  # fmt: skip
        return self.by_id(id)

    def decide(self, id: int, number: int, statement: bytes, now: int, *, beside: Iterable[int] = ()) -> None:
        with self._database.transaction():
            held = {one.number for one in self.decisions(id)}
            newest = max(held - set(beside), default=0)
            if number <= newest or number in held:
                raise LineageError(reason=f"decision {number} does not follow decision {newest} about this rollout: numbers only rise")
            self._database.run("INSERT INTO decision VALUES (?, ?, ?, ?)", id, number, statement, now)
            self._log.append("decision", record=statement)

    def decisions(self, id: int) -> list[DecisionRow]:
        rows = self._database.all("SELECT rollout_id, number, statement, at FROM decision WHERE rollout_id = ? ORDER BY number", id)
        return [DecisionRow(*row) for row in rows]

    def assign(self, id: int, lineages: Iterable[int], phase: int, now: int) -> int:
        new = "INSERT INTO assignment (rollout_id, lineage, phase, changed_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        with self._database.transaction():
            return sum(self._database.run(new, id, lineage, phase, now) for lineage in lineages)

    def assignments(self, id: int, phase: int | None = None, states: Iterable[str] = ()) -> list[AssignmentRow]:
        where, values = "WHERE a.rollout_id = ?", [id, *states]
        if len(values) > 1:
            where += f" AND a.state IN ({', '.join('?' * (len(values) - 1))})"
        if phase is not None:
            where, values = f"{where} AND a.phase = ?", [*values, phase]
        return [assignment_of(row) for row in self._database.all(f"{self.ASSIGNED} {where} ORDER BY a.phase, a.id", *values)]

    def assignment(self, id: int, lineage: int) -> AssignmentRow | None:
        row = self._database.maybe(f"{self.ASSIGNED} WHERE a.rollout_id = ? AND a.lineage = ?", id, lineage)
        return None if row is None else assignment_of(row)

    def assigned(self, lineage: int) -> list[AssignmentRow]:
        return [assignment_of(row) for row in self._database.all(f"{self.ASSIGNED} WHERE a.lineage = ? ORDER BY a.rollout_id", lineage)]

    def waiting(self, id: int, limit: int, phase: int | None = None) -> list[AssignmentRow]:
        upto = "" if phase is None else " AND a.phase <= ?3"
        rows = self._database.all(
            f"{self.ASSIGNED} WHERE a.rollout_id = ?1 AND a.state = '{WAITING}'{upto}"
            f" AND NOT EXISTS ({self._FROZEN.format('l.device', 'l.model')}) ORDER BY a.phase, a.id LIMIT ?2",
            *(id, limit, *(() if phase is None else (phase,))),
        )
        return [assignment_of(row) for row in rows]

    def tallies(self, id: int) -> list[RolloutTally]:
        rows = self._database.all(
            "SELECT phase, state, code, back, count(*), sum(rows), sum(better), sum(worse) FROM assignment INDEXED BY assignment_stands"
            " WHERE rollout_id = ? GROUP BY phase, state, code, back",
            id,
        )
        return [RolloutTally(row[0], row[1], row[2], bool(row[3]), *row[4:]) for row in rows]

    def put_desired(self, row: DesiredRow) -> DesiredRow:
        d = row
        with self._database.transaction():
            newest, rollout = self.newest_desired(d.lineage), self.by_id(d.rollout_id)
            if newest is not None and d.number <= newest.number:
                raise LineageError(reason=f"desired {d.number} does not follow desired {newest.number} of its model: numbers only rise")
            id = self._database.insert(
                "desired", lineage=d.lineage, number=d.number, rollout_id=d.rollout_id, variant=d.variant, record=d.record, expiry=d.expiry,
                at=d.at,
            )  # fmt: skip
            moved = self._database.run(
                f"UPDATE assignment SET state = '{State.OFFERED.value}', number = ?, back = ?, code = '', reason = '', offered_at = ?,"
                " changed_at = ? WHERE rollout_id = ? AND lineage = ?",
                d.number, d.variant != rollout.variant, d.at, d.at, d.rollout_id, d.lineage,
            )  # fmt: skip
            if not moved:
                raise LineageError(reason=f"the model that desired {d.number} is for is not in the rollout {rollout.rollout.hex()[:8]}")
            self._log.append("desired", record=d.record)
        return DesiredRow(d.lineage, d.number, d.rollout_id, d.variant, d.record, d.expiry, d.at, 0, id)

    def desired(self, lineage: int) -> list[DesiredRow]:
        return [DesiredRow(*row) for row in self._database.all(f"{self._DESIRED} WHERE lineage = ? ORDER BY number", lineage)]

    def newest_desired(self, lineage: int) -> DesiredRow | None:
        row = self._database.maybe(f"{self._DESIRED} WHERE lineage = ? ORDER BY number DESC LIMIT 1", lineage)
        return None if row is None else DesiredRow(*row)

    def open_desired(self, now: int, after: int, limit: int = 1000) -> list[DesiredRow]:
        rows = self._database.all(
            f"{self._DESIRED} d INDEXED BY desired_open WHERE ended = 0 AND id > ? AND expiry >= ?"
            " AND NOT EXISTS (SELECT 1 FROM desired n WHERE n.lineage = d.lineage AND n.number > d.number) ORDER BY id LIMIT ?",
            after, now, limit,
        )  # fmt: skip
        return [DesiredRow(*row) for row in rows]

    def desired_for_hello(self, lineage: int, now: int) -> DesiredRow | None:
        newest = self.newest_desired(lineage)
        if newest is None or newest.ended:
            return None
        # Who has said how far it is took it in time: its last report may be what a broker lost.
        return newest if newest.expiry >= now or self.reports(lineage, newest.number) else None

    def take_report(self, lineage: int, report: Report, figures: DeviceFigures | None, data: bytes, now: int) -> ReportTaken:
        r, state = report, State(report.state)
        with self._database.transaction():
            row = self._database.maybe(f"{self._DESIRED} WHERE lineage = ? AND number = ?", lineage, r.number)
            if row is None:
                return ReportTaken.UNKNOWN
            held = self._database.maybe(
                "SELECT record FROM report WHERE lineage = ? AND number = ? AND state = ?", lineage, r.number, state.value
            )
            if held is not None and held[0] == data:
                return ReportTaken.REPEATED
            self._database.run(
                "INSERT INTO report (lineage, number, state, record, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (lineage, number, state)"
                " DO UPDATE SET record = excluded.record, at = excluded.at",
                lineage, r.number, state.value, data, now,
            )  # fmt: skip
            desired = DesiredRow(*row)
            moved = not desired.ended and self._move_on(desired, r, figures, now)
            if state in FINAL and not desired.ended:
                self._end(desired, now)
        return ReportTaken.APPLIED if moved else ReportTaken.LATE

    def reports(self, lineage: int, number: int | None = None) -> list[ReportRow]:
        only, values = ("", (lineage,)) if number is None else (" AND number = ?", (lineage, number))
        rows = self._database.all(
            f"SELECT lineage, number, state, record, at FROM report WHERE lineage = ?{only} ORDER BY number, at, id", *values
        )
        return [ReportRow(*row) for row in rows]

    def freeze(self, frozen: FrozenRow) -> None:
        f = frozen
        self._database.run(
            "INSERT INTO frozen VALUES (?, ?, ?, ?, ?) ON CONFLICT (device, model)"
            ' DO UPDATE SET reason = excluded.reason, "by" = excluded."by", at = excluded.at',
            f.device, f.model, f.reason, f.by, f.at,
        )  # fmt: skip

    def unfreeze(self, device: str, model: str = "") -> bool:
        return self._database.run("DELETE FROM frozen WHERE device = ? AND model = ?", device, model) == 1

    def frozen(self) -> list[FrozenRow]:
        return [FrozenRow(*row) for row in self._database.all('SELECT device, model, reason, "by", at FROM frozen ORDER BY device, model')]

    def is_frozen(self, device: str, model: str) -> bool:
        return self._database.maybe(self._FROZEN.format("?", "?"), device, model) is not None

    def forget_plan(self, id: int) -> None:
        self._database.run("UPDATE rollout SET plan = x'' WHERE id = ?", id)

    def _move_on(self, desired: DesiredRow, said: Report, figures: DeviceFigures | None, now: int) -> bool:
        """Bring a report into its assignment, where that waits for it; return whether it did."""
        now_at = self.assignment(desired.rollout_id, desired.lineage)
        over = self.by_id(desired.rollout_id).state in ENDED
        if now_at is None or over or now_at.number != said.number or _REACHED[said.state] < _REACHED[now_at.state]:
            return False
        f = figures if figures is not None else DeviceFigures()
        which = desired.rollout_id, desired.lineage
        self._database.run(
            "UPDATE assignment SET state = ?, code = ?, reason = ?, changed_at = ? WHERE rollout_id = ? AND lineage = ?",
            said.state, f.code, said.reason, now, *which,
        )  # fmt: skip
        if not now_at.back:
            self._database.run(
                "UPDATE assignment SET before = ?, after = ?, accuracy = ?, rows = ?, better = ?, worse = ?, micros = ?, micros_before = ?,"
                " learned = ?, bytes = max(bytes, ?) WHERE rollout_id = ? AND lineage = ?",
                said.before, said.after, f.accuracy, f.rows, f.better, f.worse, f.micros, f.micros_before, f.learned, said.bytes, *which,
            )  # fmt: skip
        return True

    def _end(self, desired: DesiredRow, now: int) -> None:
        """End a desired and those before it: a device takes a number only when it is through with all below."""
        rows = self._database.all(
            "SELECT rollout_id, number FROM desired WHERE lineage = ? AND number < ? AND ended = 0", desired.lineage, desired.number
        )
        for rollout, number in rows:  # the device did not say how these ended
            if self.by_id(rollout).state in ENDED:
                continue
            self._database.run(
                f"UPDATE assignment SET state = CASE WHEN state IN ('{State.PROBING.value}', '{State.SOAKING.value}') THEN"
                f" '{State.REVERTED.value}' ELSE '{State.REFUSED.value}' END, code = '{Code.SUPERSEDED}', changed_at = ?"
                " WHERE rollout_id = ? AND lineage = ? AND number = ?",
                now, rollout, desired.lineage, number,
            )  # fmt: skip
        self._database.run(
            "UPDATE desired SET ended = ? WHERE lineage = ? AND number <= ? AND ended = 0", now, desired.lineage, desired.number
        )

    def _first(self, where: str, *values: object) -> RolloutRow | None:
        row = self._database.maybe(f"{self._ROLLOUT} {where}", *values)
        return None if row is None else RolloutRow(*row)


def assignment_of(row: Row) -> AssignmentRow:
    """Return a row of `ASSIGNED`."""
    values = list(row)
    values[11], values[-1] = bool(row[11]), bool(row[-1])
    return AssignmentRow(*values)
