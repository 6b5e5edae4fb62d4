"""The page of errors says what the errors say."""

from __future__ import annotations

import re

from modelwire import errors
from tests.house.pages import DOCS, section


def test_every_error_class_is_in_the_document_with_its_code_text_and_hint() -> None:
    text = (DOCS / "errors.md").read_text()
    documented = re.findall(r"^### (\d+) (\w+)$", text, re.M)
    defined = [cls for cls in errors.all_errors() if cls.__module__ == errors.__name__]
    assert documented == [(str(cls.code), cls.__name__) for cls in defined]
    for cls in defined:
        entry = section(text, f"{cls.code} {cls.__name__}")
        if "text" in vars(cls):
            assert f"    {cls.text}\n" in entry
        hint = vars(cls).get("hint", "")
        assert re.findall(r"^- Its hint: `(.*)`$", entry, re.M) == ([hint] if hint else [])
        assert "- What to do: " in entry


def test_exit_codes_are_unique_and_leave_room_for_the_shell() -> None:
    codes = [cls.code for cls in errors.all_errors() if "code" in vars(cls)]
    assert len(codes) == len(set(codes))
    assert all(0 < code < 126 and code != 2 for code in codes)  # 2 is argparse's, 126 and above the shell's
