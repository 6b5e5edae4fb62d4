"""What waits, was refused or is under way, in SQLite: bounded, and forgotten when it is done. And how much of it each device may send."""

from __future__ import annotations

from edgecloud.registry.quota_rows import NAMES, USUAL, QuotaRow, UsedRow
from edgecloud.registry.rows import Annotation, OpenTransfer, Parked, Refusal, Request, WaitingMessage
from edgecloud.registry.seams.quotas import ALL
from edgecloud.registry.seams.trust import Log
from edgecommon.sqlite import Database, Row

HOUR, DAY = 3600, 24 * 3600  # seconds


class SqliteInbox:
    """Implements Inbox."""

    _PARKED = 'SELECT "commit", device, lineage, epoch, version, parent, digest, bytes, received_at FROM parked'
    _HELD = "SELECT id, device, model, kind, reason, mark, base, bytes, received_at, looked, first_at, times FROM quarantine"

    def __init__(self, database: Database) -> None:
        self._database = database

    def park(self, orphan: Parked) -> None:
        o = orphan
        self._database.run(
            "INSERT INTO parked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            o.commit, o.device, o.lineage, o.epoch, o.version, o.parent, o.digest, o.bytes, o.received_at,
        )  # fmt: skip

    def parked(self, commit: bytes) -> Parked | None:
        row = self._database.maybe(f'{self._PARKED} WHERE "commit" = ?', commit)
        return None if row is None else Parked(*row)

    def orphans(self, device: str) -> list[Parked]:
        return [Parked(*row) for row in self._database.all(f"{self._PARKED} WHERE device = ? ORDER BY version", device)]

    def children(self, parent: bytes) -> list[Parked]:
        return [Parked(*row) for row in self._database.all(f"{self._PARKED} WHERE parent = ? ORDER BY version", parent)]

    def outrun(self, lineage: int, version: int) -> list[Parked]:
        where = "WHERE lineage = ? AND version <= ? ORDER BY version"
        return [Parked(*row) for row in self._database.all(f"{self._PARKED} {where}", lineage, version)]

    def unpark(self, commit: bytes) -> None:
        self._database.run('DELETE FROM parked WHERE "commit" = ?', commit)

    def parked_sizes(self, device: str) -> list[tuple[bytes, int, int]]:
        rows = self._database.all('SELECT "commit", version, length(bytes) FROM parked WHERE device = ? ORDER BY version', device)
        return [(bytes(commit), version, size) for commit, version, size in rows]

    def is_parked(self, digest: bytes) -> bool:
        return self._database.maybe("SELECT 1 FROM parked WHERE digest = ?", digest) is not None

    def hold(self, message: WaitingMessage) -> None:
        m = message
        self._database.run(
            "INSERT INTO quarantine (device, model, kind, reason, mark, base, bytes, received_at, looked, first_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (device, model, kind, mark) DO UPDATE SET times = times + 1,"
            " reason = excluded.reason, base = excluded.base, bytes = excluded.bytes, received_at = excluded.received_at,"
            " looked = excluded.looked",
            m.device, m.model, m.kind, m.reason, m.mark, m.base, m.bytes, m.received_at, m.looked, m.received_at,
        )  # fmt: skip

    def held(self, device: str | None = None, kind: str | None = None) -> list[WaitingMessage]:
        asked = {"device": device, "kind": kind}
        where = " AND ".join(f"{name} = ?" for name, value in asked.items() if value is not None) or "1"
        values = [value for value in asked.values() if value is not None]
        return [WaitingMessage(*row) for row in self._database.all(f"{self._HELD} WHERE {where} ORDER BY device, model, id", *values)]

    def holds(self, device: str, model: str, kind: str, mark: bytes) -> bool:
        where = "device = ? AND model = ? AND kind = ? AND mark = ?"
        return self._database.maybe(f"SELECT 1 FROM quarantine WHERE {where}", device, model, kind, mark) is not None

    def held_size(self, device: str, kind: str) -> tuple[int, int]:
        return self._size("FROM quarantine WHERE device = ? AND kind = ?", device, kind)

    def held_total(self, kind: str) -> tuple[int, int]:
        return self._size("FROM quarantine WHERE kind = ?", kind)

    def expire(self, before: int) -> int:
        return self._database.run("DELETE FROM quarantine WHERE received_at < ?", before)

    def make_room(self, kind: str, device: str | None = None) -> None:
        where, values = ("kind = ?", [kind]) if device is None else ("device = ? AND kind = ?", [device, kind])
        self._database.run(
            f"DELETE FROM quarantine WHERE id = (SELECT id FROM quarantine WHERE {where} ORDER BY"
            f" id IN (SELECT min(id) FROM quarantine WHERE {where} GROUP BY device, reason), times, received_at, id LIMIT 1)",
            *values, *values,
        )  # fmt: skip

    def release(self, message: int) -> None:
        self._database.run("DELETE FROM quarantine WHERE id = ?", message)

    def released(self, limit: int) -> list[WaitingMessage]:
        rows = self._database.all(
            f"{self._HELD} q WHERE (q.reason = 'unknown-base' AND EXISTS (SELECT 1 FROM base b WHERE b.\"commit\" = q.base))"
            " OR (q.reason = 'unknown-key' AND EXISTS (SELECT 1 FROM device_key k WHERE k.device = q.device"
            " AND k.revoked_at IS NULL AND (q.kind <> 'hello' AND k.id > q.looked OR q.kind = 'hello' AND k.key = q.mark))"
            # All else needs the lineage that a hello brings, once its challenge is answered.
            " AND (q.kind = 'hello' OR EXISTS (SELECT 1 FROM lineage l WHERE l.device = q.device AND l.model = q.model)))"
            " ORDER BY q.kind, q.id LIMIT ?",
            limit,
        )
        return [WaitingMessage(*row) for row in rows]

    def _size(self, where: str, *values: object) -> tuple[int, int]:
        row = self._database.maybe(f"SELECT count(*), coalesce(sum(length(bytes)), 0) {where}", *values)
        assert row is not None
        return int(row[0]), int(row[1])


