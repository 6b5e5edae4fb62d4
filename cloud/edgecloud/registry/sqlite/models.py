"""Bases, merges, lineages and versions in SQLite: what is never forgotten."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgecloud.registry.rows import (
    Base,
    Epoch,
    HeadRow,
    LineageRow,
    LineageStanding,
    MergeRow,
    ModelWish,
    NewVersion,
    PresenceRow,
    Status,
    VersionRow,
)
from edgecloud.registry.seams.models import Situation
from edgecloud.registry.seams.trust import Log
from edgecommon.sqlite import Database, Row
from modelwire.errors import LineageError, RegistryDamaged
from modelwire.wire import cbor

from .views import keep_figures

AT_ONCE = 250  # versions that are read together, where all of a lineage are wanted one after the other
BASES_READ = 64  # kept in memory, without their files
# One statement for all of what is looked at before an update is linked: each would cost as much as all of them together.
_SITUATION = """
SELECT l.id, l.last_version, e.epoch, e.state, e.base, e.floor, e.granted_at, h.version_id, h."commit", h.version,
  CASE WHEN h.version_id IS NULL THEN e.base ELSE (SELECT base FROM version WHERE id = h.version_id) END,
  (SELECT "commit" FROM version WHERE lineage = l.id AND version = ?4),
  EXISTS (SELECT 1 FROM refusal WHERE "commit" = ?5 AND epoch > 0),
  EXISTS (SELECT 1 FROM lost WHERE lineage = l.id AND version = ?4 AND epoch = ?3),
  EXISTS (SELECT 1 FROM parked) AND (EXISTS (SELECT 1 FROM parked WHERE "commit" = ?5)
    OR EXISTS (SELECT 1 FROM parked WHERE parent = ?5) OR EXISTS (SELECT 1 FROM parked WHERE lineage = l.id AND version <= ?4))
FROM lineage l
  JOIN epoch e ON e.lineage = l.id AND e.epoch = (SELECT max(epoch) FROM epoch WHERE lineage = l.id)
  JOIN head h ON h.lineage = l.id AND h.epoch = e.epoch
WHERE l.device = ?1 AND l.model = ?2
"""


class SqliteBases:
    """Implements Bases."""

    _ALL = 'SELECT "commit", name, manifest, file, size, added_at FROM base'

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read: dict[bytes, Base] = {}  # the last that were asked for: their rows never change, and each update asks for one

    def add(self, base: Base) -> None:
        self._database.run(
            "INSERT INTO base VALUES (?, ?, ?, ?, ?, ?)", base.commit, base.name, base.manifest, base.file, base.size, base.added_at
        )

    def get(self, commit: bytes) -> Base | None:
        row = self._database.maybe(f'{self._ALL} WHERE "commit" = ?', commit)
        return None if row is None else Base(*row)

    def recall(self, commit: bytes) -> Base | None:
        found = self._read.get(commit) or self.get(commit)
        if found is not None and commit not in self._read:
            if len(self._read) >= BASES_READ:
                self._read.clear()
            self._read[commit] = found
        return found

    def named(self, name: str) -> Base | None:
        row = self._database.maybe(f"{self._ALL} WHERE name = ?", name)
        return None if row is None else Base(*row)

    def all(self) -> list[Base]:
        return [Base(*row) for row in self._database.all(f"{self._ALL} ORDER BY name")]


class SqliteMerges:
    """Implements Merges."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, merge: MergeRow, parents: Mapping[int, int]) -> bool:
        m = merge
        with self._database.transaction():
            new = "INSERT INTO merge VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            if not self._database.run(new, m.file, m.base, m.rule, m.versions, m.at):
                return False
            for version, weight in sorted(parents.items()):
                self._database.run("INSERT INTO merged_from VALUES (?, ?, ?)", m.file, version, weight)
        return True

    def of(self, file: bytes) -> MergeRow | None:
        row = self._database.maybe("SELECT file, base, rule, versions, at FROM merge WHERE file = ?", file)
        return None if row is None else MergeRow(*row)

    def parents(self, file: bytes) -> dict[int, int]:
        rows = self._database.all("SELECT version_id, weight FROM merged_from WHERE file = ? ORDER BY version_id", file)
        return {int(row[0]): int(row[1]) for row in rows}

    def made_of(self, version: int) -> list[MergeRow]:
        rows = self._database.all(
            "SELECT m.file, m.base, m.rule, m.versions, m.at FROM merged_from f JOIN merge m ON m.file = f.file"
            " WHERE f.version_id = ? ORDER BY m.at, m.file",
            version,
        )  # fmt: skip
        return [MergeRow(*row) for row in rows]


