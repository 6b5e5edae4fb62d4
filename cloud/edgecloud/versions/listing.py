"""Rows of the registry's views for programs and notebooks: plain dicts with times and figures of one type, and a short table in HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from edgecloud.registry import SqliteStore
from edgecloud.registry.sqlite import views
from edgecommon.printing import visible

SHOWN = 20  # rows of a table in a notebook; the list itself has all of them
_CELL = 200  # characters of one cell there


class Listing(list[dict[str, Any]]):
    """Rows of one kind: a list of plain dicts with the same keys, as `pandas.DataFrame` takes it; a notebook shows the first of them.

    columns: the keys, when there are no rows too: `pandas.DataFrame(rows, columns=rows.columns)`.
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = (), columns: Iterable[str] = ()) -> None:
        super().__init__(rows)
        self.columns = list(columns) or (list(self[0]) if self else [])

    def __repr__(self) -> str:
        names = f": {', '.join(self.columns)}" if self.columns else ""
        return visible(f"<{len(self)} {'row' if len(self) == 1 else 'rows'}{names}>")

    def _repr_html_(self) -> str:
        return table(self.columns, [list(row.values()) for row in self[:SHOWN]], len(self))


def versions(store: SqliteStore, device: str | None = None, model: str | None = None) -> Listing:
    """Return a row a version, of all devices or of some, in the order in which they were linked."""
    return _rows(store, "v_versions", "id", {"device": device, "model": model})


def fleet(store: SqliteStore) -> Listing:
    """Return a row a device."""
    return _rows(store, "v_fleet", "device", {})


def silent(store: SqliteStore, hours: float) -> Listing:
    """Return a row a device that nothing was heard of for so many hours, the longest silent first."""
    return _rows(store, "v_stale", "silent_hours DESC, device", {}, least=hours)


def time_of(seconds: int | None) -> datetime | None:
    """Return Unix seconds as a time in UTC; None for None, and for what no calendar has."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def table(columns: Sequence[str], cells: Iterable[Sequence[object]], total: int) -> str:
    """Return a table in HTML; nothing that stands in a cell is read as HTML. total: rows that there are in all."""
    rows = list(cells)
    head = "".join(f"<th>{_cell(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    more = f"<p>the first {len(rows)} of {total} rows</p>" if total > len(rows) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}" if rows else "<p>no rows</p>"


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else f"{value:%Y-%m-%d %H:%M:%SZ}" if isinstance(value, datetime) else str(value)
    return html.escape(visible(text if len(text) <= _CELL else text[:_CELL] + "..."))


def _rows(store: SqliteStore, view: str, order: str, only: Mapping[str, str | None], least: float | None = None) -> Listing:
    wanted: list[tuple[str, object]] = [(f"{name} = ?", value) for name, value in only.items() if value is not None]
    if least is not None:
        wanted.append(("silent_hours >= ?", least))
    where = f" WHERE {' AND '.join(condition for condition, _ in wanted)}" if wanted else ""
    sql = f"SELECT * FROM {view}{where} ORDER BY {order}"
    columns = [str(row["name"]) for row in store.database.all(f"PRAGMA table_info({view})")]
    return Listing((_typed(dict(row)) for row in views.stream(store.database, sql, *(value for _, value in wanted))), columns)


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its times as times and its figures as floats, so that each column has one type."""
    for name, value in row.items():
        if name in views.TIMES:
            row[name] = _parsed(value)
        elif name in views.FLOATS:
            row[name] = value if isinstance(value, float) else math.nan
        elif name == "online":
            row[name] = bool(value)
    return row


def _parsed(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)[:-1]).replace(tzinfo=timezone.utc)  # Python 3.10 reads no Z
    except ValueError:
        return None
