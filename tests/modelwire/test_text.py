"""Which characters travel: a fixed table, wider than what any Python calls printable."""

from __future__ import annotations

import re
import sys

from modelwire.text import REFUSED, is_plain
from tests.house.pages import DOCS


def test_the_table_is_the_one_of_the_page_and_holds_what_terminals_obey() -> None:
    said = (DOCS / "protocol.md").read_text().partition("A printable character is any but these")[2].partition("controls,")[0]
    found = re.findall(r"\b([0-9A-F]{4,6})(?:\s+to\s+([0-9A-F]{4,6}))?", said)
    ranges = [(int(first, 16), int(last or first, 16)) for first, last in found]
    merged = [(a, b) for a, b in ranges if (a, b) not in ((0xFFFE, 0xFFFE), (0xFFFF, 0xFFFF))]
    assert sorted([*merged, (0xFFFE, 0xFFFF)]) == sorted(REFUSED)
    for character in "\x00\n\x1b\x7f\x85\xa0\xad\u200b\u200e\u2028\u202e\u2066\ufeff\uffff\ue000\U000f0000":
        assert not is_plain(f"a{character}b")


def test_what_python_prints_is_plain_whatever_unicode_it_knows() -> None:
    assert all(is_plain(c) for c in map(chr, range(sys.maxunicode + 1)) if c.isprintable())
    assert is_plain("") and is_plain("Grüße, 日本 🚗 ٣") and is_plain("\u0378")  # not assigned today
