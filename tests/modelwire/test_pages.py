"""The Python examples of the pages on heads, cards and recipes run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["head-trainer.md", "data-cards.md", "recipes.md"])
def test_the_example_of_the_page_runs(page: str) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)
    exec(compile(example, page, "exec"), {})
