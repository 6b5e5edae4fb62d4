"""Log lines go to standard error once, as text or as one JSON object a line."""

from __future__ import annotations

import json
import logging

import pytest

from edgecommon import logs


def test_a_log_is_started_anew_and_says_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("orchard.link")
    for _ in range(2):
        logs.start("orchard", "info", logging.Formatter("%(levelname)s %(message)s"))
    logger.info("it is %s", "up")
    logger.debug("not shown")
    assert capsys.readouterr().err == "INFO it is up\n"


def test_json_lines_say_when_how_grave_who_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start("orchard", "debug", logs.JsonLines(int, trace="why"))
    try:
        raise ValueError("no pears")
    except ValueError:
        logging.getLogger("orchard.link").exception("it failed\ntwice")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["level"], said["logger"], said["message"]) == ("error", "orchard.link", "it failed\ntwice")
    assert isinstance(said["at"], int) and "ValueError: no pears" in said["why"]


def test_a_text_line_holds_no_escape_and_begins_no_other_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start("orchard", "info", logs.TextLines("%(levelname)s %(message)s"))
    try:
        raise ValueError("no \x1b[31mpears")
    except ValueError:
        logging.getLogger("orchard.link").exception("pi-7: %s", "\x1b[2J\nERROR forged\u202e\x7f")
    first, *trace = capsys.readouterr().err.splitlines()
    assert first == r"ERROR pi-7: \x1b[2J\nERROR forged\u202e\x7f" and trace[-1] == r"ValueError: no \x1b[31mpears"
