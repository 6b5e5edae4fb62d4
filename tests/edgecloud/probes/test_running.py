"""Models are run in a process with limits: the outputs are those of the runtime here, and what one does wrong is its own result."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from edgecloud.probes import framing, running
from edgecloud.probes.running import RunLimits, Runnable, of_file, outputs
from modelwire.tensors import F32
from modelwire.tflite.file import write_weights
from tests.stock import runtime, stock_file

from .crashing import CRASH, EAT, HANG

MODELS = Path(__file__).parents[2] / "models"
TINY = (MODELS / "tiny.tflite").read_bytes()
X = np.random.default_rng(0).random((9, 4)).astype(np.float32)


def tiny(name: str, mark: float | None = None, scale: float = 1.0) -> Runnable:
    """Return the tiny net, with its output kernel scaled and its first output bias marked."""
    one = of_file(name, TINY)
    assert one.weights is not None
    weights = {key: value * np.float32(scale) if key == "output_kernel" else value.copy() for key, value in one.weights.items()}
    if mark is not None:
        weights["output_bias"][0] = mark
    return replace(one, weights=weights)


def test_outputs_are_those_of_the_runtime_for_each_version_of_a_base() -> None:
    models = [tiny("a"), tiny("b", scale=2.0), tiny("a again")]
    given = [*outputs(models, X)]
    for model, run in zip(models, given, strict=True):
        here = runtime().open(TINY, signature="")
        assert model.weights is not None
        here.set_weights(model.weights)
        assert run.output is not None and np.array_equal(run.output, np.stack([here.infer(row) for row in X]))
        assert (run.name, run.reason, run.layers) == (model.name, "", ()) and "threads" not in run.runtime and here.delegate in run.runtime
    assert given[0].output is not None and not np.array_equal(given[0].output, given[1].output)  # type: ignore[arg-type]
    whole = [*outputs([of_file("b", write_weights(TINY, models[1].weights or {}))], X)]  # the same by its file
    assert np.array_equal(whole[0].output, given[1].output)  # type: ignore[arg-type]


def test_models_of_one_base_are_of_one_key_whatever_their_weights() -> None:
    mixed = of_file("mixed", (MODELS / "mixed.tflite").read_bytes())
    file = of_file("b", write_weights(TINY, tiny("b", scale=2.0).weights or {}))
    assert running.key_of(tiny("a")) == running.key_of(file) != running.key_of(mixed)


def test_layers_are_read_in_order_and_the_last_leads_to_the_output() -> None:
    (one, other) = outputs([tiny("a"), tiny("b", scale=2.0)], X, layers=True)
    names = [name for name, _ in one.layers]
    assert names[0].startswith("hidden1") and names.index("hidden2_kernel") < names.index("output_kernel") and len(set(names)) == len(names)
    assert all(len(values) == len(X) and np.isfinite(values).all() for _, values in one.layers)
    assert one.output is not None and np.array_equal(one.layers[-1][1], one.output)
    equal = {name for (name, a), (_, b) in zip(one.layers, other.layers, strict=True) if np.array_equal(a, b)}
    assert "hidden2_kernel" in equal and "output_kernel" not in equal  # what stands in front of the change is the same bits
    plain = next(iter(outputs([tiny("a")], X)))
    assert plain.output is not None and np.allclose(plain.output, one.output, atol=1e-5)


def test_what_a_model_does_wrong_is_its_result_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "CHILD", "tests.edgecloud.probes.crashing")
    broken = [tiny("crash", CRASH), tiny("nan", float("nan")), tiny("eat", EAT), of_file("junk", b"junk"), tiny("hang", HANG)]
    models = [tiny("good"), *[one for each in broken for one in (each, tiny("good"))]]
    runs = [*outputs(models, X, limits=RunLimits(seconds=6.0, memory=2 << 30))]
    reasons = {run.name: run.reason for run in runs if run.name != "good"}
    assert "SIGABRT" in reasons["crash"] and "not finite" in reasons["nan"] and "memory" in reasons["eat"]
    assert "TFL3" in reasons["junk"] and "not done after 6 s" in reasons["hang"]
    good = [run for run in runs if run.name == "good"]
    assert len(good) == 6 and all(run.output is not None and np.array_equal(run.output, good[0].output) for run in good)  # type: ignore[arg-type]


def test_rows_that_a_model_does_not_take_are_its_result() -> None:
    run = next(iter(outputs([tiny("a")], np.zeros((3, 5), np.float32))))
    assert run.output is None and "expected" in run.reason


def test_a_stock_int8_file_is_run_as_it_stands_and_its_layers_are_numbers() -> None:
    model = of_file("int8", stock_file("int8_softmax"))
    assert model.base is not None
    graph = model.base.parsed.graphs[0]
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    x = np.random.default_rng(0).random((5, *shape)).astype(np.float32)
    run, again = outputs([model, replace(model, name="again")], x)
    assert run.output is not None and np.array_equal(run.output, again.output) and np.ptp(run.output) > 0  # type: ignore[arg-type]
    seen = next(iter(outputs([model], x, layers=True)))
    assert seen.output is not None and len(seen.layers) > 2 and seen.layers[-1][1].shape == seen.output.shape


def test_who_stops_half_way_meets_no_error_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runs = outputs([tiny("a"), tiny("b")], X)
    assert next(runs).reason == ""
    (folder,) = tmp_path.glob("edgecloud-probes-*")
    shutil.rmtree(folder)  # as the end of a program removes it, while an error is on its way
    runs.close()  # type: ignore[attr-defined]
    assert next(runs, None) is None and not folder.exists()


def test_a_message_that_no_side_sends_ends_the_channel() -> None:
    import os

    for data in (b"", b"\xff" * 16, b"\x02" + bytes(15) + b"[]", b"\x01" + bytes(15) + b"{"):
        here, there = os.pipe()
        os.write(there, data)
        os.close(there)
        with pytest.raises(framing.ChannelEndedError):
            framing.receive(here, 1 << 20)
        os.close(here)
    here, there = os.pipe()
    with pytest.raises(framing.LateError):
        framing.receive(here, 1 << 20, until=0.0)
    os.close(here)
    os.close(there)


def child_of(spare: running.Spare) -> subprocess.Popen[bytes]:
    """Return the process that waits for the next run."""
    assert spare._left is not None
    child = spare._left[1]._child
    assert child is not None and child.poll() is None
    return child


def output_of(spare: running.Spare, x: F32, scale: float = 1.0, commit: bytes = b"tiny") -> F32:
    """Return what the net gives in a spare process, held against one of its own."""
    (run,), (alone,) = (outputs([tiny("a", scale=scale)], x, batches=True, spare=one) for one in ((spare, commit), None))
    assert run.output is not None and alone.output is not None and np.array_equal(run.output, alone.output), (run, alone)
    return run.output


def test_a_process_is_taken_again_for_other_rows_and_weights_of_its_base_alone() -> None:
    with running.Spare() as spare:
        output_of(spare, X)
        first = child_of(spare)
        output_of(spare, X[:4] * np.float32(2), scale=3.0)
        assert child_of(spare) is first
        output_of(spare, X, commit=b"another")
        second = child_of(spare)
        assert second is not first and first.poll() is not None
        (run,) = outputs([tiny("a")], X, spare=(spare, b"another"))  # run otherwise: one row at a time
        assert run.output is not None and child_of(spare) is not second
        last = child_of(spare)
    assert last.poll() is not None and spare._left is None


def test_a_process_that_was_killed_or_has_waited_too_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with running.Spare() as spare:
        output_of(spare, X)
        first = child_of(spare)
        first.kill()
        first.wait(20)
        output_of(spare, X)
        monkeypatch.setattr(running, "RESTS", 0.05)
        output_of(spare, X)
        assert spare._left is not None
        second = spare._left[1]._child
        assert second is not None and second.wait(20) == 0 and second is not first
        output_of(spare, X)


def test_a_process_that_ends_while_it_is_told_the_rows_is_replaced() -> None:
    with running.Spare() as spare:
        output_of(spare, X)
        first = child_of(spare)
        os.kill(first.pid, signal.SIGSTOP)  # so that it is found there, and hears nothing
        Thread(target=lambda: (os.kill(first.pid, signal.SIGKILL))).start()
        output_of(spare, X)
        assert child_of(spare) is not first


def test_no_process_is_left_by_a_model_that_ends_it_and_one_is_by_who_stops_between_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "CHILD", "tests.edgecloud.probes.crashing")
    with running.Spare() as spare:
        (run,) = outputs([tiny("crash", CRASH)], X, spare=(spare, b"tiny"))
        assert run.reason and spare._left is None
        runs = outputs([tiny("good"), tiny("crash", CRASH)], X, spare=(spare, b"tiny"))
        assert next(runs).output is not None
        runs.close()
        child = child_of(spare)
        (run,) = outputs([tiny("good")], X, spare=(spare, b"tiny"))
        assert run.output is not None and child_of(spare) is child
