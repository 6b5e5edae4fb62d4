"""hw/README.md names a test for each thing that a board refuses, and the test is there; names of refusals are those of the code."""

from __future__ import annotations

import ast
import re

import pytest

from edgeagent.troubles.table import TABLE
from tests.house.pages import FIRMWARE, ROOT, rows, section

TEXT = (ROOT / "hw" / "README.md").read_text()
REFUSED = rows(section(TEXT, "What is refused, and where it is seen"))
# What comes to a board that nobody watches; each is in one row at least.
PROMISED = ("another board", "unsigned", "older", "broken", "full data partition", "claim beyond its count", "more memory than there is")


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row[0])
def test_each_row_names_a_test_that_is_there(row: list[str]) -> None:
    file, test = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[3]).groups()  # type: ignore[union-attr]
    tree = ast.parse((ROOT / file).read_text())
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == test)
    marks = [ast.unparse(mark) for mark in found.decorator_list]
    assert not any(mark.startswith("pytest.mark.skip(") for mark in marks), "it never runs"


def test_all_that_was_promised_to_be_refused_has_a_row() -> None:
    assert all(any(what in row[0] for row in REFUSED) for what in PROMISED)
    assert len({row[3] for row in REFUSED}) == len(REFUSED)


def test_a_refusal_is_called_as_the_code_calls_it() -> None:
    named = {name for row in REFUSED for name in re.findall(r"`([A-Z]\w+|board-\w+)`", row[1])}
    said = (ROOT / "hw" / "image" / "onboard" / "update.py").read_text() + " ".join(f'"{trouble.id}"' for trouble in TABLE)
    assert len(named) >= 6 and not [name for name in named if f'"{name}"' not in said]


def test_each_verb_on_the_page_is_one_of_firmware_teams() -> None:
    verbs = set(re.findall(r"`make ([a-z-]+)", TEXT)) - {"evidence"}
    assert all(re.search(rf"^{verb}:", FIRMWARE, re.M) for verb in verbs)
    assert verbs | {"wheels"} >= {"deb", "image", "bundle", "boot-test", "soak-image", "porting", "paths"}
