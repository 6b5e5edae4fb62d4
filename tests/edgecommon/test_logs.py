"""Log lines go to standard error once, as text or as one JSON object a line."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

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


class Minutes:
    """A log with a clock that a test sets, and what is to be called when the minute is over."""

    def __init__(self) -> None:
        self.now, self.due, self.stream = 0.0, list[Callable[[], None]](), io.StringIO()
        self.handler = logs.SparingLines(self.stream, clock=lambda: self.now, later=self.due.append)
        self.handler.setFormatter(logs.TextLines("%(levelname)s %(message)s"))
        self.logger = logging.Logger("orchard")
        self.logger.addHandler(self.handler)

    def lines(self) -> list[str]:
        """Return what was written since the last look."""
        said = self.stream.getvalue().splitlines()
        self.stream.seek(0)
        self.stream.truncate()
        return said


def test_a_line_that_repeats_is_written_ten_times_a_minute_and_then_counted() -> None:
    m = Minutes()
    for _ in range(422):
        m.logger.warning("no %s", "pears")
    assert m.lines() == ["WARNING no pears"] * 10 and len(m.due) >= 1
    m.now = 61.0
    m.logger.warning("no plums")
    assert m.lines() == ["WARNING the same line 412 times more in the last 61 s: no pears", "WARNING no plums"]
    m.logger.warning("no pears")
    assert m.lines() == ["WARNING no pears"], "a new minute"


def test_what_was_left_out_is_said_when_the_minute_is_over_though_nothing_more_comes_and_once() -> None:
    m = Minutes()
    for n in range(1000):
        m.logger.info("tree %d", n)
    assert m.lines() == [f"INFO tree {n}" for n in range(logs.OF_A_KIND)]
    m.now = 60.0
    m.due[0]()
    assert m.lines() == ["INFO 940 more lines like this in the last 60 s, the last of them: tree 999"]
    m.handler.close()
    assert m.lines() == []


def test_what_was_left_out_is_said_when_the_process_ends() -> None:
    code = """
import logging
from edgecommon import logs
logs.start("orchard", "info", logs.JsonLines(int, trace="why"))
for n in range(50):
    logging.getLogger("orchard").error("it burns")
raise SystemExit(3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 3 and len(said) == 11
    assert said[-1]["message"].startswith("the same line 40 times more in the last ") and said[-1]["level"] == "error"


def test_a_child_of_a_process_does_not_say_what_its_parent_left_out() -> None:
    m = Minutes()
    for _ in range(20):
        m.logger.error("it burns")
    m.handler._forked()
    m.lines()
    m.handler.close()
    assert m.lines() == []


def test_a_flood_hides_no_other_event() -> None:
    m = Minutes()
    for n in range(10_000):
        m.logger.warning("dropped %d", n, extra={"kind": "dropped"})
        if n == 5000:
            m.logger.warning("refused %d", n, extra={"kind": "refused"})
            m.logger.error("it burns")
    said = m.lines()
    assert "WARNING refused 5000" in said and "ERROR it burns" in said


def test_a_flood_of_kinds_is_none() -> None:
    m = Minutes()
    for n in range(5000):
        m.logger.warning("dropped %d", n, extra={"kind": str(n)})
    m.logger.error("it burns")
    m.handler.close()
    said = m.lines()
    assert "ERROR it burns" in said and len(said) < 2 * (logs.KINDS + logs.OF_A_KIND) and "more lines like this" in said[-1]


@pytest.mark.parametrize("size", [1, 100, 1000, 100_000])
def test_no_flood_writes_more_than_some_kilobytes_a_minute(size: int) -> None:
    m = Minutes()
    for n in range(5000):
        m.logger.warning("a message on %s", f"{n:06d}{'x' * size}")
        m.logger.warning("another on %s", f"{n:06d}{'x' * size}")
        try:
            raise ValueError("x" * size)
        except ValueError:
            m.logger.exception("a third")
        m.now += 1 / 250
    m.handler.close()
    said = "\n".join(m.lines())
    assert len(said) < 70_000, "in 20 s"
    assert "more lines like this" in said


def test_long_messages_and_traces_are_cut_and_say_by_how_much() -> None:
    assert logs.cut("x" * 2001) == "x" * 2000 + "... (1 characters more)" and logs.cut("x" * 2000) == "x" * 2000
    trace = logs.cut_trace("a" * 5000 + "b" * 5000)
    assert trace.startswith("aaa") and trace.endswith("bbb") and "(2000 characters less)" in trace


def test_at_level_debug_every_line_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start("orchard", "debug", logs.TextLines("%(message)s"))
    for _ in range(1000):
        logging.getLogger("orchard").info("it is up")
    assert capsys.readouterr().err == "it is up\n" * 1000


def test_threads_and_ends_of_minutes_lose_no_count() -> None:
    m = Minutes()

    def work() -> None:
        for n in range(2000):
            m.logger.info("tree %d", n % 7)
            if n % 500 == 0:
                m.handler.tell()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    m.handler.close()
    said = m.lines()
    left = sum(int(re.findall(r"(\d+) (?:times more|more lines)", line)[0]) for line in said if "more" in line)
    assert left + sum("more" not in line for line in said) == 8000


def test_a_line_on_the_way_to_the_journal_says_how_grave_it_is() -> None:
    levels = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG, 5)
    assert [logs.ranked("a\nb", level) for level in levels] == [f"<{rank}>a\n<{rank}>b" for rank in (2, 3, 4, 6, 7, 7)]


