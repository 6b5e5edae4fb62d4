"""What a command says and how it ends: one contract for both commands."""

from __future__ import annotations

import json

import pytest

from edgecommon.printing import CLOSED_PIPE, INTERRUPTED, USAGE, Answer, Parser, answered, lines_of, visible
from modelwire.errors import BadArgument, MissingFile, ModelWireError, RegistryDamaged

ANSWER = Answer({"bytes": b"\x01\xff", "n": 1}, "said", code=3)


def surroundings(error: OSError) -> ModelWireError:
    return BadArgument(reason=str(error.strerror), fix="make room")


def ends(
    capsys: pytest.CaptureFixture[str], what: Answer | BaseException, *, as_json: bool = False, interrupted: str = ""
) -> tuple[int, str, str]:
    """Return the exit code, and what was said on standard output and standard error."""

    def work() -> Answer:
        if isinstance(what, BaseException):
            raise what
        return what

    code = answered("prog", work, as_json=as_json, surroundings=surroundings, interrupted=interrupted)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_an_answer_is_text_for_people_and_one_document_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(capsys, ANSWER) == (3, "said\n", "")
    code, out, err = ends(capsys, ANSWER, as_json=True)
    assert (code, json.loads(out), err) == (3, {"bytes": "01ff", "n": 1}, "")
    assert ends(capsys, Answer({})) == (0, "", ""), "what has nothing to say says nothing"


def test_an_error_says_what_and_what_to_do_next_and_ends_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    error = BadArgument(reason="no such thing", fix="name another")
    assert ends(capsys, error) == (15, "", "prog: no such thing\n  try: name another\n")
    code, out, err = ends(capsys, error, as_json=True)
    assert (code, out) == (15, "")
    assert json.loads(err) == {"error": "BadArgument", "code": 15, "message": "no such thing", "hint": "name another"}
    assert ends(capsys, OSError(28, "No space left on device"))[::2] == (15, "prog: No space left on device\n  try: make room\n")
    assert ends(capsys, MissingFile(path="x", what="it"))[0] == 12


def test_an_answer_that_ends_in_an_error_is_said_whole(capsys: pytest.CaptureFixture[str]) -> None:
    error = RegistryDamaged(path="x", reason="it is wrong")
    code, out, err = ends(capsys, Answer({}, "two versions are wrong", error=error))
    assert (code, out) == (error.code, "two versions are wrong\n") and err.startswith(f"prog: {error.message}\n")


def test_ctrl_c_ends_with_130_and_says_so_where_the_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(capsys, KeyboardInterrupt()) == (INTERRUPTED, "", "")
    assert ends(capsys, KeyboardInterrupt(), interrupted="stopped") == (INTERRUPTED, "", "prog: stopped\n")
    assert json.loads(ends(capsys, KeyboardInterrupt(), as_json=True, interrupted="stopped")[2])["error"] == "Interrupted"


def test_a_reader_that_has_gone_is_no_error(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[int, int]] = []
    monkeypatch.setattr("os.dup2", lambda old, new: moved.append((old, new)))
    assert ends(capfd, BrokenPipeError(32, "Broken pipe")) == (CLOSED_PIPE, "", "")
    assert len(moved) == 1, "what is still to be flushed goes nowhere"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_usage_error_follows_the_same_contract(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    parser = Parser(prog="prog thing")
    parser.json_errors = as_json
    with pytest.raises(SystemExit) as e:
        parser.parse_args(["--nonsense"])
    out, err = capsys.readouterr()
    assert (e.value.code, out) == (USAGE, "")
    if as_json:
        hint, message = "prog thing --help", "unrecognized arguments: --nonsense"
        assert json.loads(err) == {"error": "Usage", "code": USAGE, "message": message, "hint": hint}
    else:
        assert err == "usage: prog thing [-h]\nprog thing: unrecognized arguments: --nonsense\n  try: prog thing --help\n"


def test_what_others_wrote_moves_no_cursor_and_begins_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert visible("a\x1b[2J\n\x9b\u202eé°") == r"a\x1b[2J\n\x9b\u202eé°" and lines_of(["a\nb", "c"]) == "a\\nb\nc"
    assert ends(capsys, Answer({}, "one\x1b\ntwo\r"))[1] == "one\\x1b\ntwo\\r\n", "line ends of an answer stay"
    error = BadArgument(reason="no\x1b[31m\nFORGED", fix="name\u202e another")
    assert ends(capsys, error)[2] == "prog: no\\x1b[31m\\nFORGED\n  try: name\\u202e another\n"
    assert "\x7f" not in ends(capsys, Answer({"a": "\x7f"}), as_json=True)[1]
