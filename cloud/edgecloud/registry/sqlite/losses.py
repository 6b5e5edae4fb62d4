"""What boards say against this registry, in SQLite: numbers that it holds no more, links of its log that it has not; and alarms."""

from __future__ import annotations

from edgecloud.registry.rows import AlarmRow, LostRow, WitnessRow
from edgecommon.sqlite import Database


class SqliteLosses:
    """Implements Losses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, lost: LostRow) -> None:
        self._database.run(
            "INSERT INTO lost VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", lost.lineage, lost.epoch, lost.version, lost.held, lost.at
        )

    def of(self, lineage: int) -> list[LostRow]:
        rows = self._database.all("SELECT lineage, epoch, version, held, at FROM lost WHERE lineage = ? ORDER BY version, epoch", lineage)
        return [LostRow(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]

    def holds(self, lineage: int, epoch: int, version: int) -> bool:
        found = "SELECT 1 FROM lost WHERE lineage = ? AND version = ? AND epoch = ?"
        return self._database.maybe(found, lineage, version, epoch) is not None

    def count(self, lineage: int) -> int:
        return self._database.number("SELECT count(*) FROM lost WHERE lineage = ?", lineage)

    def testify(self, witness: WitnessRow, keep: int) -> bool:
        new = self._database.run(
            "INSERT INTO witness SELECT ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM witness WHERE device = ?) < ? ON CONFLICT DO NOTHING",
            witness.device, witness.number, witness.digest, witness.ours, witness.at, witness.device, keep,
        )  # fmt: skip
        return new == 1

    def witnesses(self, device: str | None = None) -> list[WitnessRow]:
        rows = self._database.all(
            "SELECT device, number, digest, ours, at FROM witness WHERE ?1 IS NULL OR device = ?1 ORDER BY device, at, number", device
        )
        return [WitnessRow(*row) for row in rows]

    def raise_alarm(self, alarm: AlarmRow) -> bool:
        key = alarm.device, alarm.model, alarm.kind
        with self._database.transaction():
            known = self._database.maybe("SELECT seen_at FROM alarm WHERE device = ? AND model = ? AND kind = ?", *key)
            self._database.run(
                "INSERT INTO alarm (device, model, kind, text, first_at, last_at, times) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)"
                " ON CONFLICT (device, model, kind) DO UPDATE SET text = ?4, last_at = ?5, seen_at = 0,"
                " first_at = CASE WHEN seen_at > 0 THEN ?5 ELSE first_at END,"
                " times = CASE WHEN seen_at > 0 THEN ?6 ELSE times + ?6 END",
                *key, alarm.text, alarm.last_at, alarm.times,
            )  # fmt: skip
        return known is None or known[0] > 0

    def alarms(self, device: str | None = None, *, only_open: bool = False) -> list[AlarmRow]:
        rows = self._database.all(
            "SELECT device, model, kind, text, last_at, first_at, times, seen_at FROM alarm"
            " WHERE (?1 IS NULL OR device = ?1) AND (NOT ?2 OR seen_at = 0) ORDER BY first_at, device, model, kind",
            device, only_open,
        )  # fmt: skip
        return [AlarmRow(*row) for row in rows]

    def acknowledge(self, device: str, now: int) -> int:
        return self._database.run("UPDATE alarm SET seen_at = ? WHERE device = ? AND seen_at = 0", max(1, now), device)
