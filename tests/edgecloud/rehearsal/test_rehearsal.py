"""A file is run before it is trusted to a board: what runs passes, what does not is named, and nothing of it reaches this process."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecloud.commands import rehearsals
from edgecloud.commands.authoring import deepest
from edgecloud.graft.grafting import Grafted, Wish, graft
from edgecloud.graft.writing.noted import with_notes, with_rehearsal
from edgecloud.rehearsal import ModeRun, Rehearsal, RehearsalLimits, ran, rehearsed
from edgecloud.rehearsal import limited as _limited
from edgecloud.rehearsal.rates import GRID, UP, fell
from modelwire.errors import NotTrainable
from modelwire.tflite import file as tflite_file
from modelwire.tflite.flatbuffer import File
from modelwire.tflite.graph import parse
from modelwire.tflite.notes import ENTRY, notes_of
from tests.edgecloud.desk import Desk
from tests.stock import STOCK, runtime, stock_file

SUB, TRANSPOSE_CONV = 41, 67
TINY = STOCK.parent / "tiny.tflite"


def grafted(**wish: object) -> Grafted:
    return graft(stock_file("har"), Wish(train=("all",), modes=("head",), batch=4, optimizer="adam", **wish))  # type: ignore[arg-type]


def with_code(file: bytes, old: int, new: int) -> bytes:
    """Return the file with one operator as another one wherever it stands."""
    out, root = bytearray(file), File(memoryview(file), what="model file", entries=len(file)).root(b"TFL3")
    for table in root.tables(1):
        short, long = table.field(0, 1), table.field(3, 4)
        if short is not None and file[short] == old:
            out[short] = new
            if long is not None:
                out[long : long + 4] = new.to_bytes(4, "little")
    assert bytes(out) != file
    return bytes(out)


@pytest.mark.slow("starts two processes that load a runtime", seconds=4)
def test_a_graft_passes_and_each_mode_gets_a_rate_at_which_its_loss_fell() -> None:
    runtime()
    made, heard = grafted(), list[str]()
    found = rehearsed(made.file, stock=made.stock.data, said=heard.append)
    assert found.passed
    assert found.reason == ""
    assert [run.mode for run in found.runs] == ["head", "all"]
    for run in found.runs:
        assert run.learning_rate in GRID[: GRID.index(1e-3) + UP]
        assert run.falls
        assert run.losses[-1] < run.losses[0]
        assert min(run.infer_ms, run.eval_ms, run.step_ms, run.memory) > 0
    assert {"head: open", "head: equal", "all: train", "all: rates"} <= set(heard)


@pytest.mark.slow("starts three processes that load a runtime", seconds=3)
def test_what_does_not_run_is_named_with_the_operator_and_the_stage() -> None:
    runtime()
    made = grafted()
    found = rehearsed(with_code(made.file, SUB, TRANSPOSE_CONV), stock=made.stock.data, rates=False)
    assert not found.passed
    assert "TRANSPOSE_CONV (operator" in found.reason
    weights = tflite_file.read_weights(made.file)
    other = tflite_file.write_weights(made.file, {n: np.asarray(v + np.float32(0.5)) for n, v in weights.items()})
    found = rehearsed(other, stock=made.stock.data, modes=["head"], rates=False)
    assert "equal: infer gives another" in found.reason
    assert "than the stock file" in found.reason


@pytest.mark.slow("starts a process that loads a runtime", seconds=1)
def test_a_file_that_takes_too_much_memory_is_stopped() -> None:
    runtime()
    found = rehearsed(grafted().file, modes=["all"], limits=RehearsalLimits(memory=256 * 1024), rates=False)
    assert found.reason


def test_a_process_that_is_not_done_in_time_is_ended(tmp_path: Path) -> None:
    ended = _limited.told_by(["mode", "{}"], folder=tmp_path, seconds=0.0, said=lambda _: None)
    assert not ended.said
    assert "was stopped" in ended.reason


def test_a_crash_of_the_runtime_is_a_reason_and_what_it_started_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "crashes"
    lines = ("#!/bin/sh", """echo '{"stage": "train"}'""", "sleep 600 >/dev/null &", 'echo $! > "$(dirname "$0")/pid"', "kill -SEGV $$", "")
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    monkeypatch.setattr(_limited.sys, "executable", str(program))  # type: ignore[attr-defined]
    ended = _limited.told_by([], folder=tmp_path, seconds=60.0, said=lambda _: None)
    assert ended.stage == "train"
    assert "the runtime crashed (SIGSEGV)" in ended.reason
    started = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    until = time.monotonic() + 60  # a signal is on its way for a moment
    while alive(started):
        assert time.monotonic() < until


def alive(stat: Path) -> bool:
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


ODD = ("null", "[]", '{"end": 3}', '{"stage": {"a": 1}}', "{" * 5000, '{"end": {"learning_rate": NaN, "losses": 3}}')


@pytest.mark.parametrize("line", ODD)
def test_whatever_the_other_process_says_is_read_as_a_strangers_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    said = tmp_path / "said"
    said.write_text(line + "\n")
    program = tmp_path / "speaks"
    program.write_text(f"#!/bin/sh\ncat {said}\n")
    program.chmod(0o755)
    monkeypatch.setattr(_limited.sys, "executable", str(program))  # type: ignore[attr-defined]
    found = rehearsed(TINY.read_bytes())
    assert not found.passed
    assert found.reason
    assert all(math.isfinite(run.learning_rate) for run in found.runs)


@pytest.mark.slow("starts a process that loads no runtime", seconds=1)
def test_without_a_runtime_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("ai_edge_litert", "tflite_runtime"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    found = rehearsed(TINY.read_bytes())
    assert (found.runtime, found.runs, found.reason, found.passed) == ("", (), "", False)
    assert "ai-edge-litert" in found.no_runtime
    assert rehearsals.say(found).startswith("no: no runtime works here")
    assert notes_of(rehearsals.noted(TINY.read_bytes(), found, "tiny").file).rehearsed == ""


@pytest.mark.slow("starts two processes that load a runtime", seconds=2)
def test_a_stock_file_runs_as_it_is_or_not() -> None:
    runtime()
    assert ran(stock_file("har")).passed
    found = ran(with_code(stock_file("har"), 9, TRANSPOSE_CONV))
    assert not found.passed
    assert "TRANSPOSE_CONV" in found.reason


def test_a_loss_fell_when_it_is_lower_at_the_end_and_never_grew() -> None:
    assert fell([1.0, 0.9, 0.8])
    assert fell([1.0, 1.05, 0.8])
    assert not fell([1.0, 1.5, 0.8])
    assert not fell([1.0, 0.9, 1.0])
    assert not fell([1.0, 0.9])
    assert not fell([1.0, math.inf, 0.5])
    assert not fell([1.0, math.nan, 0.5])


def test_the_word_of_a_rehearsal_travels_in_the_notes_and_changes_nothing_else() -> None:
    made = grafted()
    file = with_rehearsal(made.file, "a-runtime 1.0", {"head": 0.01, "all": 0.0003})
    notes, before = notes_of(file), notes_of(made.file)
    assert notes.rehearsed == "a-runtime 1.0"
    assert {m.name: m.learning_rate for m in notes.modes} == {"head": 0.01, "all": 0.0003}
    assert before.rehearsed is None
    assert replace(notes, rehearsed=None, modes=before.modes) == before
    assert with_rehearsal(file, "a-runtime 1.0", {"head": 0.01, "all": 0.0003}) == file
    assert notes_of(with_rehearsal(file, "", {})) == replace(before, rehearsed="")
    assert file.endswith(made.file)
    for name, value in tflite_file.read_weights(made.file).items():
        assert tflite_file.read_weights(file)[name].tobytes() == value.tobytes()
    older = with_rehearsal(TINY.read_bytes(), "a-runtime 1.0", {"all": 0.1})
    assert notes_of(older).modes[0].learning_rate == 0.1


@pytest.mark.parametrize("said", ["NaN", "-1", '"0.1"', "true", "1e999", "1e-30", "[]", "Infinity", "9" * 400, "null"])
@pytest.mark.parametrize("file", [TINY.read_bytes(), graft(stock_file("har"), Wish(batch=4)).file], ids=["older", "graft"])
def test_a_suggested_rate_that_is_none_is_refused(file: bytes, said: str) -> None:
    good = with_rehearsal(file, "a-runtime 1.0", {"head": 0.03125, "all": 0.03125})
    bad = with_notes(file, notes_in(good).replace(b"0.03125", said.encode()))
    with pytest.raises(NotTrainable, match="learning rate"):
        notes_of(bad)


@pytest.mark.parametrize("said", ["true", "3", '""', '"a\\nb"', "[]", '"' + "a" * 65 + '"'])
def test_a_word_of_a_rehearsal_that_is_none_is_refused(said: str) -> None:
    good = with_rehearsal(TINY.read_bytes(), "a-runtime 1.0", {})
    with pytest.raises(NotTrainable, match="rehearsed"):
        notes_of(with_notes(TINY.read_bytes(), notes_in(good).replace(b'"a-runtime 1.0"', said.encode())))


def notes_in(file: bytes) -> bytes:
    m = parse(file)
    start, size = m.buffers[dict(m.metadata)[ENTRY]]
    return file[start : start + size]


@pytest.mark.slow("rehearses two grafts and a base", seconds=6)
def test_commands_rehearse_what_they_write_and_say_so(desk: Desk) -> None:
    runtime()
    stock, out = str(STOCK / "har.tflite"), "har.tflite"
    said = desk.json("graft", stock, "--batch", "4", "-o", out)
    assert said["rehearsed"]["passed"]
    assert said["bytes"] == Path(out).stat().st_size
    looked = desk.json("inspect", out)
    assert looked["rehearsed"] == said["rehearsed"]["runtime"]
    assert looked["learning_rates"] == {"head": said["rehearsed"]["modes"][0]["learning_rate"]}
    again = desk.json("pack", out, "-o", "again.tflite")
    assert again["rehearsed"]["passed"]
    assert desk.json("graft", stock, "--batch", "4", "--no-rehearse", "-o", "not.tflite")["rehearsed"] is None
    assert notes_of(Path("not.tflite").read_bytes()).rehearsed == ""
    desk.ok("init", "--fleet", "home")
    assert "no, its notes say" in desk.ok("bases", "add", "not.tflite", "--no-rehearse")
    Path("broken.tflite").write_bytes(with_code(Path("not.tflite").read_bytes(), SUB, TRANSPOSE_CONV))
    error = desk.error("bases", "add", "broken.tflite")
    assert error["error"] == "NotTrainable"
    assert "TRANSPOSE_CONV (operator" in str(error["message"])
    assert [b["base"] for b in desk.json("bases", "list")["bases"]] == ["not"]
    assert desk.error("pack", "broken.tflite", "-o", "packed.tflite")["error"] == "NotTrainable"
    assert not Path("packed.tflite").exists()


def test_a_graft_that_does_not_run_is_refused_with_the_deepest_cut_that_does(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def runs(file: bytes, **_: object) -> Rehearsal:
        """Stand for a runtime that runs no more than two layers."""
        modes = notes_of(file).modes
        tried.append(modes[-1].name)
        deep = {m.name: len(m.weights) > 4 for m in modes}
        return Rehearsal("a-runtime 1.0", "", tuple(ModeRun(m.name, m.signature, "open: no" if deep[m.name] else "") for m in modes))

    monkeypatch.setattr(deepest, "rehearsed", runs)
    error = desk.error("graft", str(STOCK / "har.tflite"), "--train", "all", "--modes", "head", "-o", "out.tflite")
    assert "mode all: open: no; the deepest cut that works is --train last:2" in str(error["message"])
    assert not Path("out.tflite").exists()
    assert tried[0] == "all"
    assert set(tried[1:]) <= {"last:2", "last:3"}


@pytest.mark.slow("trains all of a landmark model with Adam at several rates", seconds=30)
def test_a_detector_that_customary_rates_break_gets_a_lower_one_and_its_loss_falls() -> None:
    runtime()
    made = graft(stock_file("face_landmark"), Wish(train=("all",), batch=1, optimizer="adam", loss="mse"))
    (run,) = rehearsed(made.file, limits=RehearsalLimits(rates=60.0)).runs
    assert run.passed
    assert 0 < run.learning_rate < 1e-3
    assert run.falls


@pytest.mark.parametrize("contract", ['"2"', "null", "true", "Infinity", "[2]", "1e300"])
def test_notes_with_a_contract_that_is_no_number_take_the_word_of_a_rehearsal(contract: str) -> None:
    file = with_notes(TINY.read_bytes(), b'{"contract":%s}' % contract.encode())
    assert notes_of(with_rehearsal(file, "runtime 1", {})).rehearsed == "runtime 1"