class SqliteRefusals:
    """Implements Refusals."""

    _ALL = 'SELECT digest, device, model, error, reason, at, size, epoch, version, "commit", repeats, first_at FROM refusal'

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, refusal: Refusal, keep: int) -> None:
        r = refusal
        # The tenth-thousandth copy of one message is a number, not a row: nobody can push the others out with it.
        again = self._database.run("UPDATE refusal SET repeats = repeats + 1, at = ? WHERE digest = ?", r.at, r.digest)
        if again:
            return
        id = self._database.insert(
            "refusal", digest=r.digest, device=r.device, model=r.model, error=r.error, reason=r.reason, at=r.at, size=r.size,
            epoch=r.epoch, version=r.version, commit=r.commit, first_at=r.at,
        )  # fmt: skip
        self._database.run("DELETE FROM refusal WHERE id <= ?", id - keep)

    def by_commit(self, commit: bytes) -> Refusal | None:
        return self._first('WHERE "commit" = ? AND epoch > 0', commit)

    def numbered(self, device: str, model: str, epoch: int, version: int) -> list[Refusal]:
        where = "WHERE device = ? AND model = ? AND version = ? AND epoch = ? ORDER BY id"
        return [Refusal(*row) for row in self._database.all(f"{self._ALL} {where}", device, model, version, epoch)]

    def by_digest(self, digest: bytes) -> Refusal | None:
        return self._first("WHERE digest = ?", digest)

    def drop(self, digest: bytes) -> None:
        self._database.run("DELETE FROM refusal WHERE digest = ?", digest)

    def last(self, limit: int, device: str | None = None, model: str | None = None) -> list[Refusal]:
        wanted = [(column, value) for column, value in (("device", device), ("model", model)) if value is not None]
        where = "WHERE " + " AND ".join(f"{column} = ?" for column, _ in wanted) if wanted else ""
        rows = self._database.all(f"{self._ALL} {where} ORDER BY id DESC LIMIT ?", *(value for _, value in wanted), limit)
        return [Refusal(*row) for row in rows]

    def count(self) -> int:
        return self._database.number("SELECT count(*) FROM refusal")

    def _first(self, where: str, *values: object) -> Refusal | None:
        row = self._database.maybe(f"{self._ALL} {where}", *values)
        return None if row is None else Refusal(*row)


