"""Counters of the versions, kept by the statements that add and judge them: a list of a million versions begins without a look at them."""

from __future__ import annotations

from typing import Any

from edgecloud.registry.counted import DeviceTally, KeptTally, KindTally, ModelOutline
from edgecommon.sqlite import Database

from .views import FIGURES, TIME

# Numbers and ids of the versions of a lineage rise, and a verdict is never taken back: the largest of either stays the largest.
_COUNTED = (
    "count(*), sum(status = 'verified'), sum(status = 'refused'), sum(size), max(version),"
    " max(CASE WHEN status = 'verified' THEN version ELSE 0 END), max(CASE WHEN status = 'verified' THEN id ELSE 0 END),"
    " max(received_at), count(t.version_id), sum(CASE WHEN t.version_id IS NULL THEN 0 ELSE size END)"
)
_ALL_OF = (
    f"SELECT lineage, epoch, kind, {_COUNTED} FROM version LEFT JOIN thinned t ON t.version_id = id {{}} GROUP BY lineage, epoch, kind"
)
_ALL = _ALL_OF.format("")
_COLUMNS = "versions, verified, refused, bytes, newest, last_verified, last_id, last_at, thinned, thinned_bytes"

CLAIM = b"dkindeclaim"  # in the CBOR of the entries that give a claim: the index holds them alone, and costs the others a search

