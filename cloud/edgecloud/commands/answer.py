"""What a command answers: one document for machines, the same as text for people; and how both are shown."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from typing import Any

from edgecloud.registry import SqliteStore, open_registry
from edgecloud.registry.lock import share_registry
from edgecloud.registry.privacy import require_private
from edgecloud.settings import registry_path
from edgecommon.printing import draw_progress, visible
from edgecommon.tables import GAP, Column, Fitted, fitted, laid_out, left_out, more, terminal_width, wrapped
from modelwire.errors import RegistryDamaged

Document = dict[str, Any]
DRAWN = 500  # rows above which a table is not drawn by rich, which takes 0.4 ms for each
SENTENCE = 32  # characters above which a cell with blanks is one
AGES = ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "m"))


@contextmanager
def registry_of(args: argparse.Namespace, *, readonly: bool = True) -> Iterator[SqliteStore]:
    """Open the registry that the command line names. Raises BadArgument for one that is to be written to and is open to others."""
    path = registry_path(args.db)
    if not readonly and path.exists():
        require_private(path)
    with nullcontext() if readonly or not path.exists() else share_registry(path):
        store = open_registry(path, readonly=readonly)
        try:
            yield store
        finally:
            store.close()


def damage(args: argparse.Namespace, error: Exception) -> RegistryDamaged | None:
    """Return what a fault comes to that rows gave whose bytes were changed: they hold values of any kind. None for one of the program."""
    from edgecloud.audit import tampering  # only where something is wrong

    path = registry_path(args.db)
    if not isinstance(error, tampering.UNREADABLE) or not path.is_file():
        return None
    store = open_registry(path, readonly=True)
    try:
        wrong = problems(store)
    finally:
        store.close()
    return RegistryDamaged(path=path, reason=wrong[0]) if wrong else None


def problems(store: SqliteStore) -> list[str]:
    """Return what is wrong with a registry: by SQLite, and by its own log; nothing when it is whole. Rebuilds no model."""
    from edgecloud.audit import tampering

    return store.problems() + tampering.look(store)


def table(columns: Sequence[Column | str], rows: Sequence[Sequence[object]], *, title: str = "", limit: int | None = None) -> str:
    """Return rows as text: as wide as the terminal at most, drawn by rich; plain and whole where there is none.

    limit: how many rows are shown; the text says how many more there are.
    """
    if not any(isinstance(c, Column) for c in columns):
        columns = [_column(str(name), rank, [row[rank] for row in rows]) for rank, name in enumerate(columns)]
    title, hidden = visible(title), 0 if limit is None else len(rows) - limit
    if not rows:
        return f"{title}: none" if title else "none"
    fit = fitted(columns, rows if limit is None else rows[:limit], width := terminal_width())
    text = laid_out(fit) if width is None or not fit.widths or len(fit.rows) > DRAWN else _drawn(fit)
    return "\n".join(filter(None, (title, text, more(hidden))))


def _column(name: str, rank: int, cells: Sequence[object]) -> Column:
    """Return what a column is of which no more than the name is known: sentences are wrapped and stay, of others the last goes first."""
    sentences = any(" " in str(cell) and len(str(cell)) > SENTENCE for cell in cells if cell is not None)
    return Column(name, 0, words=True, wrapped=True) if sentences else Column(name, rank)


def _drawn(fit: Fitted) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for name, width, right, folds in zip(fit.head, fit.widths, fit.right, fit.wrapped, strict=True):
        drawn.add_column(Text(name), width=width, no_wrap=not folds, overflow="fold", justify="right" if right else "left")
    for row in fit.rows:
        drawn.add_row(*(Text(cell) for cell in row))  # Text: what a device sent is never read as markup
    console = Console(color_system=None, width=sum(fit.widths) + GAP * len(fit.widths))  # `painting` gives the colours
    with console.capture() as capture:
        console.print(drawn)
    lines = [line.rstrip() for line in capture.get().rstrip("\n").split("\n")]
    return "\n".join(filter(None, (*lines, left_out(fit))))


def sentences(lines: Iterable[str]) -> str:
    """Return sentences as one text, in lines that fit the terminal where there is one; what others wrote into one begins no other."""
    return "\n".join(wrapped(visible(line)) for line in lines)


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Return names and values, one a line; what is None or empty is left out."""
    shown = [(name, value) for name, value in pairs if value not in (None, "", [])]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{visible(name).ljust(width)}  {visible(str(value))}" for name, value in shown)


def ago(seconds: int | None, at: int) -> str:
    """Return how long ago a time was, in its largest unit: 3 m ago; for one ahead of this clock, that."""
    if seconds is None:
        return "never"
    apart = at - seconds
    if apart < -60:
        return "ahead of this clock"
    size, unit = next(((size, unit) for size, unit in AGES if apart >= size), (1, "s"))
    return f"{max(0, apart) // size} {unit} ago"


def when(seconds: int | None) -> str:
    """Return a time as people read it, in UTC; one that no calendar has as its number."""
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def now() -> int:
    """Return the present in Unix seconds."""
    return int(time.time())


def progress(what: str, every: float = 2.0) -> Callable[[int, int], None]:
    """Return a function that says how far long work has come, on standard error: a bar on a terminal, else a line every few seconds."""
    if sys.stderr.isatty():
        return _bar(what)
    last = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            share = f" ({100 * done // total} %)" if total else ""
            print(f"{what}: {done} of {total}{share}", file=sys.stderr, flush=True)

    return say


def _bar(what: str, every: float = 0.1) -> Callable[[int, int], None]:
    """Return a function that draws how far long work has come on one line, over what it drew before; the answer wipes it."""
    from rich.console import Console
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    console, last = Console(stderr=True), time.monotonic()

    def draw(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last < every:
            return
        last = time.monotonic()
        line = Table.grid(padding=(0, 1))
        line.add_row(what, ProgressBar(total=total or None, completed=done, width=30), f"{done} of {total}" if total else str(done))
        with console.capture() as capture:
            console.print(line, end="")
        draw_progress(capture.get().rstrip())

    return draw
