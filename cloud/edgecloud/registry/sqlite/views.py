"""The registry in words: a row a version, a row a device, and who is silent, as views that any SQLite tool shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from edgecommon.sqlite import Database, Row, Unnamed
from modelwire.errors import BadArgument, WireError
from modelwire.wire import cbor

NAMES = ("v_fleet", "v_versions", "v_stale")
TIMES = ("received", "last_update", "last_message", "added")  # columns of the views: text such as 2026-11-28T20:15:00Z
FIGURES = ("loss_before", "loss_after", "accuracy_before", "accuracy_after")  # of what a device says beside an update
FLOATS = (*FIGURES, "accuracy", "silent_hours")
AT_ONCE = 1000  # rows that are fetched together
TIME = "strftime('%Y-%m-%dT%H:%M:%SZ', {}, 'unixepoch')"

# The index holds all that the totals of a device are made of: a million versions are counted without a look at their rows.
# SQLite reads no CBOR: the figures of a version stand here once more. `wrong_scores` holds them against what the update said.
TABLES = f"""
CREATE TABLE score (
  version_id INTEGER PRIMARY KEY REFERENCES version (id),
  {" REAL, ".join(FIGURES)} REAL
);
CREATE INDEX version_totals ON version (lineage, epoch, status, version, size, received_at);
CREATE VIEW v_versions AS
SELECT v.id, l.device || '/' || l.model || '@' || v.version AS name, l.device, l.model, v.epoch, v.version, v.kind, v.status, v.reason,
  v.size AS bytes, {TIME.format("v.received_at")} AS received, {", ".join(f"s.{figure}" for figure in FIGURES)},
  b.name AS base, lower(hex(v."commit")) AS "commit", lower(hex(v.parent)) AS parent, lower(hex(v.root)) AS root
FROM lineage l
  JOIN version v ON v.lineage = l.id
  LEFT JOIN base b ON b."commit" = v.base
  LEFT JOIN score s ON s.version_id = v.id;
CREATE VIEW v_fleet AS
WITH updates AS (
  SELECT lineage, count(*) AS versions, sum(status = 'verified') AS verified, sum(status = 'refused') AS refused,
    sum(status = 'stored') AS waiting, sum(size) AS bytes, max(received_at) AS last_at,
    max(CASE WHEN status = 'verified' THEN id END) AS last_id
  FROM version GROUP BY lineage
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
  (SELECT accuracy_after FROM score WHERE version_id = last_id) AS accuracy,
  {TIME.format("last_at")} AS last_update, {TIME.format("heard_at")} AS last_message,
  round((strftime('%s', 'now') - coalesce(heard_at, added_at)) / 3600.0, 1) AS silent_hours,
  {TIME.format("added_at")} AS added
FROM devices;
CREATE VIEW v_stale AS
SELECT device, silent_hours, last_message, last_update, online, models, last_verified
FROM v_fleet WHERE "key" = 'admitted' ORDER BY silent_hours DESC, device;
"""


def figures_of(extension: bytes | Mapping[str, cbor.Value]) -> tuple[float | None, ...]:
    """Return the four figures that an update says; None for one that it does not say, or that is no float or out of range.

    extension: as it stands in the update, or as it was read.
    """
    said: cbor.Value | Mapping[str, cbor.Value] = extension if isinstance(extension, Mapping) else {}
    try:
        if extension and isinstance(extension, bytes):
            said = cbor.decode(extension, "extension")
    except WireError:  # of a row that another program wrote, as one that holds text is
        pass
    values = ((figure, said.get(figure) if isinstance(said, Mapping) else None) for figure in FIGURES)
    return tuple(value if isinstance(value, float) and _in_range(figure, value) else None for figure, value in values)


def _in_range(figure: str, value: float) -> bool:
    """Return whether a figure may be what it says: an accuracy is of 0 to 1, else it counts as not there (docs/format/container.md)."""
    return not figure.startswith("accuracy") or 0 <= value <= 1


def keep_figures(run: Callable[..., object], version: int, extension: bytes | Mapping[str, cbor.Value]) -> None:
    """Put a version's figures where the views find them. run: runs a statement with its values."""
    figures = figures_of(extension)
    if any(figure is not None for figure in figures):
        run("INSERT INTO score VALUES (?, ?, ?, ?, ?)", version, *figures)


def keep_all_figures(tables: Any) -> None:
    """Do so for the versions of a registry from before there were views."""
    last = 0
    while rows := tables.execute("SELECT id, extension FROM version WHERE id > ? ORDER BY id LIMIT ?", (last, AT_ONCE)).fetchall():
        for last, extension in rows:
            keep_figures(lambda sql, *values: tables.execute(sql, values), last, extension)


def wrong_scores(database: Database) -> list[str]:
    """Return which figures of the views are not what the updates said: another program wrote them."""
    out = [f"the figures of a version {row[0]}, which is not there" for row in database.all(
        "SELECT version_id FROM score WHERE version_id NOT IN (SELECT id FROM version) LIMIT 20")]  # fmt: skip
    sql = (
        f"SELECT v.id, v.extension, {', '.join(f's.{figure}' for figure in FIGURES)}, l.device || '/' || l.model || '@' || v.version"
        " FROM version v JOIN lineage l ON l.id = v.lineage LEFT JOIN score s ON s.version_id = v.id"
    )
    for row in stream(database, sql):
        if tuple(row[2:6]) != figures_of(row[1]):
            out.append(f"the figures of {row[6]} are not those that its update said")
    return out[:20]


def write_tables(path: Path, tables: Mapping[str, Iterable[dict[str, Any]]], key: str) -> dict[str, int]:
    """Write rows into an empty SQLite file, a table each with columns as the rows have them, and return how many there are of each.

    key: the column that every table is looked up by. Holds a few hundred rows at a time.
    """
    from sqlite_utils import Database as Tables

    counts = {}
    file = Tables(path, execute_plugins=False)
    try:
        file.execute("PRAGMA journal_mode = OFF")  # half a file is thrown away
        for name, rows in tables.items():
            left = iter(rows)
            first = next(left, None)
            counts[name] = 0
            if first is not None:
                floats = {column: float for column in first if column in FLOATS}  # the first rows may say none
                table = file.table(name)
                table.insert_all(chain([first], left), batch_size=AT_ONCE, columns=floats)
                table.create_index([key])
                counts[name] = table.count
    except Unnamed as error:
        raise BadArgument(reason=f"a file of tables can't be written: {error}", fix="name another place, or make room there") from error
    finally:
        file.close()
    return counts


def columns(database: Database, view: str) -> list[str]:
    """Return the names of a view's columns."""
    return [row[1] for row in database.all(f"PRAGMA table_info({view})")]


def stream(database: Database, sql: str, *values: object) -> Iterator[Row]:
    """Yield the rows of a query as they come, of one moment, in bounded memory."""
    with database.named():
        cursor = database.connection.execute(sql, values)
        while rows := cursor.fetchmany(AT_ONCE):
            yield from rows
