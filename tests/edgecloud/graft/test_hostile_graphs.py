"""Files that cost whoever reads them, and damaged ones: each is refused by name or grafts and runs, within time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgecloud import cli
from edgecloud.graft.grafting import Wish
from edgecloud.graft.inspecting import look, missing_rules
from edgecloud.zoo import limited
from tests.stock import ROOT, runtime, stock_file

from . import hostile_graphs, mutants

SECONDS, MEMORY = 120.0, 1 << 30  # of one look, on a slow machine that does other things: what hangs or multiplies is beyond either
SLICE = 60  # mutants here; make evidence TOPIC=zoo tries 2,000


@pytest.mark.parametrize("case", hostile_graphs.CASES)
def test_a_file_made_to_cost_ends_within_time_and_memory(case: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.tflite"
    path.write_bytes(hostile_graphs.CASES[case]())
    ended = limited.run("edgecloud.zoo.trying", [str(path), str(tmp_path), "2", "head", "all"], limited.ChildBounds(SECONDS, MEMORY))
    assert isinstance(ended.answer, dict), ended.reason
    assert ended.answer["kind"] in ("float", "unreadable", "int8")
    assert ended.answer["reason"] or all(mode["reason"] or mode["file"] for mode in ended.answer["modes"])


@pytest.mark.parametrize("command", ["inspect FILE", "graft FILE -o OUT", "pack FILE -o OUT", "int8-head expose FILE -o OUT"])
@pytest.mark.parametrize("case", ["scales shared by all tensors", "a circle", "an input of -1 x -1", "a constant that is too short"])
def test_every_command_that_reads_a_model_names_what_is_wrong(
    case: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "hostile.tflite", tmp_path / "out.tflite"
    path.write_bytes(hostile_graphs.CASES[case]())
    words = command.replace("FILE", str(path)).replace("OUT", str(out)).split()
    code = cli.main([*words, "--json"])
    assert code not in (0, 1) or command.startswith("inspect")
    assert not out.exists()
    said = capsys.readouterr()
    assert json.loads(said.err or said.out)


def test_a_loop_that_never_ends_is_stopped_and_the_next_file_is_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runtime()
    (tmp_path / "endless.tflite").write_bytes(hostile_graphs.endless_loop())
    (tmp_path / "later.tflite").write_bytes(stock_file("regression"))
    assert cli.main(["zoo", str(tmp_path), "--seconds", "6", "--modes", "head", "--no-rates", "--json"]) == 0
    endless, later = json.loads(capsys.readouterr().out)["files"]
    assert endless["runs"] is False and endless["reason"]
    assert later["runs"] is True and later["modes"][0]["result"] in ("learns", "trains")


def test_mutants_graft_and_run_or_are_refused() -> None:
    runtime()
    out = subprocess.run(
        [sys.executable, "-m", "tests.edgecloud.graft.mutants", "--count", str(SLICE)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout == ""  # what is broken, slow or large is told there
    counted = json.loads(out.stderr.split("}")[0].replace("'", '"') + "}")
    assert sum(counted.values()) == SLICE and counted["refused"] > 0 and counted["runs"] > 0


def test_a_mutant_is_the_same_each_time() -> None:
    assert mutants.mutant(7) == mutants.mutant(7) != mutants.mutant(8)


def test_what_keeps_a_file_from_being_trained_is_named() -> None:
    data = hostile_graphs.layers(6, 92 + 1000)  # an operator that nobody knows, between the third layer and the fourth
    ((name, why),) = missing_rules(data, Wish(train=("all",), batch=2))
    assert name and why
    assert missing_rules(data, Wish(train=("last:2",), batch=2)) == ()
    looked = look(data, Wish(batch=2), rate=1e9)
    assert looked.modes[0].cost is not None and looked.modes[-1].reason
