"""What an error says to do fits what went wrong."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

import edgeagent.cli
import edgecloud.cli
from modelwire.errors import ConfigError, MissingFile

CASES = [
    ("edgeagent status", "edgeagent init makes it"), ("edgeagent samples add m f.npz", "edgeagent init makes it"),
    ("edgeagent init --device d --fleet f --fleet-key k --model m=none.tflite", "check the path"),
    ("edgeagent init --device d --fleet f --fleet-key k --model none.tflite", "edgeagent init --help"),
    ("edgeagent config check none.toml", "edgeagent init makes it"),
    ("edgecloud devices", "edgecloud init makes one"), ("edgecloud log pi-7", "edgecloud init makes one"),
    ("edgecloud backup copy.db", "edgecloud init makes one"), ("edgecloud restore copy.db", "check the path"),
    ("edgecloud ca list", "edgecloud ca init makes one"), ("edgecloud ca renew", "edgecloud ca init makes one"),
    ("edgecloud bases add none.tflite", "check the path"), ("edgecloud graft none.tflite -o out.tflite", "check the path"),
    ("edgecloud log pi-7@3", "edgecloud show pi-7@3"), ("edgecloud snapshot request pi-7@3", "leave out @3"),
    ("edgecloud keys protect none.key", "check the path"), ("edgecloud audit --syslog :514", "write logs.example"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "hint"), CASES, ids=[line for line, _ in CASES])
def test_the_hint_of_what_is_missing_names_what_makes_it(
    line: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, *words = line.split()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = (edgeagent.cli.main if program == "edgeagent" else edgecloud.cli.main)([*words, "--json"])
    error = json.loads(said.getvalue())
    assert code == error["code"] != 0 and hint in error["hint"], error
    assert list(tmp_path.iterdir()) == [], "nothing was made"


def test_a_registry_that_is_there_and_a_file_of_anchors_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        assert edgecloud.cli.main(["init"]) == 0
        assert edgecloud.cli.main(["verify", "--anchor", "none.anchors"]) == MissingFile.code
    assert "edgecloud anchor none.anchors begins one" in said.getvalue()


def test_the_place_that_raises_knows_best_and_what_is_usual_comes_after() -> None:
    assert ConfigError(reason="x").next_step == ConfigError.hint
    assert ConfigError(reason="x", fix="do this").next_step == "do this"
    assert ConfigError(reason="x", fix="").next_step == ConfigError.hint
