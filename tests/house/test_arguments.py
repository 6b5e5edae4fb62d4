"""Every option of every command is checked before any work begins, and says in words what it expected."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgeagent.cli
import edgecloud.cli
from edgecommon.arguments import LARGEST

PROGRAMS: dict[str, Callable[[list[str]], int]] = {"edgeagent": edgeagent.cli.main, "edgecloud": edgecloud.cli.main}
BAD = ("abc", "-3", "", "1e999", "nan", "inf", "9" * 40, "0x10", "1_000", "٣", "\x1b[31m", " 5", "--", "5 5")
# What a value is where an option takes any text, so that the options beside it can be looked at.
FILLED = {"FILE.tflite": "none.tflite", "NAME=FILE": "a=none.tflite", "NAME=VALUE": "a=b", "KEY=VALUE": "link.resend=10s", "FILE": "none"}


def leaves(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Yield every command that does something, with the words that call it."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if words and (not below or parser.get_default("run") is not None):
        yield words, parser
    for action in below:
        for name, child in action.choices.items():
            yield from leaves(child, (*words, name))


COMMANDS = [
    (program, words, parser)
    for program, whole in (("edgeagent", edgeagent.cli.parser()), ("edgecloud", edgecloud.cli.parser()))
    for words, parser in leaves(whole)
]
ids = [f"{program} {' '.join(words)}" for program, words, _ in COMMANDS]


def needed(parser: argparse.ArgumentParser) -> list[str]:
    """Return words that a command can't do without."""
    out: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.nargs in ("?", "*"):
            continue
        if action.required or (not action.option_strings and action.dest != "help"):
            value = str(next(iter(action.choices))) if action.choices else FILLED.get(str(action.metavar), "pi-7")
            out += [action.option_strings[-1], value] if action.option_strings else [value]
    return out


def typed(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if a.option_strings and (a.type is not None or a.choices is not None) and a.nargs != 0]


def accepted(action: argparse.Action, text: str) -> bool:
    """Return whether a value is a good one after all, by the option's own type: nothing is to be said of that."""
    if action.choices is not None:
        return text in action.choices
    assert callable(action.type)
    try:
        action.type(text)
    except (argparse.ArgumentTypeError, ValueError):
        return False
    return True