class SqliteLineages:
    """Implements Lineages."""

    _ALL = "SELECT id, device, model, last_version FROM lineage"
    _OF_DEVICE = "WHERE lineage IN (SELECT id FROM lineage WHERE device = ?1)"
    _EPOCH = "SELECT lineage, epoch, state, base, floor, granted_at FROM epoch"

    def __init__(self, database: Database, log: Log) -> None:
        self._database, self._log = database, log

    def get(self, device: str, model: str) -> LineageRow | None:
        row = self._database.maybe(f"{self._ALL} WHERE device = ? AND model = ?", device, model)
        return None if row is None else LineageRow(*row)

    def by_id(self, lineage: int) -> LineageRow:
        row = self._database.maybe(f"{self._ALL} WHERE id = ?", lineage)
        if row is None:
            raise LineageError(reason=f"there is no lineage {lineage}")
        return LineageRow(*row)

    def ensure(self, device: str, model: str) -> LineageRow:
        self._database.run("INSERT INTO lineage (device, model) VALUES (?, ?) ON CONFLICT DO NOTHING", device, model)
        known = self.get(device, model)
        assert known is not None
        return known

    def of(self, device: str) -> list[LineageRow]:
        return [LineageRow(*row) for row in self._database.all(f"{self._ALL} WHERE device = ? ORDER BY model", device)]

    def all(self) -> list[LineageRow]:
        return [LineageRow(*row) for row in self._database.all(f"{self._ALL} ORDER BY device, model")]

    def standings(self, device: str | None = None) -> list[LineageStanding]:
        of, which, values = (self._OF_DEVICE, "WHERE l.device = ?1", [device]) if device is not None else ("", "", [])
        rows = self._database.all(
            "WITH present AS MATERIALIZED (SELECT lineage, max(epoch) AS epoch FROM epoch"
            f" {of} GROUP BY lineage),"
            " total AS MATERIALIZED (SELECT lineage, sum(versions) AS versions, sum(bytes) AS bytes, max(newest) AS newest"
            f"  FROM tally {of} GROUP BY lineage)"
            " SELECT l.id, l.device, l.model, l.last_version, coalesce(p.epoch, 0), coalesce(e.floor, 0), coalesce(h.version, 0),"
            "  h.version_id,"
            "  (SELECT coalesce(max(v.last_verified), 0) FROM tally v WHERE v.lineage = l.id AND v.epoch = p.epoch),"
            "  coalesce(t.versions, 0), coalesce(t.bytes, 0), coalesce(n.extension, x''),"
            "  CASE WHEN n.received_at > coalesce(l.seen_at, 0) THEN n.received_at ELSE l.seen_at END,"
            "  l.online, l.boot, l.runtime, l.agent"
            " FROM lineage l LEFT JOIN present p ON p.lineage = l.id"
            " LEFT JOIN epoch e ON e.lineage = l.id AND e.epoch = p.epoch LEFT JOIN head h ON h.lineage = l.id AND h.epoch = p.epoch"
            " LEFT JOIN total t ON t.lineage = l.id LEFT JOIN version n ON n.lineage = l.id AND n.version = t.newest"
            f" {which} ORDER BY l.device, l.model",
            *values,
        )
        return [LineageStanding(LineageRow(*row[:4]), *(*row[4:13], bool(row[13]), *row[14:])) for row in rows]

    def remarkable(self, since: int, epochs: int = 1) -> dict[int, frozenset[str]]:
        rows = self._database.all(
            "SELECT lineage, 'epochs' FROM epoch WHERE granted_at >= ? GROUP BY lineage HAVING count(*) >= ?"
            " UNION SELECT lineage, 'lost' FROM lost UNION SELECT lineage, 'wish' FROM wish",
            since, epochs,
        )  # fmt: skip
        out: dict[int, frozenset[str]] = {}
        for lineage, what in rows:
            out[lineage] = out.get(lineage, frozenset()) | {what}
        return out

    def situation(self, device: str, model: str, epoch: int, version: int, commit: bytes) -> Situation | None:
        row = self._database.maybe(_SITUATION, device, model, epoch, version, commit)
        if row is None:
            return None
        lineage, last, *of, base, held, refused, lost, parked = row
        return Situation(
            # A commit binds its device, model and number: a version that has it stands under this number.
            LineageRow(lineage, device, model, last), Epoch(lineage, *of[:5]), HeadRow(*of[5:]), base, held == commit or bool(refused),
            bool(lost), held is not None, bool(parked),
        )  # fmt: skip

    def used(self, lineage: int, version: int, now: int = 0) -> None:
        self._database.run(
            "UPDATE lineage SET last_version = max(last_version, ?1),"
            " seen_at = CASE WHEN coalesce(seen_at, 0) < ?2 THEN ?2 ELSE seen_at END WHERE id = ?3",
            version, now, lineage,
        )  # fmt: skip

    def epoch_of(self, lineage: int, state: bytes) -> Epoch | None:
        return self._epoch("WHERE lineage = ? AND state = ?", lineage, state)

    def grant(self, lineage: int, state: bytes, base: bytes, now: int) -> Epoch:
        with self._database.transaction():
            last = self.current(lineage)
            of = self.by_id(lineage)
            epoch = Epoch(lineage, last.epoch + 1 if last else 1, state, base, of.last_version, now)
            self._database.run("INSERT INTO epoch VALUES (?, ?, ?, ?, ?, ?)", lineage, epoch.epoch, state, base, epoch.floor, now)
            self._database.run("INSERT INTO head VALUES (?, ?, NULL, ?, 0)", lineage, epoch.epoch, base)
            self._log.append("epoch", device=of.device, model=of.model, epoch=epoch.epoch, state=state, base=base, floor=epoch.floor)
        return epoch

    def epoch(self, lineage: int, epoch: int) -> Epoch | None:
        return self._epoch("WHERE lineage = ? AND epoch = ?", lineage, epoch)

    def granted(self, lineage: int, since: int, until: int, limit: int) -> list[int]:
        rows = self._database.all(
            "SELECT granted_at FROM epoch WHERE lineage = ? AND granted_at BETWEEN ? AND ? ORDER BY epoch DESC LIMIT ?",
            lineage, since, until, limit,
        )  # fmt: skip
        return [int(at) for (at,) in rows]

    def current(self, lineage: int) -> Epoch | None:
        return self._epoch("WHERE lineage = ? ORDER BY epoch DESC LIMIT 1", lineage)

    def _epoch(self, where: str, *values: object) -> Epoch | None:
        row = self._database.maybe(f"{self._EPOCH} {where}", *values)
        return None if row is None else Epoch(*row)

    def head(self, lineage: int, epoch: int) -> HeadRow | None:
        row = self._database.maybe('SELECT version_id, "commit", version FROM head WHERE lineage = ? AND epoch = ?', lineage, epoch)
        return None if row is None else HeadRow(*row)

    def move_head(self, lineage: int, epoch: int, expect: bytes, to: HeadRow, of: LineageRow | None = None) -> int:
        with self._database.joined():
            moved = self._database.run(
                'UPDATE head SET version_id = ?, "commit" = ?, version = ? WHERE lineage = ? AND epoch = ? AND "commit" = ?',
                to.version_id, to.commit, to.version, lineage, epoch, expect,
            )  # fmt: skip
            if moved != 1:
                return 0
            of = of or self.by_id(lineage)
            return self._log.append(
                "head", to.commit, device=of.device, model=of.model, epoch=epoch, version=to.version, commit=to.commit, before=expect
            )

    def set_wish(self, lineage: int, epoch: int, now: int) -> None:
        self._database.run(
            "INSERT INTO wish (lineage, epoch, at) VALUES (?, ?, ?) ON CONFLICT (lineage)"
            " DO UPDATE SET epoch = excluded.epoch, at = excluded.at, declined = 0 WHERE epoch <> excluded.epoch",
            lineage, epoch, now,
        )  # fmt: skip

    def decline_wish(self, lineage: int) -> None:
        self._database.run("UPDATE wish SET declined = 1 WHERE lineage = ?", lineage)

    def end_wish(self, lineage: int) -> None:
        self._database.run("DELETE FROM wish WHERE lineage = ?", lineage)

    def wish(self, lineage: int) -> ModelWish | None:
        row = self._database.maybe("SELECT lineage, epoch, at, declined FROM wish WHERE lineage = ?", lineage)
        return None if row is None else ModelWish(row[0], row[1], row[2], bool(row[3]))

    def presence(self, lineage: int) -> PresenceRow | None:
        row = self._database.maybe("SELECT online, boot, seen_at, runtime, agent FROM lineage WHERE id = ?", lineage)
        if row is None or row[2] is None:
            return None
        return PresenceRow(bool(row[0]), row[1], row[2], row[3], row[4])

    def greeted(self, lineage: int, runtime: str, agent: str, now: int) -> None:
        self._database.run("UPDATE lineage SET runtime = ?, agent = ?, seen_at = ? WHERE id = ?", runtime, agent, now, lineage)

    def heard(self, device: str, model: str, now: int) -> None:
        self._database.run(
            "UPDATE lineage SET seen_at = ?1 WHERE device = ?2 AND model = ?3 AND coalesce(seen_at, 0) < ?1", now, device, model
        )

    def seen(self, lineage: int, online: bool, boot: int, now: int) -> bool:
        # A retained word of the present boot comes again with every start of the ingester, and is no sign of life; a late will is of an
        # older one.
        changed = self._database.run(
            "UPDATE lineage SET seen_at = CASE WHEN online = ?1 AND boot = ?2 THEN coalesce(seen_at, ?3) ELSE ?3 END,"
            " online = ?1, boot = ?2 WHERE id = ?4 AND boot <= ?2",
            online, boot, now, lineage,
        )  # fmt: skip
        return changed == 1


