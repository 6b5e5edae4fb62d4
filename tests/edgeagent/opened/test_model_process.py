"""A model in a process of its own gives the bits that it gives here; and where that process ends, it is told, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagent.board.sensors import Sensors
from edgeagent.opened.model_process import ModelProcess
from edgeagent.service.goal import Goal
from edgecommon import runtime
from modelwire.errors import NotTrainable, RuntimeLost, RuntimeUnusable, ShapeMismatch
from tests.edgeagent.boards import TINY, ScriptedModel, centre, fill, rig
from tests.edgeagent.centre import FakeClock

from .processes import gone, runs

ODD = "tests.edgeagent.opened.odd_model"
X, Y = np.zeros((16, 4), np.float32), np.eye(3, dtype=np.float32)[np.arange(16) % 3]
odd = partial(ModelProcess, TINY, module=ODD)


@pytest.fixture
def installed() -> runtime.Runtime:
    try:
        return runtime.load()
    except RuntimeUnusable as e:
        pytest.skip(f"no TFLite runtime in this environment: {e}")


def test_the_bits_are_those_of_a_model_that_is_opened_here(installed: runtime.Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagent.opened.model_process.PIECE", 20 * 16)  # several pieces, the last one no whole batch
    here, there = installed.open(TINY, signature=""), ModelProcess(TINY, model="tiny")
    x = np.random.default_rng(0).random((55, *here.input_shape), np.float32)
    assert there.evaluate(x).tobytes() == here.evaluate(x).tobytes()
    assert there.evaluate(x[:0]).shape == here.evaluate(x[:0]).shape
    assert (there.runtime_key, there.batch) == (here.runtime_key, here.batch)
    for model in (here, there):
        model.use("train")
    assert there.state_is_whole == here.state_is_whole
    losses = [[model.train(x[:16], Y, 0.1) for _ in range(5)] for model in (here, there)]
    assert losses[0] == losses[1]
    for name, value in here.get_weights().items():
        assert there.get_weights()[name].tobytes() == value.tobytes()
    weights = {name: value + np.float32(0.5) for name, value in here.get_weights().items()}
    for model in (here, there):
        model.set_weights(weights)
    assert there.evaluate(x).tobytes() == here.evaluate(x).tobytes()
    there.close()


def test_errors_are_those_of_a_model_that_is_opened_here() -> None:
    with pytest.raises(NotTrainable, match="its file says so"):
        odd(model="refused")
    model = odd(model="good")
    with pytest.raises(RuntimeLost, match="ended"):  # what it is asked for is no array of numbers, and a scripted model does not look
        model.set_weights({"w": np.array(["a"])})
    with pytest.raises(RuntimeLost, match="was ended"):
        model.get_weights()


def test_one_that_is_asked_for_other_shapes_says_so_and_goes_on(installed: runtime.Runtime) -> None:
    model = ModelProcess(TINY, model="tiny")
    model.use("train")
    with pytest.raises(ShapeMismatch):
        model.train(X[:3], Y[:3], 0.1)
    with pytest.raises(ShapeMismatch):
        model.set_weights({})
    assert np.isfinite(model.train(X, Y, 0.1))
    model.close()


@pytest.mark.parametrize(("way", "says"), [
    ("crashes", "ended by SIGSEGV"), ("killed", "was killed, by the kernel for want of memory or by a person"),
    ("leaves", "ended with exit code 3"), ("fails", "failed: RuntimeError: no kernel for SUM"), ("fills", "failed: MemoryError"),
    ("babbles", "gave an answer that is none"),
])  # fmt: skip
def test_one_that_goes_wrong_is_lost_and_leaves_nothing(way: str, says: str) -> None:
    model = odd(model=way)
    with pytest.raises(RuntimeLost, match=says):
        for _ in range(4):
            model.train(X, Y, 0.1)
    assert not runs(model.process)
    with pytest.raises(RuntimeLost):
        model.get_weights()
    model.close()


def test_one_that_hangs_is_ended_when_it_takes_no_processor_for_long() -> None:
    model = odd(model="hangs")
    model._patience = model._waiting._patience = 0.3  # it is open, however long that took
    with pytest.raises(RuntimeLost, match="did nothing for 0 s"):
        for _ in range(4):
            model.train(X, Y, 0.1)
    assert not runs(model.process)


def test_one_that_is_interrupted_in_the_middle_of_a_call_is_asked_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model = odd(model="hangs")
    for _ in range(2):
        model.train(X, Y, 0.1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model._frames, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.train(X, Y, 0.1)  # no answer comes: it has to be waited for
    assert not runs(model.process)
    with pytest.raises(RuntimeLost, match="was ended"):
        model.get_weights()


@pytest.mark.parametrize("way", ["shrinks", "swells"])
def test_one_that_gives_other_arrays_than_it_was_asked_for_is_lost(way: str) -> None:
    model = odd(model=way)
    with pytest.raises(RuntimeLost, match=r"other arrays|more than"):
        _ = model.get_weights() if way == "shrinks" else model.evaluate(X)


def test_it_ends_with_close_and_with_its_last_reference() -> None:
    ended: list[int] = []
    model = odd(model="good", ends=ended.append)
    model.use("train")
    first = model.process
    model.close()
    model.close()
    assert ended == [first, first] and not runs(first), "each part of its work ends once"
    model = odd(model="good")
    second = model.process
    assert runs(second) and second in Sensors().children()
    del model
    assert not runs(second)


def test_it_ends_with_the_process_that_started_it_however_that_ends() -> None:
    code = f"""