def test_only_a_standard_error_that_systemd_gave_goes_to_the_journal() -> None:
    with open(__file__) as file:
        about = os.fstat(file.fileno())
        here = f"{about.st_dev}:{about.st_ino}"
        assert logs.goes_to_journal(file, {"JOURNAL_STREAM": here})
        for other in ({}, {"JOURNAL_STREAM": ""}, {"JOURNAL_STREAM": here + "1"}):
            assert not logs.goes_to_journal(file, other), "a process whose standard error was led elsewhere"
    assert not logs.goes_to_journal(file, {"JOURNAL_STREAM": here}), "it is closed"
    assert not logs.goes_to_journal(io.StringIO(), {"JOURNAL_STREAM": ""})


def entry(raw: bytes) -> dict[str, str]:
    """Read what came for the journal, as its protocol has it."""
    found = {}
    while raw:
        line, _, rest = raw.partition(b"\n")
        name, equals, text = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", rest[:8])
            text, rest = rest[8 : 8 + length], rest[8 + length :].removeprefix(b"\n")
        found[name.decode()] = text.decode()
        raw = rest
    return found


PROGRAM = """
import logging, sys
from edgecommon import logs
logs.JournalSink.__init__.__defaults__ = (sys.argv[1],)
logs.start("o", sys.argv[2], logging.Formatter("%(message)s"), lambda message: {"EDGE_MODEL": message[:6]})
for n in (1, 2):
    logging.getLogger("o.p").warning("%s: late by %d s", "digits", n)
logging.getLogger("o.p").info("digits\\nEDGE_MODEL=forged")
"""


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("listens", [True, False])
def test_the_journal_gets_fields_by_which_a_line_is_found_and_ranked_lines_where_it_does_not_listen(
    tmp_path: Path, level: str, listens: bool
) -> None:
    address = str(tmp_path / "journal")
    reading, writing = os.pipe()
    about = os.fstat(writing)
    environment = {**os.environ, "JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        if listens:
            journal.bind(address)
        subprocess.run([sys.executable, "-c", PROGRAM, address, level], stderr=writing, env=environment, check=True)
        os.close(writing)
        with os.fdopen(reading) as read:
            rest = read.read()
        if not listens:
            assert rest == "<4>digits: late by 1 s\n<4>digits: late by 2 s\n<6>digits\n<6>EDGE_MODEL=forged\n"
            return
        assert rest == "", "and no line twice"
        first, second, third = (entry(journal.recv(65536)) for _ in range(3))
    assert (first["MESSAGE"], first["PRIORITY"], first["LOGGER"]) == ("digits: late by 1 s", "4", "o.p")
    assert first["EDGE_MODEL"] == third["EDGE_MODEL"] == "digits" and third["MESSAGE"] == "digits\nEDGE_MODEL=forged"
    assert first["MESSAGE_ID"] == second["MESSAGE_ID"] != third["MESSAGE_ID"] and re.fullmatch("[0-9a-f]{32}", first["MESSAGE_ID"])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0::/system.slice/edgecloud-ingest.service\n", "edgecloud-ingest"), ("0::/user.slice/user-1.slice/session-2.scope\n", ""),
        ("12:pids:/x\n1:name=systemd:/user.slice/user@1000.service/app.slice/mine.service/below\n", "mine"), ("", ""),
    ],
)  # fmt: skip
def test_a_line_in_the_journal_is_called_as_its_unit_is(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "cgroup").write_text(text)
    assert logs.own_unit(tmp_path / "cgroup") == name
    assert logs.own_unit(tmp_path / "none") == ""
