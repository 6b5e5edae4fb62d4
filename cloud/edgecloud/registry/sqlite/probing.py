"""Probe sets and intermediates in SQLite."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgecloud.registry.probe_rows import IntermediateRow, ObservedRow, ProbeRow
from edgecommon.sqlite import Database, Row
from modelwire.errors import LineageError, RegistryDamaged

# A set's bytes may be deleted once all that had them are removed. What `observed` holds goes with its version: layers go with it, and a
# chunk with the last layer that needs it.
TABLES = """
CREATE TABLE probe (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  model TEXT NOT NULL, -- empty: every one that takes such rows
  shape TEXT NOT NULL,
  rows INTEGER NOT NULL CHECK (rows > 0),
  size INTEGER NOT NULL CHECK (size > 0),
  added_at INTEGER NOT NULL
);
CREATE INDEX probe_name ON probe (name);
CREATE INDEX probe_digest ON probe (digest);
CREATE TABLE probe_removed (
  probe INTEGER PRIMARY KEY REFERENCES probe (id),
  at INTEGER NOT NULL
);
CREATE TABLE probe_bytes (
  digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
  bytes BLOB NOT NULL
);
CREATE TABLE observed (
  id INTEGER PRIMARY KEY,
  version_id INTEGER REFERENCES version (id), -- NULL: the base itself
  base BLOB NOT NULL,
  probe BLOB NOT NULL CHECK (length(probe) = 32),
  way TEXT NOT NULL,
  queries INTEGER NOT NULL CHECK (queries > 0),
  rerun_s REAL NOT NULL,
  read_s REAL NOT NULL,
  raw INTEGER NOT NULL,
  asked_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX observed_of ON observed (probe, base, coalesce(version_id, 0), way);
CREATE INDEX observed_version ON observed (version_id);
CREATE TABLE intermediate (
  observed INTEGER NOT NULL REFERENCES observed (id) ON DELETE CASCADE,
  layer INTEGER NOT NULL,
  name TEXT NOT NULL,
  error REAL NOT NULL,
  chunk BLOB NOT NULL CHECK (length(chunk) = 32),
  PRIMARY KEY (observed, layer)
);
CREATE INDEX intermediate_chunk ON intermediate (chunk);
CREATE TABLE chunk (
  digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
  proof BLOB NOT NULL CHECK (length(proof) = 32),
  size INTEGER NOT NULL,
  bytes BLOB NOT NULL
);
CREATE TRIGGER intermediate_gone AFTER DELETE ON intermediate BEGIN
  DELETE FROM chunk WHERE digest = OLD.chunk AND NOT EXISTS (SELECT 1 FROM intermediate WHERE chunk = OLD.chunk);
END
"""
WRITE_ONCE = ("probe", "probe_removed")
_HELD = "EXISTS (SELECT 1 FROM probe p WHERE p.digest = OLD.digest AND p.id NOT IN (SELECT probe FROM probe_removed))"


def hold_bytes(tables: Any, trigger: Callable[[str, str, str, str], str]) -> None:
    """Make the triggers of the bytes of probe sets. trigger: text of one, by table, name, event and condition."""
    tables.execute(trigger("probe_bytes", "no_update", "UPDATE", "1"))
    tables.execute(trigger("probe_bytes", "no_delete", "DELETE", _HELD))


class SqliteProbeSets:
    """Implements ProbeSets."""

    _ALL = (
        "SELECT p.name, p.digest, p.model, p.shape, p.rows, p.size, p.added_at, p.id, r.at"
        " FROM probe p LEFT JOIN probe_removed r ON r.probe = p.id"
    )

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, probe: ProbeRow, data: bytes) -> ProbeRow:
        p = probe
        with self._database.transaction():
            if self.named(p.name) is not None:
                raise LineageError(reason=f"there is a probe set {p.name!r}", fix="name this one otherwise: a set is never overwritten")
            shape = ",".join(map(str, p.shape))
            id = self._database.add(
                "INSERT INTO probe (name, digest, model, shape, rows, size, added_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                p.name, p.digest, p.model, shape, p.rows, p.size, p.added_at,
            )  # fmt: skip
            self._database.run("INSERT INTO probe_bytes VALUES (?, ?) ON CONFLICT DO NOTHING", p.digest, data)
        return ProbeRow(p.name, p.digest, p.model, p.shape, p.rows, p.size, p.added_at, id)

    def named(self, name: str) -> ProbeRow | None:
        row = self._database.maybe(f"{self._ALL} WHERE p.name = ? AND r.at IS NULL", name)
        return None if row is None else self._row(row)

    def all(self, *, removed: bool = False) -> list[ProbeRow]:
        which = "" if removed else "WHERE r.at IS NULL"
        return [self._row(row) for row in self._database.all(f"{self._ALL} {which} ORDER BY r.at IS NOT NULL, r.at, p.name")]

    def data(self, digest: bytes) -> bytes | None:
        row = self._database.maybe("SELECT bytes FROM probe_bytes WHERE digest = ?", digest)
        if row is None:
            return None
        if hashlib.sha256(row[0]).digest() != digest:
            raise RegistryDamaged(path=self._database.path, reason=f"the bytes of the probe set {digest.hex()[:16]} have changed")
        return bytes(row[0])

    def remove(self, probe: ProbeRow, now: int) -> None:
        with self._database.transaction():
            self._database.run("INSERT INTO probe_removed VALUES (?, ?) ON CONFLICT DO NOTHING", probe.id, now)
            held = "SELECT 1 FROM probe p LEFT JOIN probe_removed r ON r.probe = p.id WHERE p.digest = ? AND r.at IS NULL"
            if self._database.maybe(held, probe.digest) is None:
                self._database.run("DELETE FROM observed WHERE probe = ?", probe.digest)
                for table in ("evaluation", "base_evaluation"):
                    self._database.run(f"DELETE FROM {table} WHERE probes = ?", probe.digest)
                self._database.run("DELETE FROM probe_bytes WHERE digest = ?", probe.digest)

    def _row(self, row: Row) -> ProbeRow:
        try:
            shape = tuple(int(part) for part in row[3].split(",") if part)
        except ValueError:
            raise RegistryDamaged(path=self._database.path, reason=f"the shape of the probe set {row[0]!r} is none") from None
        return ProbeRow(row[0], row[1], row[2], shape, *row[4:])


class SqliteIntermediates:
    """Implements Intermediates."""

    _ALL = "SELECT version_id, base, probe, way, queries, rerun_s, read_s, raw, asked_at, id FROM observed"
    _OF = "WHERE probe = ? AND base = ? AND coalesce(version_id, 0) = ? AND way = ?"

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, version_id: int | None, base: bytes, probe: bytes, way: str) -> ObservedRow | None:
        row = self._database.maybe(f"{self._ALL} {self._OF}", probe, base, version_id or 0, way)
        return None if row is None else ObservedRow(*row)

    def asked(self, observed: ObservedRow) -> ObservedRow:
        o = observed
        with self._database.transaction():
            known = self.get(o.version_id, o.base, o.probe, o.way)
            if known is None:
                self._database.run(
                    "INSERT INTO observed (version_id, base, probe, way, queries, rerun_s, read_s, raw, asked_at)"
                    " VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?)",
                    o.version_id, o.base, o.probe, o.way, o.rerun_s, o.read_s, o.raw, o.asked_at,
                )  # fmt: skip
            else:
                self._database.run(
                    "UPDATE observed SET queries = queries + 1, rerun_s = ?, read_s = ?, raw = ?, asked_at = ? WHERE id = ?",
                    o.rerun_s, o.read_s, o.raw, o.asked_at, known.id,
                )  # fmt: skip
            now = self.get(o.version_id, o.base, o.probe, o.way)
        assert now is not None  # of this transaction
        return now

    def layers(self, observed: ObservedRow) -> list[IntermediateRow]:
        rows = self._database.all("SELECT layer, name, error, chunk FROM intermediate WHERE observed = ? ORDER BY layer", observed.id)
        return [IntermediateRow(*row) for row in rows]

    def chunk(self, digest: bytes) -> bytes | None:
        row = self._database.maybe("SELECT bytes, proof FROM chunk WHERE digest = ?", digest)
        return bytes(row[0]) if row is not None and hashlib.sha256(row[0]).digest() == row[1] else None

    def sizes(self, chunks: Sequence[bytes]) -> dict[bytes, tuple[int, int, float]]:
        out: dict[bytes, tuple[int, int, float]] = {}
        for digest in chunks:
            row = self._database.maybe(
                "SELECT c.size, count(i.chunk), coalesce(max(i.error), 0.0) FROM chunk c LEFT JOIN intermediate i ON i.chunk = c.digest"
                " WHERE c.digest = ? GROUP BY c.digest",
                digest,
            )
            if row is not None:
                out[digest] = row[0], row[1], row[2]
        return out

    def put(self, observed: ObservedRow, layers: Sequence[IntermediateRow], chunks: Mapping[bytes, bytes]) -> None:
        with self._database.transaction():
            for digest, data in chunks.items():
                new = "INSERT OR REPLACE INTO chunk VALUES (?, ?, ?, ?)"
                self._database.run(new, digest, hashlib.sha256(data).digest(), len(data), data)
            for one in layers:
                new = "INSERT INTO intermediate VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
                self._database.run(new, observed.id, one.layer, one.name, one.error, one.chunk)

    def drop(self, observed: ObservedRow) -> None:
        with self._database.transaction():
            self._database.run("DELETE FROM intermediate WHERE observed = ?", observed.id)

    def clear(self) -> None:
        with self._database.transaction():
            for table in ("intermediate", "observed", "chunk"):
                self._database.run(f"DELETE FROM {table}")

    def kept(self) -> list[tuple[ObservedRow, float]]:
        rows = self._database.all(
            "WITH part AS (SELECT c.digest, c.size * 1.0 / count(*) AS size"
            "  FROM chunk c JOIN intermediate i ON i.chunk = c.digest GROUP BY c.digest)"
            f" SELECT o.*, s.size FROM ({self._ALL}) o JOIN"
            " (SELECT i.observed, sum(part.size) AS size FROM intermediate i JOIN part ON part.digest = i.chunk GROUP BY i.observed) s"
            " ON s.observed = o.id ORDER BY o.id"
        )
        return [(ObservedRow(*row[:-1]), float(row[-1])) for row in rows]

    def total(self) -> int:
        return self._database.number("SELECT coalesce(sum(size), 0) FROM chunk")
