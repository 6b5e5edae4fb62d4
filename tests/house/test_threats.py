"""Each row of the threat model names tests that are there; a row without one is a promise that nobody tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.threats.__main__ import Case, verdict
from tests.threats.table import Shown, threats

NOWHERE = "test_nowhere"


def test_every_row_names_a_test_that_is_there() -> None:
    assert [(row.who, row.cannot) for row in threats() if row.untested] == []


def test_a_row_without_a_test_or_with_one_that_is_not_there_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "| who | can always | cannot | shown by |\n|---|---|---|---|\n"
        f"| a | x | y | `tests/house/test_threats.py` |\n| b | x | y | trust me |\n| c | x | y | `tests/house/{NOWHERE}.py` |\n"
        "| d | x | y | `tests/house/test_threats.py::test_nothing` |\n| e | x | y | `tests/house` |\n"
    )
    rows = threats(page)
    assert [row.untested for row in rows] == [False, True, True, True, False]
    passed = [Case("tests/house/test_threats.py", "test_one", "passed")]
    assert [verdict(row, passed)[0] for row in rows] == ["held", "NO TEST", "NO TEST", "NO TEST", "held"]
    assert verdict(rows[0], [*passed, Case("tests/house/test_threats.py", "test_one", "failed")])[0] == "BROKE"
    assert verdict(rows[0], [])[0] == "BROKE" and str(Shown("a", "b")) == "a::b"


def test_a_page_without_the_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("nothing")
    with pytest.raises(ValueError, match="no table"):
        threats(tmp_path / "page.md")
