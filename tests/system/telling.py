"""How the demos begin on the command line, say how far they are, and show what came of it in tables."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

PIPED = 150  # columns where there is no terminal


@dataclass(frozen=True)
class Begun:
    """A demo that has begun."""

    folder: Path  # empty
    rounds: int
    say: Callable[[str], None]  # prints a line with the seconds since the beginning
    began: float  # monotonic seconds


def begin(name: str, doc: str | None, argv: Sequence[str] | None, *, folder: Path, rounds: int, help: str) -> Begun:
    """Return the demo that the command line asks for. folder, rounds: the defaults; help: what the rounds are."""
    parser = argparse.ArgumentParser(prog=name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=folder, help=f"where everything is kept afterwards (default {folder})")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"{help} (default {rounds})")
    args = parser.parse_args(argv)
    chosen: Path = args.folder.resolve()
    shutil.rmtree(chosen, ignore_errors=True)
    chosen.mkdir(parents=True)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    return Begun(chosen, args.rounds, say, began)


def table(title: str, names: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> Table:
    """Return a table whose first `left` columns are words, the others figures. Figures are whole; a name may have two lines."""
    made = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(names):
        figure = i >= left
        made.add_column(name, justify="right" if figure else "left", no_wrap=figure, overflow="fold")
    for row in rows:
        made.add_row(*map(str, row))
    return made


def show(*tables: Table) -> None:
    """Print tables, at a width that fits them when nobody is there to widen a window."""
    console = Console(width=None if sys.stdout.isatty() else PIPED)
    for one in tables:
        console.print(one)
        console.print()