import time
from tests.edgeagent.boards import TINY
from edgeagent.opened.model_process import ModelProcess
model = ModelProcess(TINY, model="hangs", module="{ODD}")
print(model.process, flush=True)
time.sleep(3600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        assert runs(process)
        parent.kill()
    assert gone(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_an_agent_in_good_order_leaves_its_model_to_it(number: int) -> None:
    model = odd(model="good")
    os.kill(model.process, number)
    assert model.train(X, Y, 0.1) == 1.0 and model.get_weights()
    model.close()


# Rounds.


def scripted_apart(mark: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, str], Any]:
    monkeypatch.setenv("ODD_MODEL_MARK", str(mark))
    return lambda file, name: ModelProcess(file, model=name, module=ODD)


def trained(folder: Path, open_model: Callable[[bytes, str], Any]) -> tuple[bytes, list[str]]:
    """Return the root of a board's model after one round of ten epochs, and why its training waited meanwhile."""
    waited: list[str] = []
    with rig(folder, centre(FakeClock()), open_model, train__epochs="10") as r:
        fill(r.device)
        tell = r.agent._allowance._tell

        def noted(lineage: Any, wait: Any) -> None:
            if wait is not None and wait.reason:
                waited.append(wait.reason)
            tell(lineage, wait)

        r.agent._allowance._tell = noted  # type: ignore[method-assign]
        r.run(Goal(rounds=1, timeout=600))
        assert r.lineage.head().version == 1 and not r.lineage.journal.exists()
        return r.lineage.load().state.root, waited


def test_a_round_whose_process_is_killed_is_taken_up_and_comes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgeagent.rounds.journal.EVERY", 0.0)
    undisturbed, _ = trained(tmp_path / "a", lambda file, name: ScriptedModel(file))
    with caplog.at_level("INFO", "edgeagent"):
        disturbed, waited = trained(tmp_path / "b", scripted_apart(tmp_path / "mark", monkeypatch))
    assert disturbed == undisturbed and (tmp_path / "mark").exists()
    assert any("the process that runs it was killed" in why for why in waited)
    assert "goes on after step 2 of" in caplog.text


def test_a_round_whose_process_is_killed_each_time_ends_a_run_that_ends_and_not_one_that_does_not(tmp_path: Path) -> None:
    def always(file: bytes, name: str) -> ModelProcess:
        return ModelProcess(file, model="killed", module=ODD)

    with rig(tmp_path / "d", centre(FakeClock()), always, train__epochs="10", train__min_new_samples="8") as r:
        fill(r.device)
        with pytest.raises(RuntimeLost, match="was killed"):
            r.run(Goal(rounds=1, timeout=6000))
        assert r.lineage.head().version == 0 and not Sensors().children()
        r.serve(3000)
        assert r.lineage.head().version == 0 and r.lineage.head().rounds == 0 and not Sensors().children()


def test_a_round_that_is_stopped_while_its_process_is_gone_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[ModelProcess] = []

    def one(file: bytes, name: str) -> ModelProcess:
        opened.append(ModelProcess(file, model="good", module=ODD))
        return opened[-1]

    with rig(tmp_path / "d", centre(FakeClock()), one, train__epochs="10") as r:
        fill(r.device)
        agent = r.agent
        r.run(Goal(publish=True, timeout=600))
        agent._begin_round(Goal(rounds=1))
        assert agent._round is not None
        for _ in range(3):
            agent._round.progress = next(agent._round.steps)
        os.kill(opened[0].process, signal.SIGKILL)
        agent._interrupt()
        assert agent._round is None
        agent.__post_init__()
        r.run(Goal(rounds=1, timeout=600))
        assert r.lineage.head().version == 1