def call(program: str, words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = PROGRAMS[program](words)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(("program", "words", "parser"), COMMANDS, ids=ids)
def test_a_bad_value_is_a_usage_error_that_names_its_option_and_no_function(
    program: str, words: tuple[str, ...], parser: argparse.ArgumentParser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for action in typed(parser):
        option = max(action.option_strings, key=len)
        refused = [text for text in BAD if not accepted(action, text)]
        assert refused, f"{option} takes anything, and has a type"
        for text in refused:
            code, out, err = call(program, [*words, *needed(parser), f"{option}={text}", "--json"])
            said = json.loads(err)
            assert (code, out, said["error"]) == (2, "", "Usage"), (option, text, err)
            assert option in said["message"] and "\x1b" not in said["message"], said
            assert not re.search(r"\binvalid \w+ value|\b_\w+|\bTraceback|lambda|<function", said["message"]), said
    assert list(tmp_path.iterdir()) == [], "no work was begun"


def test_no_number_is_read_by_pythons_own_types() -> None:
    """int() takes 1_000, Arabic digits and blanks, and argparse says its name to the operator; float() takes nan."""
    loose = [
        (program, *words, action.dest) for program, words, parser in COMMANDS for action in parser._actions
        if action.type in (int, float, bool) or (action.type is not None and "lambda" in str(action.type))
    ]  # fmt: skip
    assert loose == []


@pytest.mark.parametrize(("program", "words", "parser"), COMMANDS, ids=ids)
def test_what_is_any_text_never_ends_in_a_trace(
    program: str, words: tuple[str, ...], parser: argparse.ArgumentParser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if words[0] in ("doctor", "version", "broker"):
        pytest.skip("looks at this machine, whatever is typed")
    monkeypatch.chdir(tmp_path)
    texts = [a for a in parser._actions if a.option_strings and a.nargs != 0 and a not in typed(parser) and a.dest != "db"]
    for action in texts:
        for text in ("", "-3", "\x1b[31m\nFORGED", "x" * 300, "\udcff"):
            code, _, err = call(program, [*words, *needed(parser), f"{max(action.option_strings, key=len)}={text}"])
            assert code != 1 and "Traceback" not in err and "\x1b" not in err and "\nFORGED" not in err, (action.dest, text, err)


PAIRS = [
    ("edgeagent", "run --fresh", "--fresh does nothing without --rounds"), ("edgeagent", "run --pause 2s", "--pause does nothing without"),
    ("edgeagent", "run --once --rounds 2", "not allowed with"), ("edgeagent", "samples add", "takes MODEL and FILE"),
    ("edgeagent", "samples list m f.npz", "takes no FILE"), ("edgeagent", "samples list --label 0", "--label does nothing beside list"),
    ("edgeagent", "samples list --context a=b", "--context does nothing"), ("edgeagent", "samples add m f -n 3", "--limit does nothing"),
    ("edgeagent", "outbox retry -n 3", "--limit does nothing beside retry"),
    ("edgeagent", "measure --known --mode head", "--mode does nothing"),
    ("edgeagent", "certificate show x.pem", "FILE does nothing beside show"), ("edgeagent", "certificate install", "takes a FILE"),
    ("edgeagent", "certificate install x -o y", "--out does nothing"), ("edgeagent", "certificate request --ca x", "--ca does nothing"),
    ("edgeagent", "config check --origin", "--origin does nothing beside check"),
    ("edgeagent", "config show f --dir d", "--dir does nothing"),
    ("edgeagent", "config show --dir d --config c", "not allowed with"), ("edgeagent", "log -n -3", "'-3' is not a whole number"),
    ("edgecloud", "ingest --idle 3", "--idle does nothing without --once"), ("edgecloud", "claim list --count 3", "unrecognized"),
    ("edgecloud", "claim --count 3 list", "belongs to edgecloud claim new"), ("edgecloud", "claim -o f", "does nothing without --count"),
    ("edgecloud", "claim new", "--count or --serials is needed"), ("edgecloud", "audit --lines --syslog h", "--lines does nothing"),
    ("edgecloud", "audit --lines -n 3", "--limit does nothing beside --lines"), ("edgecloud", "ca rotate --anyway", "without --retire"),
    ("edgecloud", "ca rotate --retire --years 3", "--years does nothing"),
    ("edgecloud", "trust rotate root --now --overlap 3d", "--overlap"),
    ("edgecloud", "trust rotate root --fleet-key f", "--fleet-key does nothing without --records"),
    ("edgecloud", "verify --all pi-7", "not allowed with"), ("edgecloud", "verify --all --file f", "--all does nothing beside --file"),
    ("edgecloud", "verify pi-7@1 --file f --anchor a", "--anchor does nothing beside --file"),
    ("edgecloud", "forget pi-7@1 --rows 0 --expires 3d", "--expires does nothing without --send"),
    ("edgecloud", "forget pi-7@1 --rows 0 --key f", "--key does nothing without --send"),
    ("edgecloud", "devices resume pi-7 --decline --expires 3d", "--expires does nothing beside --decline"),
    ("edgecloud", "card --model m", "--model does nothing without --fleet"), ("edgecloud", "card pi-7 --fleet", "--fleet does nothing"),
    ("edgecloud", "ca issue --centre --request r", "not allowed with"),
    ("edgecloud", "broker refresh -o d --port 5", "unrecognized"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "line", "why"), PAIRS, ids=[line for _, line, _ in PAIRS])
def test_an_option_that_would_do_nothing_is_refused_before_any_work(
    program: str, line: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(program, line.split())
    assert (code, out) == (2, "") and why in err and f"try: {program}" in err, err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_command_that_lacks_every_word_is_answered_by_its_help(program: str) -> None:
    whole = {"edgeagent": edgeagent.cli.parser(), "edgecloud": edgecloud.cli.parser()}[program]
    code, out, err = call(program, [])
    assert code == 2 and out == "" and err.startswith(f"usage: {program} ") and "examples:" in err
    for words, parser in leaves(whole):
        if needed(parser):
            code, out, err = call(program, list(words))
            assert code == 2 and out == "" and err.startswith(f"usage: {program} {' '.join(words)} ") and "examples:" in err, words
    said = json.loads(call(program, ["--json"])[2]) if program == "edgecloud" else {"code": 2}
    assert said["code"] == 2


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_release_is_said_wherever_it_is_asked_for(program: str) -> None:
    lines = [[], *[list(words[:n]) for p, words, _ in COMMANDS if p == program for n in range(1, len(words) + 1)]]
    assert {call(program, [*words, "--version"]) for words in lines} == {(0, f"{program} {edgeagent.__version__}\n", "")}


def test_the_largest_number_is_one() -> None:
    assert LARGEST == 2**63 - 1
