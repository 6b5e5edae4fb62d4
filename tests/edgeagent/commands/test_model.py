"""`edgeagent model`: what it says, what it refuses before it begins, and that people's own settings stay theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeagent import cli
from edgeagent.commands.model import rate_of
from edgeagent.settings import editing, reading
from edgeagent.settings.template import model_lines
from edgeagent.state.folder import LOCK
from edgecloud.graft.grafting import Wish, graft
from edgecloud.graft.writing.noted import with_rehearsal
from edgecommon import files
from tests.edgeagent.boards import fill, make, open_folder
from tests.stock import stock_file
from tests.worlds import MODELS

DIGITS = f"digits={MODELS / 'digits.tflite'}"


def call(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(["model", *words, "--dir", str(folder)])
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return code, said.out, said.err


def document(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> Any:
    code, out, err = call(capsys, folder, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_add_says_what_to_do_at_the_centre_and_list_shows_both(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make(tmp_path)
    code, out, _ = call(capsys, tmp_path, "add", DIGITS)
    assert code == 0 and f"edgecloud bases add {MODELS / 'digits.tflite'}" in out and "start the agent" in out
    rows = document(capsys, tmp_path, "list")["models"]
    assert [(m["name"], m["version"]) for m in rows] == [("tiny", 0), ("digits", 0)]
    assert all(m["in_settings"] and m["in_state"] for m in rows)
    text = (tmp_path / reading.FILE).read_text()
    assert "customary for" not in text.split('name = "tiny"')[0]
    gone = document(capsys, tmp_path, "remove", "digits")
    assert gone == {"model": "digits", "version": 0, "samples": 0, "dropped": []}
    assert [m["name"] for m in document(capsys, tmp_path, "list")["models"]] == ["tiny"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["add"], 2, "model add takes NAME=FILE"),
        (["add", "digits"], 10, "is not NAME=FILE"),
        (["add", "digits=nowhere.tflite"], 12, "the base model is not there"),
        (["add", "Digits=x"], 10, "model add"),
        (["add", "../x=x"], 10, "model add"),
        (["add", "x=" + __file__], 41, f"{Path(__file__).name}: it does not carry the mark TFL3"),
        (["add", DIGITS, "--yes"], 2, "--yes does nothing beside add"),
        (["remove"], 2, "model remove takes NAME"),
        (["remove", DIGITS], 2, "takes a name alone"),
        (["remove", "tiny"], 15, "only model"),
        (["remove", "other"], 15, "there is no model 'other'"),
        (["remove", "../models"], 15, "there is no model"),
        (["remove", "tiny", "--exact"], 2, "--exact does nothing beside remove"),
        (["list", "tiny"], 2, "model list takes no name"),
        (["list", "--drop-unsent"], 2, "--drop-unsent does nothing beside list"),
    ],
)
def test_what_can_t_be_done_is_said_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    make(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.suffix not in (".db", ".db-wal", ".db-shm")}
    found, _, err = call(capsys, tmp_path, *words)
    assert (found, said in err) == (code, True), err
    assert {p: p.read_bytes() for p in before} == before


def test_beside_a_running_agent_nothing_is_changed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make(tmp_path)
    with files.locked(tmp_path / "state" / LOCK):
        code, _, err = call(capsys, tmp_path, "add", DIGITS)
        assert code == 13 and "in use" in err and "stop" in err
        assert [m["name"] for m in document(capsys, tmp_path, "list")["models"]] == ["tiny"]


def test_samples_go_only_with_a_yes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make(tmp_path)
    call(capsys, tmp_path, "add", f"b={MODELS / 'tiny.tflite'}")
    with open_folder(reading.load(tmp_path / reading.FILE, environment={}, flags={}), alone=True) as device:
        fill(device, model="b")
    code, _, err = call(capsys, tmp_path, "remove", "b")
    assert code == 86 and "the 40 samples of b" in err and "--yes" in err
    code, out, _ = call(capsys, tmp_path, "remove", "b", "--yes")
    assert code == 0 and "40 samples" in out


def test_settings_that_can_t_be_added_to_are_left_and_the_lines_are_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / reading.FILE
    text = path.read_text()
    inline = 'model = [{ name = "tiny" }]\n' + text[: text.index("[[model]]")]
    path.write_text(inline)
    code, out, err = call(capsys, tmp_path, "add", DIGITS)
    assert code == 15 and "was left as it is" in err and '[[model]]\nname = "digits"' in out
    assert path.read_text() == inline and not (tmp_path / "state" / "models" / "digits").exists()
    path.write_text(inline.replace('{ name = "tiny" }', '{ name = "tiny" }, { name = "digits" }'))
    assert call(capsys, tmp_path, "add", DIGITS)[0] == 0, "its owner wrote them"
    assert [m["in_state"] for m in document(capsys, tmp_path, "list")["models"]] == [True, True]
    code, _, err = call(capsys, tmp_path, "remove", "digits")
    assert code == 15 and "by hand" in err


@pytest.mark.parametrize(
    ("mode", "rate", "said"), [("features", 0.01, "head 0.01"), ("head", 0.01, "head 0.01"), ("all", 3e-5, "all 3e-05")]
)
def test_the_rate_to_begin_with_is_the_one_of_the_files_rehearsal(mode: str, rate: float, said: str) -> None:
    made = graft(stock_file("har"), Wish(train=("all",), modes=("head",), optimizer="adam", batch=4)).file
    file = with_rehearsal(made, "a-runtime 1.0", {"all": 3e-5, "head": 0.01})
    assert rate_of(file, "har", mode) == (rate, f"found when its file was rehearsed: {said}")
    assert rate_of(made, "har", mode) == (0.001, "customary for adam, with which its file trains")
    lines = "\n".join(model_lines("har", rate_of(file, "har", mode)))
    assert reading.parse(lines)["model"] == [{"name": "har", "train": {"learning_rate": rate}}]


def test_where_the_board_chooses_a_mode_no_rate_is_written_that_suits_one_of_them_alone() -> None:
    made = graft(stock_file("har"), Wish(train=("all",), modes=("head",), optimizer="adam", batch=4)).file
    rate = rate_of(with_rehearsal(made, "a-runtime 1.0", {"all": 3e-5, "head": 0.01}), "har", "auto")
    assert rate == (0.0, "left out, each mode takes its own, found when its file was rehearsed: head 0.01, all 3e-05")
    assert reading.parse("\n".join(model_lines("har", rate)))["model"] == [{"name": "har"}]
    before = '[device]\nname = "d"\n'
    added = editing.with_model(before, "har", rate)
    assert added.startswith(before) and "head 0.01, all 3e-05" in added
    same = with_rehearsal(made, "a-runtime 1.0", {"all": 0.01, "head": 0.01})
    assert rate_of(same, "har", "auto") == (0.01, "found when its file was rehearsed: head 0.01, all 0.01")