class SqliteRequests:
    """Implements Requests, in the table `command`."""

    _ALL = "SELECT number, lineage, verb, record, expiry, created_at, answered_at, ok, text, body FROM command"

    def __init__(self, database: Database, log: Log) -> None:
        self._database, self._log = database, log

    def add(self, request: Request) -> None:
        r = request
        with self._database.transaction():
            self._database.run(
                "INSERT INTO command (number, lineage, verb, record, expiry, created_at) VALUES (?, ?, ?, ?, ?, ?)",
                r.number, r.lineage, r.verb, r.record, r.expiry, r.created_at,
            )  # fmt: skip
            self._log.append("command", record=r.record)

    def last(self, lineage: int) -> int:
        return self._database.number("SELECT coalesce(max(number), 0) FROM command WHERE lineage = ?", lineage)

    def open(self, now: int, lineage: int | None = None) -> list[Request]:
        where, values = (" AND lineage = ?", [lineage]) if lineage is not None else ("", [])
        rows = self._database.all(f"{self._ALL} WHERE answered_at IS NULL AND expiry >= ?{where} ORDER BY lineage, number", now, *values)
        return [_request(row) for row in rows]

    def of(self, lineage: int) -> list[Request]:
        return [_request(row) for row in self._database.all(f"{self._ALL} WHERE lineage = ? ORDER BY number", lineage)]

    def answer(self, number: int, lineage: int, ok: bool, text: str, now: int, body: bytes = b"") -> bool:
        with self._database.transaction():
            changed = self._database.run(
                "UPDATE command SET answered_at = ?, ok = ?, text = ?, body = ? WHERE number = ? AND lineage = ? AND answered_at IS NULL",
                now, ok, text, body, number, lineage,
            )  # fmt: skip
            if changed:
                of = self._database.one("SELECT device, model FROM lineage WHERE id = ?", lineage)
                self._log.append("answer", device=of[0], model=of[1], number=number, ok=ok, text=text)
        return changed == 1


class SqliteTransfers:
    """Implements Transfers."""

    _COLUMNS = "id, device, model, record, size, touched_at, held, tried_at, tried_on"
    _ALL = f"SELECT {_COLUMNS} FROM transfer"

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, transfer: OpenTransfer) -> None:
        t = transfer
        self._database.run(
            "INSERT INTO transfer (id, device, model, record, size, touched_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET touched_at = excluded.touched_at",
            t.id, t.device, t.model, t.record, t.size, t.touched_at,
        )  # fmt: skip

    def get(self, transfer: bytes) -> OpenTransfer | None:
        row = self._database.maybe(f"{self._ALL} WHERE id = ?", transfer)
        return None if row is None else OpenTransfer(*row)

    def find(self, transfer: bytes, index: int) -> tuple[OpenTransfer, bool] | None:
        held = "EXISTS (SELECT 1 FROM transfer_part p WHERE p.transfer = t.id AND p.part = ?)"
        row = self._database.maybe(f"SELECT {self._COLUMNS}, {held} FROM transfer t WHERE id = ?", index, transfer)
        return None if row is None else (OpenTransfer(*row[:-1]), bool(row[-1]))

    def of(self, device: str) -> list[OpenTransfer]:
        rows = self._database.all(f"{self._ALL} WHERE device = ? ORDER BY touched_at, rowid", device)
        return [OpenTransfer(*row) for row in rows]

    def all(self) -> list[OpenTransfer]:
        return [OpenTransfer(*row) for row in self._database.all(f"{self._ALL} ORDER BY touched_at, rowid")]

    def put(self, transfer: bytes, index: int, data: bytes, now: int) -> None:
        fresh = self._database.run("INSERT INTO transfer_part VALUES (?, ?, ?) ON CONFLICT DO NOTHING", transfer, index, data)
        self._database.run("UPDATE transfer SET touched_at = ?, held = held + ? WHERE id = ?", now, fresh, transfer)

    def tried(self, transfer: bytes, on: bytes, now: int) -> None:
        self._database.run("UPDATE transfer SET tried_at = ?, tried_on = ? WHERE id = ?", now, on, transfer)

    def held(self, transfer: bytes) -> set[int]:
        return {int(part) for (part,) in self._database.all("SELECT part FROM transfer_part WHERE transfer = ?", transfer)}

    def pieces(self, transfer: bytes) -> dict[int, bytes]:
        rows = self._database.all("SELECT part, bytes FROM transfer_part WHERE transfer = ?", transfer)
        return {int(part): bytes(data) for part, data in rows}

    def close(self, transfer: bytes) -> None:
        self._database.run("DELETE FROM transfer WHERE id = ?", transfer)


