"""The registry's rows for other programs: as CSV, as JSON, as lines of JSON, or as tables of a SQLite file, streamed row by row."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from edgecloud.registry import SqliteStore
from edgecloud.registry.sqlite import views
from edgecommon.printing import as_json_text, visible
from modelwire.cards.card import Card

from . import cards

ReportRow = dict[str, Any]
VIEWS = {"versions": ("v_versions", "id"), "fleet": ("v_fleet", "device"), "stale": ("v_stale", "silent_hours DESC, device")}
CARDS = "cards"
KINDS = (*VIEWS, CARDS)
_PLACE = ("id", "name", "device", "model", "version")  # of a card
# A spreadsheet takes a cell that begins so for a formula, and runs it; the last four are the wide ones of East Asian keyboards.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def rows(store: SqliteStore, kind: str, device: str | None, card: Callable[[Card], ReportRow]) -> Iterator[ReportRow]:
    """Yield the rows of a kind, of one device or of all. card: what is said of a card."""
    if kind == CARDS:
        yield from _card_rows(store, device, card)
        return
    view, order = VIEWS[kind]
    where, values = ("", ()) if device is None else (" WHERE device = ?", (device,))
    for row in views.stream(store.database, f"SELECT * FROM {view}{where} ORDER BY {order}", *values):
        yield {name: _finite(value) for name, value in dict(row).items()}


def columns(store: SqliteStore, kind: str, card: Callable[[Card], ReportRow]) -> list[str]:
    """Return the names of a kind's columns."""
    if kind == CARDS:
        return [*_PLACE, *card(Card())]
    return views.columns(store.database, VIEWS[kind][0])


def write_csv(out: TextIO, given: Iterable[ReportRow], head: Sequence[str]) -> int:
    """Write rows as CSV under their head and return how many: text in one line, without what a terminal or a spreadsheet would run."""
    sheet, count = csv.writer(out, lineterminator="\n"), 0
    sheet.writerow(head)
    for row in given:
        sheet.writerow([_cell(value) for value in row.values()])
        count += 1
    return count


def write_lines(out: TextIO, given: Iterable[ReportRow], _head: Sequence[str]) -> int:
    """Write rows as one JSON object a line and return how many."""
    count = 0
    for row in given:
        out.write(as_json_text(row) + "\n")
        count += 1
    return count


def write_json(out: TextIO, given: Iterable[ReportRow], _head: Sequence[str]) -> int:
    """Write rows as one JSON array of objects and return how many."""
    count = 0
    for row in given:
        out.write((",\n " if count else "[") + as_json_text(row))
        count += 1
    out.write("]\n" if count else "[]\n")
    return count


def write_sqlite(path: Path, tables: dict[str, Iterable[ReportRow]]) -> dict[str, int]:
    """Write rows as tables of a SQLite file and return how many of each."""
    flat = {name: ({key: _flat(value) for key, value in row.items()} for row in given) for name, given in tables.items()}
    return views.write_tables(path, flat, "device")


def _card_rows(store: SqliteStore, device: str | None, card: Callable[[Card], ReportRow]) -> Iterator[ReportRow]:
    for lineage in store.lineages.all() if device is None else store.lineages.of(device):
        for version, told in cards.each(store, lineage):
            if told is not None:
                place = version.id, f"{lineage}@{version.version}", lineage.device, lineage.model, version.version
                yield dict(zip(_PLACE, place, strict=True)) | card(told)


def _finite(value: object) -> object:
    """Return a value that JSON has."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(value: object) -> object:
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def _cell(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    value = _flat(value)
    if not isinstance(value, str):
        return "" if value is None else value
    text = visible(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
