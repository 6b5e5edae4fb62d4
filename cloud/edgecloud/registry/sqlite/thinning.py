"""What was dropped, what stands in its place, and which devices are erased, in SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from edgecloud.registry.rows import ErasureRow, SquashRow, ThinnedRow
from edgecloud.registry.seams.trust import Log
from edgecommon.sqlite import Database

from .deleting import NEEDED

_LINEAGES = "SELECT id FROM lineage WHERE device = ?1"
_VERSIONS = f"SELECT id FROM version WHERE lineage IN ({_LINEAGES})"
# What of a table is a device's; those that others refer to come last.
_ROWS: dict[str, str] = {
    **dict.fromkeys(("skipped", "score", "squash", "thinned"), f"version_id IN ({_VERSIONS})"),
    **dict.fromkeys(("head", "version", "command", "wish", "lost", "epoch"), f"lineage IN ({_LINEAGES})"),
    "parked": f"device = ?1 OR lineage IN ({_LINEAGES})",
    **dict.fromkeys(("quarantine", "refusal", "transfer", "alarm", "witness", "rejection", "act"), "device = ?1"),
    "annotation": "kind <> 'base' AND (object = ?1 OR substr(object, 1, length(?1) + 1) = ?1 || '/')",
    **dict.fromkeys(("lineage", "device_key"), "device = ?1"),
    "device": "name = ?1",
}
_NAMED = {"version_id": _VERSIONS, "lineage": _LINEAGES, "device": "SELECT ?1"}  # columns that say whose a row is, in any table
_BY_THEMSELVES = ("erasure", "tally")  # the one names a device until all of it is gone; counters go with what they count


class SqliteThinnings:
    """Implements Thinnings."""

    _SQUASH = "SELECT version_id, from_id, kind, blob, size FROM squash"

    def __init__(self, database: Database, log: Log) -> None:
        self._database, self._log = database, log

    def squash(self, version: int) -> SquashRow | None:
        row = self._database.maybe(f"{self._SQUASH} WHERE version_id = ?", version)
        return None if row is None else SquashRow(*row)

    def squashes(self, lineage: int) -> dict[int, SquashRow]:
        rows = self._database.all(f"{self._SQUASH} WHERE version_id IN (SELECT id FROM version WHERE lineage = ?)", lineage)
        return {row[0]: SquashRow(*row) for row in rows}

    def get(self, version: int) -> ThinnedRow | None:
        row = self._database.maybe("SELECT version_id, gone, at, proof FROM thinned WHERE version_id = ?", version)
        return None if row is None else ThinnedRow(row[0], bool(row[1]), row[2], row[3])

    def of(self, lineage: int) -> dict[int, bool]:
        rows = self._database.all(
            "SELECT t.version_id, t.gone FROM version v JOIN thinned t ON t.version_id = v.id WHERE v.lineage = ?", lineage
        )
        return {version: bool(gone) for version, gone in rows}

    def nearest(self, lineage: int, version: int) -> tuple[int | None, int | None]:
        held = (
            "SELECT version FROM version v WHERE lineage = ? AND version {} ? AND status <> 'refused'"
            " AND NOT EXISTS (SELECT 1 FROM thinned t WHERE t.version_id = v.id AND t.gone = 1) ORDER BY version {} LIMIT 1"
        )
        below = self._database.maybe(held.format("<", "DESC"), lineage, version)
        above = self._database.maybe(held.format(">", "ASC"), lineage, version)
        return None if below is None else below[0], None if above is None else above[0]

    def put(self, squash: SquashRow) -> None:
        self._database.run(
            "INSERT INTO squash VALUES (?, ?, ?, ?, ?) ON CONFLICT (version_id)"
            " DO UPDATE SET from_id = excluded.from_id, kind = excluded.kind, blob = excluded.blob, size = excluded.size",
            squash.version_id, squash.from_id, squash.kind, squash.blob, squash.size,
        )  # fmt: skip

    def drop(self, thinned: ThinnedRow) -> None:
        t = thinned
        with self._database.transaction():
            new = "INSERT INTO thinned VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
            if not self._database.run(new, t.version_id, t.gone, t.at, t.proof) and t.gone:
                self._database.run("UPDATE thinned SET gone = 1, at = ? WHERE version_id = ? AND gone = 0", t.at, t.version_id)
            if t.gone:
                self._database.run("DELETE FROM squash WHERE version_id = ?", t.version_id)

    def enter(self, by: int, gone: Sequence[bytes], squashed: Sequence[tuple[bytes, bytes]]) -> None:
        pairs = b"".join(commit + digest for commit, digest in squashed)
        self._log.append("thin", by=by, gone=b"".join(gone), squashed=pairs)

    def discard(self, blob: bytes) -> None:
        self._database.run("INSERT INTO discard VALUES (?) ON CONFLICT DO NOTHING", blob)

    def discards(self, limit: int) -> list[bytes]:
        return [bytes(row[0]) for row in self._database.all("SELECT sha256 FROM discard ORDER BY sha256 LIMIT ?", limit)]

    def discarded(self, blob: bytes) -> None:
        self._database.run("DELETE FROM discard WHERE sha256 = ?", blob)

    def needed(self, blob: bytes) -> bool:
        return bool(self._database.number(f"SELECT {NEEDED.format('?1')}", blob))


class SqliteErasures:
    """Implements Erasures."""

    def __init__(self, database: Database, log: Log) -> None:
        self._database, self._log = database, log

    def begin(self, erasure: ErasureRow) -> None:
        with self._database.transaction():
            self._database.run("INSERT INTO erasure VALUES (?, ?, ?)", erasure.number, erasure.device, erasure.record)
            self._log.append("erase", record=erasure.record)

    def all(self) -> list[ErasureRow]:
        return [ErasureRow(*row) for row in self._database.all("SELECT number, device, record FROM erasure ORDER BY number")]

    def under_way(self) -> list[str]:
        rows = self._database.all("SELECT DISTINCT device FROM erasure WHERE device IS NOT NULL ORDER BY device")
        return [str(row[0]) for row in rows]

    def replace_entry(self, number: int, entry: bytes) -> None:
        self._database.run("UPDATE log SET entry = ?, subject = x'' WHERE number = ?", entry, number)

    def delete_some(self, device: str, limit: int) -> int:
        with self._database.transaction():
            for table, of, at_once in self._tables():
                if at_once:
                    deleted = self._database.run(f'DELETE FROM "{table}" WHERE {of}', device)
                else:
                    found = self._chosen(table, of, device, limit)
                    deleted = self._delete(table, found) if found else 0
                if deleted:
                    return deleted
        return 0

    def forget_name(self, number: int) -> None:
        self._database.run("UPDATE erasure SET device = '' WHERE number = ?", number)

    def finish(self, number: int) -> None:
        with self._database.transaction():
            self._database.run("DELETE FROM measured")  # it may name the device in its notes, and is measured again
            self._database.run("UPDATE erasure SET device = NULL WHERE number = ?", number)

    def _chosen(self, table: str, of: str, device: str, limit: int) -> list[int]:
        # The newest first: a version's parent has the lower id.
        rows = self._database.all(f'SELECT rowid FROM "{table}" WHERE {of} ORDER BY rowid DESC LIMIT ?2', device, limit)
        return [int(row[0]) for row in rows]

    def _delete(self, table: str, rows: list[int]) -> int:
        marks = ", ".join("?" * len(rows))
        blobs: list[bytes] = []
        if table in ("version", "squash"):
            blobs = [bytes(row[0]) for row in self._database.all(f"SELECT blob FROM {table} WHERE rowid IN ({marks})", *rows)]
        deleted = self._database.run(f'DELETE FROM "{table}" WHERE rowid IN ({marks})', *rows)
        for blob in blobs:
            if not self._database.number(f"SELECT {NEEDED.format('?1')}", blob):
                self._database.run("INSERT INTO discard VALUES (?) ON CONFLICT DO NOTHING", blob)
        return deleted

    def _tables(self) -> list[tuple[str, str, bool]]:
        """Return the tables in which a device has rows, in the order in which they go: name, which rows, and whether all go at once.

        Those besides ours whose rows are of a version, a lineage or a device, by the names of their columns, are derived, and go as well:
        of versions before these, so that they are counted until they are gone, all others behind them.
        """
        before, behind = list[tuple[str, str, bool]](), list[tuple[str, str, bool]]()
        for name, made in self._database.all("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name"):
            columns = [str(row[1]) for row in self._database.all(f'PRAGMA table_info("{name}")')]
            of = [f'"{column}" IN ({_NAMED[column]})' for column in columns if column in _NAMED]
            if of and name not in _ROWS and name not in _BY_THEMSELVES:
                one = str(name), " OR ".join(of), "WITHOUT ROWID" in str(made).upper()
                (before if "version_id" in columns else behind).append(one)
        own = [(name, of, False) for name, of in _ROWS.items()]
        versions = next(i for i, one in enumerate(own) if one[0] == "version") + 1
        return [*before, *own[:versions], *behind, *own[versions:]]
