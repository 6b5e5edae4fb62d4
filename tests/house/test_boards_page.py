"""The page of boards has the figures of the profiles, and the lines that doctor says."""

from __future__ import annotations

import re
import subprocess
import sys

from edgeagent.boards import comparing
from tests.house.pages import DOCS, ROOT

TEXT = (DOCS / "boards.md").read_text()


def test_the_tables_are_those_of_the_profiles() -> None:
    current = subprocess.run([sys.executable, DOCS / "generate_boards.py", "--check"], cwd=ROOT, check=False)
    assert current.returncode == 0, "run: make docs"


def test_the_page_has_a_row_for_each_line_of_doctor() -> None:
    source = (ROOT / "edgeagent" / "boards" / "comparing.py").read_text()
    said = set(re.findall(r'ComparedFact\("([a-z ]+)"', source))
    table = TEXT.partition("compares, a line each")[2].partition("**Memory.**")[0]
    assert set(re.findall(r"^\| `([a-z ]+)` \|", table, re.M)) == said
    assert f"`{comparing.SMALLER}`" in TEXT