class SqliteVersions:
    """Implements Versions."""

    _COLUMNS = (
        'lineage, epoch, version, kind, "commit", parent, parent_id, base, root, fingerprint, blob, size, received_at, extension,'
        " id, status, reason"
    )
    _ALL = f"SELECT {_COLUMNS} FROM version"
    _ADD = f"INSERT INTO version ({', '.join(_COLUMNS.split(', ')[:-3])}) VALUES ({', '.join('?' * 14)})"

    def __init__(self, database: Database, log: Log) -> None:
        self._database, self._log = database, log

    def add(self, version: NewVersion, said: Mapping[str, cbor.Value] | None = None) -> VersionRow:
        v = version
        fields = (
            v.lineage, v.epoch, v.version, v.kind, v.commit, v.parent, v.parent_id, v.base, v.root, v.fingerprint, v.blob, v.size,
            v.received_at, v.extension,
        )  # fmt: skip
        with self._database.joined():
            id = self._database.add(self._ADD, *fields)
            keep_figures(self._database.run, id, v.extension if said is None else said)
        return VersionRow(*fields, id=id, status=Status.STORED, reason="")

    def by_id(self, version: int) -> VersionRow | None:
        return self._first("WHERE id = ?", version)

    def by_commit(self, commit: bytes) -> VersionRow | None:
        return self._first('WHERE "commit" = ?', commit)

    def by_blob(self, blob: bytes) -> VersionRow | None:
        return self._first("WHERE blob = ?", blob)

    def numbered(self, lineage: int, version: int) -> VersionRow | None:
        return self._first("WHERE lineage = ? AND version = ?", lineage, version)

    def of(self, lineage: int) -> list[VersionRow]:
        return self._many("WHERE lineage = ? ORDER BY id", lineage)

    def each(self, lineage: int) -> Iterator[VersionRow]:
        ids = array("q", (row[0] for row in self._database.all("SELECT id FROM version WHERE lineage = ? ORDER BY id", lineage)))
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            yield from self._many(f"WHERE id IN ({', '.join('?' * len(some))}) ORDER BY id", *some)

    def newest(self, lineage: int, limit: int | None) -> list[VersionRow]:
        return self._many("WHERE lineage = ? ORDER BY version DESC LIMIT ?", lineage, -1 if limit is None else limit)

    def count(self, lineage: int) -> int:
        return self._database.number("SELECT coalesce(sum(versions), 0) FROM tally WHERE lineage = ?", lineage)

    def chain(self, version: VersionRow) -> list[VersionRow]:
        rows = self._database.all(
            # A squash stands in the place of a version's own container, and begins where it says.
            "WITH RECURSIVE link (id, before, kind) AS NOT MATERIALIZED ("
            " SELECT v.id, CASE WHEN s.blob IS NULL THEN v.parent_id ELSE s.from_id END, coalesce(s.kind, v.kind)"
            " FROM version v LEFT JOIN squash s ON s.version_id = v.id), chain (id, before, kind) AS ("
            " SELECT id, before, kind FROM link WHERE id = ?"
            " UNION ALL SELECT l.id, l.before, l.kind FROM link l JOIN chain c ON l.id = c.before WHERE c.kind <> 'snapshot'"
            f") {self._ALL} WHERE id IN (SELECT id FROM chain) ORDER BY id",
            version.id,
        )
        return [_version(row, self._database.path) for row in rows]

    def unverified(self, limit: int, after: int = 0) -> list[VersionRow]:
        return self._many("WHERE status = 'stored' AND id > ? ORDER BY id LIMIT ?", after, limit)

    def served_children(self, version: int) -> list[VersionRow]:
        return self._many("WHERE parent_id = ? AND status <> 'refused' ORDER BY id", version)

    def served_on(self, lineage: int, epoch: int, parent: bytes) -> VersionRow | None:
        on = "WHERE lineage = ? AND epoch = ? AND parent = ? AND status <> 'refused' ORDER BY id LIMIT 1"
        return next(iter(self._many(on, lineage, epoch, parent)), None)

    def verify(self, version: int, commit: bytes = b"") -> int:
        with self._database.joined():
            one, values = ('AND "commit" = ?', [commit]) if commit else ("", [])
            if not self._database.run(f"UPDATE version SET status = 'verified' WHERE id = ? {one}", version, *values):
                return 0
            return self._judged(version, commit, True, "")

    def refuse(self, version: int, reason: str) -> None:
        with self._database.joined():
            self._database.run("UPDATE version SET status = 'refused', reason = ? WHERE id = ?", reason, version)
            self._judged(version, b"", False, reason)

    def _judged(self, version: int, commit: bytes, ok: bool, reason: str) -> int:
        """Enter a verdict, and return the number of its entry; 0 where there is no such version."""
        row = (commit,) if commit else self._database.maybe('SELECT "commit" FROM version WHERE id = ?', version)
        return 0 if row is None else self._log.append("verdict", row[0], commit=row[0], ok=ok, reason=reason)

    def last_verified(self, lineage: int, before: int) -> VersionRow | None:
        # Numbers rise from epoch to epoch: those of earlier ones are not above the floor. So none of this one is looked at.
        return self._first(
            "WHERE lineage = ?1 AND epoch < ?2 AND status = 'verified' AND version <="
            " coalesce((SELECT floor FROM epoch WHERE lineage = ?1 AND epoch >= ?2 ORDER BY epoch LIMIT 1), 9223372036854775807)"
            " ORDER BY version DESC LIMIT 1",
            lineage, before,
        )  # fmt: skip

    def verified(self, lineage: int, epoch: int) -> int:
        # Not the counters: a board lets go of what is verified, and whoever writes to them moves no version's row.
        return self._database.number(
            "SELECT coalesce(max(version), 0) FROM version WHERE lineage = ?1 AND epoch = ?2 AND status = 'verified'"
            " AND version > coalesce((SELECT floor FROM epoch WHERE lineage = ?1 AND epoch = ?2), 0)",
            lineage, epoch,
        )  # fmt: skip

    def skip(self, version: int, first: int, last: int) -> None:
        self._database.run("INSERT INTO skipped VALUES (?, ?, ?) ON CONFLICT DO NOTHING", version, first, last)

    def skipped(self, version: int) -> list[tuple[int, int]]:
        rows = self._database.all("SELECT first, last FROM skipped WHERE version_id = ? ORDER BY first", version)
        return [(first, last) for first, last in rows]

    def _first(self, where: str, *values: object) -> VersionRow | None:
        row = self._database.maybe(f"{self._ALL} {where}", *values)
        return None if row is None else _version(row, self._database.path)

    def _many(self, where: str, *values: object) -> list[VersionRow]:
        return [_version(row, self._database.path) for row in self._database.all(f"{self._ALL} {where}", *values)]


def _version(row: Row, path: Path) -> VersionRow:
    values = [*row]
    try:
        values[-2] = Status(values[-2])
    except ValueError:
        raise RegistryDamaged(path=path, reason=f"a version's status is {values[-2]!r}, which is none") from None
    return VersionRow(*values)