class SqliteQuotas:
    """Implements Quotas."""

    _ROW = f"SELECT {', '.join(NAMES)} FROM quota"

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, device: str) -> QuotaRow:
        rows = {row[0]: QuotaRow(*row[1:]) for row in self._database.all(
            f"SELECT device, {', '.join(NAMES)} FROM quota WHERE device IN (?, ?)", device, ALL
        )}  # fmt: skip
        return rows.get(device, QuotaRow()).over(rows.get(ALL, QuotaRow()).over(USUAL))

    def own(self, device: str) -> QuotaRow | None:
        row = self._database.maybe(f"{self._ROW} WHERE device = ?", device)
        return None if row is None else QuotaRow(*row)

    def rows(self) -> dict[str, QuotaRow]:
        found = self._database.all(f"SELECT device, {', '.join(NAMES)} FROM quota ORDER BY device")
        return {str(row[0]): QuotaRow(*row[1:]) for row in found}

    def set(self, device: str, row: QuotaRow, now: int) -> None:
        with self._database.transaction():
            self._database.run("DELETE FROM quota WHERE device = ?", device)
            if row != QuotaRow():
                values = (getattr(row, name) for name in NAMES)
                self._database.run("INSERT INTO quota VALUES (?, ?, ?, ?, ?, ?, ?)", device, *values, now)

    def used(self, device: str, now: int) -> UsedRow:
        row = self._database.maybe(
            "SELECT u.bytes * (u.day = ?2), u.versions * (u.hour = ?3), u.cpu * (u.hour = ?3), t.n, t.size + p.size + v.size"
            " FROM (SELECT count(*) n, coalesce(sum(size), 0) size FROM transfer WHERE device = ?1) t,"
            " (SELECT coalesce(sum(length(bytes)), 0) size FROM parked WHERE device = ?1) p,"
            " (SELECT coalesce(sum(y.bytes - y.thinned_bytes), 0) size FROM lineage l JOIN tally y ON y.lineage = l.id"
            " WHERE l.device = ?1) v LEFT JOIN used u ON u.device = ?1",
            device, now // DAY, now // HOUR,
        )  # fmt: skip
        assert row is not None  # sums have a row always
        return UsedRow(row[0] or 0, row[1] or 0, (row[2] or 0) / 1e6, row[3], row[4])

    def count(self, device: str, now: int, *, bytes: int = 0, versions: int = 0, cpu: float = 0.0) -> None:
        self._database.run(
            "INSERT INTO used VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET"
            " bytes = bytes * (day = excluded.day) + excluded.bytes, day = excluded.day,"
            " versions = versions * (hour = excluded.hour) + excluded.versions,"
            " cpu = cpu * (hour = excluded.hour) + excluded.cpu, hour = excluded.hour",
            device, now // DAY, bytes, now // HOUR, versions, round(cpu * 1e6),
        )  # fmt: skip

    def users(self) -> list[str]:
        return [str(row[0]) for row in self._database.all("SELECT device FROM used ORDER BY device")]

    def admitted(self, after: int, limit: int) -> list[tuple[int, str]]:
        rows = self._database.all("SELECT id, device FROM device_key WHERE id > ? ORDER BY id LIMIT ?", after, limit)
        return [(int(id), str(device)) for id, device in rows]


class SqliteAnnotations:
    """Implements Annotations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, kind: str, object: str, text: str, now: int) -> Annotation:
        id = self._database.insert("annotation", kind=kind, object=object, text=text, at=now)
        return Annotation(id, kind, object, text, now)

    def of(self, kind: str, object: str) -> list[Annotation]:
        rows = self._database.all(
            "SELECT id, kind, object, text, at FROM annotation WHERE kind = ? AND object = ? ORDER BY id", kind, object
        )
        return [Annotation(*row) for row in rows]


def _request(row: Row) -> Request:
    number, lineage, verb, record, expiry, created_at, answered_at, ok, text, body = row
    return Request(number, lineage, verb, record, expiry, created_at, answered_at, None if ok is None else bool(ok), text, body)
