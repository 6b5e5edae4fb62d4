"""Colours of the centre's answers: on a terminal that wants them, on words of ours, and never an escape of anybody else."""

from __future__ import annotations

import re
import sys

import pytest

from edgecloud.commands.answer import DRAWN, ago, progress, table
from edgecloud.commands.painting import painted
from edgecommon.printing import Answer, print_answer
from edgecommon.tables import Column


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return monkeypatch


ROWS = [("@2", "refused", "another root"), ("@1", "verified", "verified by a note")]


def test_states_are_coloured_and_nothing_else_changes(terminal: pytest.MonkeyPatch) -> None:
    text = table(("version", "status", "note"), ROWS)
    assert "\x1b" not in text and "───" in text
    drawn = painted(text)
    assert re.sub(r"\x1b\[[0-9;]*m", "", drawn) == text, "colours alone were added"
    assert re.search(r"\x1b\[[0-9;]*31[0-9;]*mrefused\x1b\[0m", drawn) and re.search(r"\x1b\[32mverified\x1b\[0m", drawn)
    assert "verified by a note" in drawn, "a word of a sentence is none"


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_who_wants_no_colours_gets_none(terminal: pytest.MonkeyPatch, name: str) -> None:
    terminal.setenv(name, {"NO_COLOR": "1", "TERM": "dumb"}[name])
    text = table(("version", "status", "note"), ROWS)
    assert painted(text) == text


def test_a_pipe_gets_plain_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    text = table(("version", "status", "note"), ROWS)
    assert text == "version  status    note\n@2       refused   another root\n@1       verified  verified by a note" == painted(text)


def test_long_tables_are_not_drawn_and_fit_all_the_same(terminal: pytest.MonkeyPatch) -> None:
    text = table((Column("device"), Column("key", 1)), [("d" * 40, "k" * 64)] * (DRAWN + 1))
    assert "─" not in text and max(map(len, text.splitlines())) <= 80 and "no room for key" in text


def test_a_title_of_others_and_more_rows_are_said(terminal: pytest.MonkeyPatch) -> None:
    text = table(("a",), [(n,) for n in range(5)], title="t\x1b[2J", limit=2)
    assert text.startswith("t\\x1b[2J\n") and text.endswith("3 more: -n 0 shows all") and "\n4" not in text
    assert table(("a",), [], title="keys") == "keys: none" and table(("a",), []) == "none"


def test_sentences_of_a_table_without_ranks_are_wrapped_and_none_is_lost(terminal: pytest.MonkeyPatch) -> None:
    found = "mqtt://127.0.0.1:1: [Errno 111] Connection refused by who listens"
    fix = "start the broker: systemctl start mosquitto, then again"
    text = table(("", "what", "", "what to do"), [("ok", "kernel", "avx2", ""), ("FIX", "broker", found, fix)])
    assert max(map(len, text.splitlines())) <= 80 and "no room" not in text
    assert all(word in text for word in (found + " " + fix).split())


def test_long_work_draws_a_bar_on_a_terminal_and_the_answer_wipes_it(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    times = iter(range(100))
    terminal.setattr("edgecloud.commands.answer.time.monotonic", lambda: float(next(times)))
    say = progress("versions")
    for done in (1, 5, 10):
        say(done, 10)
    print_answer(Answer({}, "all exact"), as_json=False)
    out, err = capsys.readouterr()
    drawn = re.sub(r"\x1b\[[0-9;?]*m", "", err).split("\r\x1b[K")
    assert [line.split()[0] + line[line.rindex("━") + 1 :] for line in drawn[1:-1]] == [f"versions {n} of 10" for n in (1, 5, 10)]
    assert drawn[0] == drawn[-1] == "" and "\n" not in err and out == "all exact\n"


def test_in_a_pipe_long_work_says_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    say = progress("versions", every=0.0)
    say(5, 10)
    assert capsys.readouterr().err == "versions: 5 of 10 (50 %)\n"


def test_how_long_ago() -> None:
    at = 1_700_000_000
    said = [ago(at - s, at) for s in (0, 59, 60, 3599, 7200, 86400, 400 * 86400, -30, -3600)]
    assert said == ["0 s ago", "59 s ago", "1 m ago", "59 m ago", "2 h ago", "1 d ago", "1 y ago", "0 s ago", "ahead of this clock"]
    assert ago(None, at) == "never"
