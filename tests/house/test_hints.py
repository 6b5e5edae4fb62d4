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
from modelwire.wire.keys import write_fleet
from tests import keys

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


TINY = Path(__file__).parents[1] / "models" / "tiny.tflite"
MADE = ["none.tflite", "k.key", "edgeagent.toml"]
WRONG = [
    ("edgeagent init --device d --fleet f --fleet-key k.key --model m=none.tflite", "no .tflite file", "the centre has as its base"),
    ("edgeagent init --device d --fleet f --fleet-key k.key --model m=TINY", "says not which kind", "the centre's fleet.pub"),
    ("edgeagent init --device d --fleet f --fleet-key FLEET --model m=TINY --key k.key", "says not which kind", "device's own device.key"),
    ("edgeagent init --device d --fleet f --fleet-key FLEET --model m=TINY --claim k.key", "not that it is one", "edgecloud claim new"),
    ("edgeagent init --device d --fleet f --fleet-key FLEET --model m=TINY", "never overwrites", "edgeagent model add"),
    ("edgeagent config check edgeagent.toml", "no text", "mend that"),
]


@pytest.mark.parametrize(("line", "said", "hint"), WRONG, ids=[hint for _, _, hint in WRONG])
def test_the_hint_of_a_wrong_file_names_the_right_one(
    line: str, said: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in MADE:
        Path(name).write_bytes(b"\xff\n" if name.endswith(".toml") else b"odd\n")
        Path(name).chmod(0o600)
    Path("fleet.pub").write_text(write_fleet(keys.FLEET))
    words = line.replace("FLEET", "fleet.pub").replace("TINY", str(TINY)).split()[1:]
    code = edgeagent.cli.main([*words, "--json"])
    error = json.loads(capsys.readouterr().err)
    assert code == error["code"] != 0 and said in error["message"] and hint in error["hint"], error


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
