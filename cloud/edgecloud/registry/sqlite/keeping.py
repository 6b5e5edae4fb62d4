"""Kept states and store policies in SQLite. Small states are in the database, large ones in files beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from edgecloud.registry.blobs import FileBlobs
from edgecloud.registry.rows import CompactedRow, PolicyRow, StateRow, Status, VersionLink
from edgecommon.sqlite import Database, Row
from modelwire.errors import RegistryDamaged

DEFAULT_PROMISE, KEEP_ALL = "2 states", "all"
DROP = "edgecloud compact makes it again"
_BEFORE = "CASE WHEN q.blob IS NULL THEN v.parent_id ELSE q.from_id END"
_KIND = "coalesce(q.kind, v.kind)"
_GONE = "EXISTS (SELECT 1 FROM thinned t WHERE t.version_id = v.id AND t.gone = 1)"
# A squash stands in the place of a version's own update, of which nothing is left. To what is gone nothing leads.
_LINK = (
    f"v.id, {_BEFORE}, {_KIND}, v.base, coalesce(q.blob, v.blob), coalesce(q.size, v.size),"
    f" CASE WHEN {_GONE} THEN 'refused' ELSE v.status END"
)
_SQUASHED = "LEFT JOIN squash q ON q.version_id = v.id"
_AT_ONCE = 500  # numbers in one statement


class SqliteStates:
    """Implements States."""

    _ALL = "SELECT version_id, lineage, digest, size, kept_at FROM state"

    def __init__(self, database: Database, files: FileBlobs, files_from: int) -> None:
        self._database, self._files, self._files_from = database, files, files_from

    def put(self, version_id: int, lineage: int, data: bytes, now: int) -> StateRow:
        kept = self.row(version_id)
        if kept is not None:
            return kept
        small = len(data) < self._files_from
        digest = hashlib.sha256(data).digest() if small else self._files.put(data)
        self._database.run(
            "INSERT INTO state VALUES (?, ?, ?, ?, ?, ?)", version_id, lineage, digest, len(data), now, data if small else None
        )
        return StateRow(version_id, lineage, digest, len(data), now)

    def get(self, version_id: int) -> bytes | None:
        row = self._database.maybe("SELECT digest, bytes, size FROM state WHERE version_id = ?", version_id)
        if row is None:
            return None
        try:
            data = self._files.get(row[0]) if row[1] is None else bytes(row[1])
        except RegistryDamaged as error:
            raise _damaged(version_id, self._database, error.message) from None
        if row[1] is not None and hashlib.sha256(data).digest() != row[0]:
            raise _damaged(version_id, self._database, "its bytes have changed")
        if len(data) != row[2]:  # all that is said of what keeping states costs is counted from it
            raise _damaged(version_id, self._database, f"its row says {row[2]} bytes, and it has {len(data)}")
        return data

    def drop(self, version_ids: Sequence[int]) -> None:
        with self._database.transaction():
            for version_id in version_ids:
                self._database.run("DELETE FROM state WHERE version_id = ?", version_id)

    def row(self, version_id: int) -> StateRow | None:
        row = self._database.maybe(f"{self._ALL} WHERE version_id = ?", version_id)
        return None if row is None else StateRow(*row)

    def of(self, lineage: int) -> list[StateRow]:
        return [StateRow(*row) for row in self._database.all(f"{self._ALL} WHERE lineage = ? ORDER BY version_id", lineage)]

    def sizes(self, version_ids: Sequence[int]) -> dict[int, int]:
        out: dict[int, int] = {}
        for start in range(0, len(version_ids), _AT_ONCE):
            some = version_ids[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            rows = self._database.all(f"SELECT version_id, size FROM state WHERE version_id IN ({marks})", *some)
            out.update((row[0], row[1]) for row in rows)
        return out

    def above(self, version_id: int, limit: int) -> list[VersionLink]:
        return self._walk("v.id = way.parent_id", "v.id = ?1", version_id, limit)

    def below(self, version_id: int, limit: int) -> list[VersionLink]:
        begins = "(v.parent_id = {0} OR v.id IN (SELECT version_id FROM squash WHERE from_id = {0}))"
        inverts = f"{_BEFORE} = {{0}} AND v.status = 'verified' AND {_KIND} IN ('delta', 'exact') AND NOT {_GONE}"
        each = f"{begins} AND {inverts}"
        return self._walk(each.format("way.id"), each.format("?1"), version_id, limit)

    def _walk(self, on: str, start: str, version_id: int, limit: int) -> list[VersionLink]:
        rows = self._database.all(
            f"WITH RECURSIVE way (id, parent_id, kind, base, blob, size, status, n) AS ("
            f" SELECT {_LINK}, 1 FROM version v {_SQUASHED} WHERE {start}"
            f" UNION ALL SELECT {_LINK}, n + 1 FROM way JOIN version v {_SQUASHED} WHERE {on} AND n < ?2 LIMIT ?2)"
            " SELECT w.id, w.parent_id, w.kind, w.base, w.blob, w.size, w.status, coalesce(s.size, 0)"
            " FROM way w LEFT JOIN state s ON s.version_id = w.id",
            version_id, limit,
        )  # fmt: skip
        return [_link(row, self._database) for row in rows]

    def totals(self) -> tuple[int, int]:
        row = self._database.one("SELECT count(*), coalesce(sum(size), 0) FROM state")
        return int(row[0]), int(row[1])

    def sweep(self) -> int:
        known = {bytes(row[0]) for row in self._database.all("SELECT digest FROM state WHERE bytes IS NULL")}
        strays = [digest for digest in self._files.digests() if digest not in known]
        for digest in strays:
            self._files.remove(digest)
        return len(strays) + self._files.sweep(before=float("inf"))

    def compacted(self, lineage: int, epoch: int) -> CompactedRow:
        row = self._database.maybe("SELECT policy, version_id FROM compacted WHERE lineage = ? AND epoch = ?", lineage, epoch)
        return CompactedRow(lineage, epoch, *(row if row is not None else (0, 0)))

    def set_compacted(self, row: CompactedRow) -> None:
        self._database.run(
            "INSERT INTO compacted VALUES (?, ?, ?, ?) ON CONFLICT (lineage, epoch)"
            " DO UPDATE SET policy = excluded.policy, version_id = excluded.version_id",
            row.lineage, row.epoch, row.policy, row.version_id,
        )  # fmt: skip

    def due(self, policy: int, limit: int, before: int, behind: int, after: tuple[int, int] = (0, 0)) -> list[CompactedRow]:
        rows = self._database.all(
            "SELECT h.lineage, h.epoch, coalesce(c.policy, ?1), coalesce(c.version_id, 0) FROM head h"
            " JOIN version v ON v.id = h.version_id LEFT JOIN compacted c ON c.lineage = h.lineage AND c.epoch = h.epoch"
            " LEFT JOIN version l ON l.id = c.version_id"
            " WHERE (h.lineage, h.epoch) > (?4, ?5) AND (c.version_id IS NOT h.version_id OR c.policy <> ?1)"
            " AND (v.received_at <= ?2 OR v.version - coalesce(l.version, 0) >= ?6) ORDER BY h.lineage, h.epoch LIMIT ?3",
            policy, before, limit, *after, behind,
        )  # fmt: skip
        return [CompactedRow(*row) for row in rows]

    def following(self, lineage: int, epoch: int, version_id: int, limit: int) -> list[VersionLink]:
        rows = self._database.all(
            f"SELECT {_LINK}, coalesce(s.size, 0) FROM version v {_SQUASHED}"
            f" LEFT JOIN state s ON s.version_id = v.id WHERE v.lineage = ?1 AND v.epoch = ?2 AND v.status <> 'refused' AND NOT {_GONE}"
            " AND v.version > coalesce((SELECT version FROM version WHERE id = ?3), 0) ORDER BY v.version LIMIT ?4",
            lineage, epoch, version_id, limit,
        )  # fmt: skip
        links = [_link(row, self._database) for row in rows]
        judged = next((i for i, one in enumerate(links) if one.status is not Status.VERIFIED), len(links))
        return links[:judged]

    def largest(self) -> dict[bytes, int]:
        rows = self._database.all("SELECT v.base, max(s.size) FROM state s JOIN version v ON v.id = s.version_id GROUP BY v.base")
        return {bytes(base): int(size) for base, size in rows}


class SqlitePolicies:
    """Implements Policies."""

    _ALL = "SELECT number, recover_within, keep, record, at FROM policy"

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, policy: PolicyRow) -> None:
        p = policy
        self._database.run("INSERT INTO policy VALUES (?, ?, ?, ?, ?)", p.number, p.recover_within, p.keep, p.record, p.at)

    def current(self) -> PolicyRow:
        row = self._database.maybe(f"{self._ALL} ORDER BY number DESC LIMIT 1")
        return PolicyRow(0, DEFAULT_PROMISE, KEEP_ALL, b"", 0) if row is None else PolicyRow(*row)

    def all(self) -> list[PolicyRow]:
        return [PolicyRow(*row) for row in self._database.all(f"{self._ALL} ORDER BY number")]

    def rates(self) -> dict[str, tuple[float, int]]:
        return {str(row[0]): (float(row[1]), int(row[2])) for row in self._database.all("SELECT name, seconds, measured_at FROM rate")}

    def set_rates(self, seconds: dict[str, float], now: int) -> None:
        with self._database.transaction():
            for name, value in seconds.items():
                self._database.run("INSERT OR REPLACE INTO rate VALUES (?, ?, ?)", name, value, now)


def _damaged(version_id: int, database: Database, reason: str) -> RegistryDamaged:
    return RegistryDamaged(path=database.path, reason=f"the kept state of version row {version_id}: {reason}", fix=DROP)


def _link(row: Row, database: Database) -> VersionLink:
    try:
        return VersionLink(row[0], row[1], row[2], row[3], row[4], row[5], Status(row[6]), row[7])
    except ValueError:
        raise RegistryDamaged(path=database.path, reason=f"a version's status is {row[6]!r}, which is none") from None