# Triggers, and no statements of the program: what adds a version by whatever way has counted it.
TABLES = f"""
CREATE TABLE tally (
  lineage INTEGER NOT NULL REFERENCES lineage (id),
  epoch INTEGER NOT NULL,
  kind TEXT NOT NULL,
  versions INTEGER NOT NULL,
  verified INTEGER NOT NULL,
  refused INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  newest INTEGER NOT NULL,
  last_verified INTEGER NOT NULL,
  last_id INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  thinned INTEGER NOT NULL,
  thinned_bytes INTEGER NOT NULL,
  PRIMARY KEY (lineage, epoch, kind)
) WITHOUT ROWID;
CREATE TRIGGER version_counted AFTER INSERT ON version BEGIN
  INSERT INTO tally VALUES (NEW.lineage, NEW.epoch, NEW.kind, 1, NEW.status = 'verified', NEW.status = 'refused', NEW.size, NEW.version,
    CASE WHEN NEW.status = 'verified' THEN NEW.version ELSE 0 END, CASE WHEN NEW.status = 'verified' THEN NEW.id ELSE 0 END,
    NEW.received_at, 0, 0)
  ON CONFLICT (lineage, epoch, kind) DO UPDATE SET versions = versions + 1, verified = verified + excluded.verified,
    refused = refused + excluded.refused, bytes = bytes + excluded.bytes, newest = max(newest, excluded.newest),
    last_verified = max(last_verified, excluded.last_verified), last_id = max(last_id, excluded.last_id),
    last_at = max(last_at, excluded.last_at);
END;
CREATE TRIGGER version_judged AFTER UPDATE OF status ON version BEGIN
  UPDATE tally SET verified = verified + (NEW.status = 'verified'), refused = refused + (NEW.status = 'refused'),
    last_verified = max(last_verified, CASE WHEN NEW.status = 'verified' THEN NEW.version ELSE 0 END),
    last_id = max(last_id, CASE WHEN NEW.status = 'verified' THEN NEW.id ELSE 0 END)
  WHERE lineage = NEW.lineage AND epoch = NEW.epoch AND kind = NEW.kind AND OLD.status = 'stored';
END;
CREATE TRIGGER version_uncounted AFTER DELETE ON version BEGIN
  UPDATE tally SET versions = versions - 1, verified = verified - (OLD.status = 'verified'), refused = refused - (OLD.status = 'refused'),
    bytes = bytes - OLD.size
  WHERE lineage = OLD.lineage AND epoch = OLD.epoch AND kind = OLD.kind;
  DELETE FROM tally WHERE lineage = OLD.lineage AND epoch = OLD.epoch AND kind = OLD.kind AND versions = 0;
END;
CREATE TRIGGER version_thinned AFTER INSERT ON thinned BEGIN
  UPDATE tally SET thinned = thinned + 1, thinned_bytes = thinned_bytes + (SELECT size FROM version WHERE id = NEW.version_id)
  WHERE (lineage, epoch, kind) = (SELECT lineage, epoch, kind FROM version WHERE id = NEW.version_id);
END;
CREATE TRIGGER version_unthinned AFTER DELETE ON thinned BEGIN
  UPDATE tally SET thinned = thinned - 1, thinned_bytes = thinned_bytes - (SELECT size FROM version WHERE id = OLD.version_id)
  WHERE (lineage, epoch, kind) = (SELECT lineage, epoch, kind FROM version WHERE id = OLD.version_id);
END;
CREATE TABLE measured (
  name TEXT PRIMARY KEY,
  at INTEGER NOT NULL,
  said TEXT NOT NULL
);
CREATE INDEX log_claims ON log (number) WHERE instr(entry, x'{CLAIM.hex()}') > 0;
DROP INDEX version_totals;
DROP VIEW v_stale;
DROP VIEW v_fleet;
CREATE VIEW v_fleet AS
WITH updates AS (
  SELECT lineage, sum(versions) AS versions, sum(verified) AS verified, sum(refused) AS refused,
    sum(versions - verified - refused) AS waiting, sum(bytes) AS bytes, max(last_at) AS last_at, nullif(max(last_id), 0) AS last_id
  FROM tally GROUP BY lineage
), models AS (
  SELECT l.device, l.model, l.online, u.versions, u.verified, u.refused, u.waiting, u.bytes, u.last_at, u.last_id,
    max(coalesce(l.seen_at, 0), coalesce(u.last_at, 0),
      coalesce((SELECT max(granted_at) FROM epoch WHERE lineage = l.id), 0),
      coalesce((SELECT max(received_at) FROM parked WHERE lineage = l.id), 0),
      coalesce((SELECT max(answered_at) FROM command WHERE lineage = l.id), 0)) AS heard_at
  FROM lineage l LEFT JOIN updates u ON u.lineage = l.id
), devices AS (
  SELECT d.name AS device, d.added_at, count(m.model) AS models, coalesce(max(m.online), 0) AS online,
    coalesce(sum(m.versions), 0) AS versions, coalesce(sum(m.verified), 0) AS verified, coalesce(sum(m.refused), 0) AS refused,
    coalesce(sum(m.waiting), 0) AS waiting, coalesce(sum(m.bytes), 0) AS bytes,
    max(m.last_at) AS last_at, max(m.last_id) AS last_id, nullif(max(m.heard_at), 0) AS heard_at
  FROM device d LEFT JOIN models m ON m.device = d.name GROUP BY d.name
)
SELECT device,
  CASE WHEN EXISTS (SELECT 1 FROM device_key k WHERE k.device = devices.device AND k.revoked_at IS NULL)
    THEN 'admitted' ELSE 'revoked' END AS "key",
  models, online, versions, verified, refused, waiting, bytes,
  (SELECT l.model || '@' || v.version FROM version v JOIN lineage l ON l.id = v.lineage WHERE v.id = last_id) AS last_verified,
  (SELECT {FIGURES[-1]} FROM score WHERE version_id = last_id) AS accuracy,
  {TIME.format("last_at")} AS last_update, {TIME.format("heard_at")} AS last_message,
  round((strftime('%s', 'now') - coalesce(heard_at, added_at)) / 3600.0, 1) AS silent_hours,
  {TIME.format("added_at")} AS added
FROM devices;
CREATE VIEW v_stale AS
SELECT device, silent_hours, last_message, last_update, online, models, last_verified
FROM v_fleet WHERE "key" = 'admitted' ORDER BY silent_hours DESC, device;
"""

_RANKS = {
    "": "0",
    "head": "coalesce((SELECT version FROM head h WHERE h.lineage = l.id ORDER BY epoch DESC LIMIT 1), 0)",
    "accuracy": f"coalesce((SELECT s.{FIGURES[-1]} FROM version v JOIN score s ON s.version_id = v.id"
    " WHERE v.lineage = l.id AND v.version = t.newest), -1)",
}


