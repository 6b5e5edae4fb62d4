"""What boards say against this registry, in SQLite: version numbers that it holds no more, and links of its log that it has not."""

from __future__ import annotations

from edgecommon.sqlite import Database

from .rows import LostRow, WitnessRow


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
