"""Tables for people: no wider than the terminal, with what one copies whole; everything, in plain columns, where there is no terminal."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from .arguments import whole
from .printing import visible

NARROWEST, USUAL = 40, 80  # columns of a terminal: what nobody goes below, and what is taken where nobody says
AT_ONCE = 50  # rows of a list on a terminal, where nobody says how many
GAP = 2  # spaces between two columns
LEAST = 24  # characters that a cut text keeps
CUT = "..."


@dataclass(frozen=True, slots=True)
class Column:
    """One column. rank: what is left out first where there is no room has the highest; 0 always stays."""

    name: str
    rank: int = 0
    words: bool = False  # text for people, which may be cut; ids and numbers are whole or not there
    wrapped: bool = False  # words that go on in a second line instead, where the table is drawn


@dataclass(frozen=True, slots=True)
class Fitted:
    """A table that fits. widths: in cells of a terminal, one a column; none where no line can hold what must stay."""

    head: list[str]
    rows: list[list[str]]
    right: list[bool]
    wrapped: list[bool]
    widths: list[int]
    left_out: list[str]


def add_limit(parser: argparse.ArgumentParser, what: str = "the newest N") -> None:
    """Let a list be cut to its first rows."""
    text = f"only {what}; 0: all (default: {AT_ONCE} on a terminal, all where there is none and with --json)"
    parser.add_argument("-n", "--limit", type=whole(0), metavar="N", help=text)


def most(args: argparse.Namespace) -> int | None:
    """Return how many rows of a list are shown; None: all."""
    if args.limit is not None:
        return args.limit or None
    return AT_ONCE if terminal_width() and not getattr(args, "json", False) else None


def more(hidden: int) -> str:
    """Return the line under a list that goes on; empty when it is whole."""
    return f"{hidden:,} more: -n 0 shows all" if hidden > 0 else ""


def terminal_width() -> int | None:
    """Return how many columns standard output has; None where it is no terminal, and nothing is cut."""
    if not sys.stdout.isatty():
        return None
    said = os.environ.get("COLUMNS", "")
    if said.isascii() and said.isdigit() and int(said):
        return max(NARROWEST, int(said))
    try:
        return max(NARROWEST, os.get_terminal_size(sys.stdout.fileno()).columns or USUAL)
    except (OSError, ValueError):
        return USUAL


def table(columns: Sequence[Column | str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under a head, in columns; numbers to the right. On a terminal it fits, and says what was left out for that."""
    return laid_out(fitted(columns, rows, terminal_width()))


def fitted(columns: Sequence[Column | str], rows: Sequence[Sequence[object]], width: int | None) -> Fitted:
    """Return the columns and cells that fit into `width`; all of them where that is None.

    A column that is a mere name may be left out, the last one first; the first one stays.
    """
    of = [c if isinstance(c, Column) else Column(c, rank=i) for i, c in enumerate(columns)]
    text = [["" if c is None else visible(str(c)) for c in row] for row in rows]
    right = [bool(rows) and all(c is None or isinstance(c, (int, float)) for c in (r[i] for r in rows)) for i in range(len(of))]
    natural = [max(cells_of(c.name), *(cells_of(r[i]) for r in text)) if text else cells_of(c.name) for i, c in enumerate(of)]
    shown = list(range(len(of)))
    if width is None:
        return Fitted([c.name for c in of], text, right, [False] * len(of), natural, [])
    if text:
        shown = [i for i in shown if of[i].rank == 0 or any(row[i] for row in text)]  # an empty column tells nothing
    least = [min(n, max(cells_of(c.name), LEAST)) if c.words else n for n, c in zip(natural, of, strict=True)]
    kept, left_out = _kept(shown, of, least, width)
    widths = _shared(kept, of, natural, least, width)
    fits = sum(widths) + GAP * (len(widths) - 1) <= width
    whole = [fits and not of[i].wrapped for i in kept]
    short = [[cut(row[i], w) if limited else row[i] for i, w, limited in zip(kept, widths, whole, strict=True)] for row in text]
    head, wrapped = [of[i].name for i in kept], [of[i].wrapped for i in kept]
    return Fitted(head, short, [right[i] for i in kept], wrapped, widths if fits else [], [of[i].name for i in left_out])


def laid_out(fit: Fitted) -> str:
    """Return a fitted table as lines of plain text; as blocks of names and values where no line can hold a row."""
    lines = [_line(row, fit) for row in (fit.head, *fit.rows)] if fit.widths else blocks(fit)
    return "\n".join([*lines, *([said] if (said := left_out(fit)) else [])])


def blocks(fit: Fitted) -> list[str]:
    """Return each row as lines of names and values, which stay whole whatever the width."""
    names = max((cells_of(name) for name in fit.head), default=0)
    out: list[str] = []
    for row in fit.rows:
        out += [""] if out else []
        out += [f"{name.ljust(names)}  {cell}".rstrip() for name, cell in zip(fit.head, row, strict=True) if cell]
    return out or fit.head


def left_out(fit: Fitted) -> str:
    """Return what is not shown for want of room, and how it is; empty when all is."""
    return wrapped(f"no room for {', '.join(fit.left_out)}: | less -S shows all columns") if fit.left_out else ""


def wrapped(text: str) -> str:
    """Return a sentence under a table in lines that fit the terminal; as it is where there is none."""
    width = terminal_width()
    return text if width is None else "\n".join(textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False))


def cells_of(text: str) -> int:
    """Return how many cells of a terminal a text takes: wide characters two, what combines with the one before it none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """Return a text of at most so many cells."""
    if cells_of(text) <= width:
        return text
    kept = text[: width - len(CUT)]
    while cells_of(kept) > width - len(CUT):
        kept = kept[:-1]
    return kept + CUT


def padded(text: str, width: int, right: bool = False) -> str:
    """Return a text filled with spaces to so many cells."""
    spaces = " " * (width - cells_of(text))
    return spaces + text if right else text + spaces


def _line(row: Sequence[str], fit: Fitted) -> str:
    return (" " * GAP).join(padded(cut(c, w), w, r) for c, w, r in zip(row, fit.widths, fit.right, strict=True)).rstrip()


def _kept(shown: list[int], of: Sequence[Column], least: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """Return which columns stay and which go."""
    taken = [i for i in shown if of[i].rank == 0]
    room = width - sum(least[i] + GAP for i in taken) + GAP
    for i in sorted((i for i in shown if of[i].rank), key=lambda i: (of[i].rank, i)):
        if least[i] + GAP <= room:
            taken.append(i)
            room -= least[i] + GAP
    return sorted(taken), [i for i in shown if i not in taken]


def _shared(kept: Sequence[int], of: Sequence[Column], natural: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """Return the widths of columns: what is left over goes to the texts that were cut, the shortest first."""
    widths = {i: least[i] for i in kept}
    room = width - sum(widths.values()) - GAP * (len(kept) - 1)
    short = sorted((i for i in kept if natural[i] > least[i]), key=lambda i: natural[i])
    for place, i in enumerate(short):
        share = min(natural[i] - least[i], max(0, room) // (len(short) - place))
        widths[i] += share
        room -= share
    return [widths[i] for i in kept]
