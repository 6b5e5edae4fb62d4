"""The pages of this house and how they are read: sections, tables, code, and the project's own file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "hw").rglob("*.md"), *(ROOT / "tests").rglob("*.md")])
MAKEFILE = (ROOT / "Makefile").read_text()
FIRMWARE = (ROOT / "hw" / "firmware.mk").read_text()  # which the Makefile includes
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def section(text: str, title: str) -> str:
    """Return what stands under a heading, up to the next one of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,6}} |\Z)", text, re.M | re.S)
    assert found, f"no section {title!r}"
    return found.group(2)


def rows(text: str) -> list[list[str]]:
    """Return the cells of the first Markdown table in `text`, without its head."""
    table = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert table, "no table"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.group().splitlines()[2:]]


def slug(heading: str) -> str:
    """Return the anchor that a heading gets in rendered Markdown."""
    plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def prose(text: str) -> str:
    """Return Markdown without its fenced and its indented code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return re.sub(r"^ {4}.*$", "", text, flags=re.M)


def console_lines(page: Path) -> list[str]:
    """Return every command that a page shows after a `$` in a console block."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.M | re.S)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
