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
