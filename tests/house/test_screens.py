"""The ten most used commands fit a terminal of 80 columns, and the page of commands shows them as they are."""

from __future__ import annotations

import re

import pytest

from tests.house.pages import DOCS
from tests.house.screens import SCREENS, WIDTH, taken

WHOLE = re.compile(r"^ +public key|^  last round|^  known at")  # a key to be copied, and sentences of `status`


@pytest.mark.slow("makes a registry and a device", seconds=2)
def test_the_page_shows_what_ten_commands_show_on_80_columns() -> None:
    screens = taken()
    page = (DOCS / "cli.md").read_text()
    assert len(screens) == 10 == len(SCREENS)
    for line, text in screens.items():
        assert f"$ {line}\n{text}```\n" in page, f"{line}: run make docs"
        wide = [one for one in text.splitlines() if len(one) > WIDTH and not WHOLE.match(one)]
        assert text and not wide, wide
        assert "\x1b" not in text, "NO_COLOR"
