"""Reads the threat model's table: who, what he can always do, what he cannot, and the tests that show it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "threat-model.md"
HEADER = ("who", "can always", "cannot", "shown by")
_TEST = re.compile(r"`(tests/[\w./-]+)(?:::(\w+))?`")


@dataclass(frozen=True, slots=True)
class Shown:
    """One test, or all of a file or folder."""

    path: str
    name: str  # of one function; empty: all

    def __str__(self) -> str:
        return f"{self.path}::{self.name}" if self.name else self.path

    @property
    def is_there(self) -> bool:
        """Whether there is such a test."""
        where = ROOT / self.path
        if not where.exists() or (where.is_dir() and not any(where.rglob("test_*.py"))):
            return False
        if not self.name:
            return where.is_dir() or "def test_" in where.read_text(encoding="utf-8")
        return re.search(rf"^def {self.name}\(", where.read_text(encoding="utf-8"), re.MULTILINE) is not None


@dataclass(frozen=True, slots=True)
class Threat:
    """One row."""

    who: str
    always: str
    cannot: str
    tests: tuple[Shown, ...]

    @property
    def untested(self) -> bool:
        """Whether no test shows it, or one that it names is not there."""
        return not self.tests or not all(test.is_there for test in self.tests)


def threats(page: Path = PAGE) -> list[Threat]:
    """Return the rows of the page's table. Raises ValueError for a page without it, or a row of another number of cells."""
    out: list[Threat] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if tuple(cells) == HEADER:
            inside = True
        elif not cells:
            inside = False
        elif inside and not set("".join(cells)) <= {"-", ":"}:
            if len(cells) != len(HEADER):
                raise ValueError(f"{page}: a row of {len(cells)} cells: {line[:80]}")
            out.append(Threat(*cells[:3], tuple(Shown(path, name) for path, name in _TEST.findall(cells[3]))))
    if not out:
        raise ValueError(f"{page}: it has no table with the columns {', '.join(HEADER)}")
    return out