class SqliteTallies:
    """Implements Tallies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_kind(self, device: str | None = None) -> list[KindTally]:
        of, values = ("WHERE lineage IN (SELECT id FROM lineage WHERE device = ?)", [device]) if device is not None else ("", [])
        rows = self._database.all(
            "SELECT kind, sum(versions), sum(verified), sum(refused), sum(bytes), max(last_at), sum(thinned), sum(thinned_bytes)"
            f" FROM tally {of} GROUP BY kind ORDER BY kind",
            *values,
        )
        return [KindTally(*row) for row in rows]

    def holds(self, lineage: int, kind: str) -> bool:
        return self._database.maybe("SELECT 1 FROM tally WHERE lineage = ? AND kind = ? LIMIT 1", lineage, kind) is not None

    def kept(self, device: str | None = None) -> KeptTally:
        of, values = ("WHERE lineage IN (SELECT id FROM lineage WHERE device = ?)", [device]) if device is not None else ("", [])
        sized = "SELECT count(*), coalesce(sum(size), 0) FROM"
        states = self._database.one(f"{sized} state {of}", *values)
        # From the squash to its version: a device has many more versions than squashes.
        of = f"q WHERE EXISTS (SELECT 1 FROM version v {of} AND v.id = q.version_id)" if of else ""
        squashes = self._database.one(f"{sized.replace('size', 'q.size') if of else sized} squash {of}", *values)
        bases = self._database.one(f"{sized} base")
        return KeptTally(*states, *squashes, *bases)

    def measured(self, name: str) -> tuple[int, str] | None:
        row = self._database.maybe("SELECT at, said FROM measured WHERE name = ?", name)
        return None if row is None else (int(row[0]), str(row[1]))

    def set_measured(self, name: str, said: str, now: int) -> None:
        self._database.run("INSERT OR REPLACE INTO measured VALUES (?, ?, ?)", name, now, said)

    def largest(self, limit: int) -> list[DeviceTally]:
        rows = self._database.all(
            "SELECT l.device, count(DISTINCT l.id), sum(t.versions), sum(t.bytes) FROM lineage l JOIN tally t ON t.lineage = l.id"
            " GROUP BY l.device ORDER BY sum(t.bytes) DESC, l.device LIMIT ?", limit,
        )  # fmt: skip
        return [DeviceTally(*row) for row in rows]

    def senders(self) -> int:
        return self._database.number("SELECT count(DISTINCT l.device) FROM lineage l WHERE l.id IN (SELECT lineage FROM tally)")

    def outlines(self, order: str = "") -> list[ModelOutline]:
        rows = self._database.all(
            "WITH total AS MATERIALIZED ("
            "  SELECT lineage, sum(versions) AS versions, sum(bytes) AS bytes, max(newest) AS newest, max(last_at) AS last_at"
            "  FROM tally GROUP BY lineage),"
            " speaks AS MATERIALIZED (SELECT device, max(added_at) AS at FROM device_key WHERE revoked_at IS NULL GROUP BY device)"
            " SELECT d.name, s.at, l.id, coalesce(l.model, ''), CASE WHEN l.boot THEN l.online END,"
            "  CASE WHEN t.last_at > coalesce(l.seen_at, 0) THEN t.last_at ELSE l.seen_at END, coalesce(t.versions, 0),"
            f"  coalesce(t.bytes, 0), {_RANKS[order]}"
            " FROM device d LEFT JOIN speaks s ON s.device = d.name LEFT JOIN lineage l ON l.device = d.name"
            " LEFT JOIN total t ON t.lineage = l.id ORDER BY d.name, l.model"
        )  # fmt: skip
        return [ModelOutline._make(row) for row in rows]

    def waiting(self) -> int:
        return self._database.number("SELECT coalesce(sum(versions - verified - refused), 0) FROM tally")

    def recount(self) -> int:
        with self._database.transaction():
            wrong = _differing(self._database)
            for lineage in wrong:
                self._database.run("DELETE FROM tally WHERE lineage = ?", lineage)
                self._database.run(f"INSERT INTO tally {_ALL_OF.format('WHERE lineage = ?')}", lineage)
        return len(wrong)


def count_all(tables: Any) -> None:
    """Count the versions of a registry from before there were counters."""
    tables.execute(f"INSERT INTO tally {_ALL}")


def wrong_tallies(database: Database) -> list[str]:
    """Return which counters are not what the versions come to: another program wrote them."""
    named = {row[0]: f"{row[1]}/{row[2]}" for row in database.all("SELECT id, device, model FROM lineage")}
    return [f"the counters of {named.get(one, f'a lineage {one}, which is not there,')} are not what its versions come to"
            for one in _differing(database)[:20]]  # fmt: skip


def _differing(database: Database) -> list[int]:
    """Return the lineages whose counters are not what their versions come to. Those of a device that is being erased say nothing."""
    kept = f"SELECT lineage, epoch, kind, {_COLUMNS} FROM tally"
    both = f"SELECT lineage FROM (SELECT * FROM ({_ALL}) EXCEPT {kept}) UNION SELECT lineage FROM ({kept} EXCEPT SELECT * FROM ({_ALL}))"
    going = "SELECT l.id FROM lineage l JOIN erasure e ON e.device = l.device"
    return [int(row[0]) for row in database.all(f"SELECT lineage FROM ({both}) WHERE lineage NOT IN ({going}) ORDER BY lineage")]
