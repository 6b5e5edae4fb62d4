"""A decision as people read it: one screen of 80 columns and 24 lines, with the table of costs and where its figures come from."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from edgecommon.printing import visible
from edgecommon.tables import cut

WIDTH, HEIGHT = 80, 24
MILLIONTH = 1e6  # of the currency: the unit of the table
_TERMS = (
    ("bytes", "of_bytes"), ("energy", "of_energy"), ("storage", "of_storage"), ("recover", "of_recovery"), ("accuracy", "of_accuracy"),
    ("waiting", "of_waiting"), ("J", "total"),
)  # fmt: skip
_UNITS = {
    "joules_per_wakeup": "J", "joules_per_byte": "J", "uplink": "bytes/s", "encode_rate": "weights/s", "step_s": "s", "watts": "W",
    "recoveries": "", "months": "months", "interval_s": "s", "free_memory": "bytes", "promise_s": "s", "window_left_s": "s",
}  # fmt: skip
_SAID = {
    "joules_per_wakeup": "a wake-up", "joules_per_byte": "a byte sent", "uplink": "the link", "encode_rate": "encoding", "step_s": "a step",
    "watts": "at work", "recoveries": "recovered", "months": "kept", "interval_s": "an update every",
}  # fmt: skip


def because(document: Mapping[str, Any]) -> str:
    """Return why an update waits, in the words of a status line, from a kept decision; empty where that can't be read."""
    try:
        rows = document["rows"]
        wait = next(float(row["total"]) for row in rows if row["name"] == "wait" and not row["barred"])
        now = next(float(row["total"]) for row in rows if row["goes"])
        joules = next(float(value) for name, value, _ in document["sources"] if name == "joules_per_wakeup")
    except (KeyError, TypeError, ValueError, StopIteration):
        return str(document.get("reason", ""))[:200]
    return f"a wake-up of the link takes {joules:.3g} J: to wait comes to {wait:.3g}, to send now to {now:.3g}"


def screen(name: str, document: Mapping[str, Any], *, height: int = HEIGHT) -> list[str]:
    """Return the lines of a decision about `name`, at most `height`; of a document that was damaged what can be read."""
    reason = str(document.get("reason", "")) or "the decision can't be read"
    out = textwrap.wrap(visible(f"{name}: {reason}"), WIDTH, max_lines=3, placeholder=" ...")
    rows = [row for row in _list(document.get("rows")) if isinstance(row, dict)][:10]
    out += _table(rows)
    updates = document.get("updates")
    if rows and isinstance(updates, int) and updates > 1:
        alone = "; ~ is of this one alone" if any(row.get("why") == "estimated" for row in rows) else ""
        out.append(cut(f"of all {updates} updates that waited, this one included, as one{alone}", WIDTH))
    for row in rows:
        if row.get("why") and not row.get("goes") and row["why"] != "estimated":
            out.append(cut(visible(f"{row.get('name', '?')}: {row['why']}"), WIDTH))
    figures = [f for f in (_figure(said) for said in _list(document.get("sources"))) if f]
    room = max(0, height - len(out) - 1)
    return out + (["it went by"] if figures and room else []) + figures[:room]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the costs in millionths of the currency; > marks the form that goes, ~ what was estimated."""
    if not rows:
        return []
    head = ["in millionths", "size", *(name for name, _ in _TERMS)]
    cells = [head]
    for row in rows:
        mark = ">" if row.get("goes") else "~" if row.get("why") == "estimated" else " "
        empty = bool(row.get("barred")) and not row.get("bytes")
        costs = ["-" if empty else _cost(row.get(key)) for _, key in _TERMS]
        cells.append([f"{mark} {visible(str(row.get('name', '?')))[:14]}", _size(row.get("bytes")), *costs])
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    return [
        gap.join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))[:WIDTH].rstrip()
        for line in cells
    ]


def _size(value: object) -> str:
    if not isinstance(value, int) or not value:
        return ""
    return f"{value:,}" if value < 10_000_000 else f"{value / 1e6:.4g} MB"


def _cost(value: object) -> str:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "?"
    millionths = MILLIONTH * value
    if not millionths:
        return "0"
    return f"{millionths:.0f}" if 100 <= abs(millionths) < 100_000 else f"{millionths:.2g}"


def _figure(said: object) -> str:
    parts = _list(said)
    if len(parts) != 3 or isinstance(parts[1], bool) or not isinstance(parts[1], (int, float)):
        return ""
    name, value, source = parts
    text = f"  {_SAID.get(str(name), name)}: {value:.4g} {_UNITS.get(str(name), '')}".rstrip()
    return cut(visible(f"{text} ({source})"), WIDTH)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
