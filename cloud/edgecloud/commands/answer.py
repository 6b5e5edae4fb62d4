"""What a command answers: one document for machines, the same as text for people; and how both are shown."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from typing import Any

from edgecloud.audit import tampering
from edgecloud.registry import SqliteStore, open_registry
from edgecloud.registry.lock import share_registry
from edgecloud.registry.privacy import require_private
from edgecloud.settings import registry_path
from edgecommon.printing import visible
from modelwire.errors import RegistryDamaged

Document = dict[str, Any]


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
    return store.problems() + tampering.look(store)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> str:
    """Return rows as text: drawn by rich on a terminal, aligned by spaces elsewhere."""
    cells, title = [["" if c is None else visible(str(c)) for c in row] for row in rows], visible(title)
    if not cells:
        return f"{title}: none" if title else "none"
    if sys.stdout.isatty():
        return _drawn(columns, cells, title)
    widths = [max(len(r[i]) for r in [list(columns), *cells]) for i in range(len(columns))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [list(columns), *cells]]
    return "\n".join([title, *lines] if title else lines)


def _drawn(columns: Sequence[str], cells: list[list[str]], title: str) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title) if title else None, title_justify="left")
    for column in columns:
        drawn.add_column(column)
    for row in cells:
        drawn.add_row(*(Text(c) for c in row))  # Text: what a device sent is never read as markup
    console = Console(color_system=None)  # lines and words alone: no escape that is ours either
    with console.capture() as capture:
        console.print(drawn)
    return capture.get().rstrip("\n")


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Return names and values, one a line; what is None or empty is left out."""
    shown = [(name, value) for name, value in pairs if value not in (None, "", [])]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{visible(name).ljust(width)}  {visible(str(value))}" for name, value in shown)


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
    """Return a function that says how far long work has come, on standard error, every few seconds."""
    last = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            share = f" ({100 * done // total} %)" if total else ""
            print(f"{what}: {done} of {total}{share}", file=sys.stderr, flush=True)

    return say
