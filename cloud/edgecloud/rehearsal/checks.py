"""What is checked of a file in the process that rehearses it, in this order; the first that fails is the reason.

open, infer equal to the stock file's, eval, two steps of training, weights and state put back to the bit, features, the range of rates.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecommon import runtime
from edgecommon.memory import give_back
from edgecommon.runtime import Runtime, RuntimeModel
from modelwire.errors import TrainingDiverged
from modelwire.tensors import F32, Dtype, Weights
from modelwire.tflite import file as tflite_file
from modelwire.tflite.notes import HeadNotes, Mode, Notes, notes_of

from . import rates
from .limited import RehearsalLimits, peak

SAMPLES = 3  # random ones on which the stock file and the graft are compared, beside the zeros
AGREE = 1e-3  # of the largest output, at least of 1: how far eval, infer and the head on features may be apart
SMALL = (1e-6, 1e-9, 1e-12)  # learning rates of the two steps that are rehearsed: the first that does not run away
_SLOW = 2.0  # seconds of an inference from which on fewer samples are compared
_NODE = re.compile(r"Node number (\d+) \(([^)]+)\)")

Stage = Callable[[str], None]
Found = dict[str, Any]


class Failed(Exception):
    """A check that did not pass; the text is the reason."""


def warm() -> None:
    """Let numpy load what it loads late, so that the file is not charged with it."""
    np.random.default_rng(0).standard_normal(4)


def plain(complaint: str) -> str:
    """Return a runtime's complaint as one line, the operator first where it names one."""
    text = " ".join(complaint.split())
    nodes = _NODE.findall(text)
    known = [(number, name) for number, name in nodes if "Delegate" not in name]
    return f"{known[-1][1]} (operator {known[-1][0]}): {text[:300]}" if known else text[:300]


def stock_alone(installed: Runtime, path: Path, found: Found, stage: Stage) -> None:
    """See whether the runtime runs a stock file as it is."""
    stage("open")
    interpreter = _opened(installed, path, delegates=True)
    stage("infer")
    given = _random_inputs(interpreter, np.random.default_rng(0))
    _outputs(interpreter, given)
    found["infer_ms"] = _milliseconds(lambda: _outputs(interpreter, given))
    found["memory"] = peak()
    found["passed"] = True


def mode(
    installed: Runtime, path: Path, stock: Path | None, asked: Mapping[str, Any], limits: RehearsalLimits, found: Found, stage: Stage
) -> None:
    """Rehearse one way to train the file; `found` is filled as it goes. Raises Failed, or what the runtime raises."""
    bare = peak()
    data, model = path.read_bytes(), str(asked["model"])
    stage("open")
    if tflite_file.read_head(data, model=model) is not None:
        _int8(installed, path, found, stage)
        return
    tflite_file.check_trainable(data, model=model)
    notes = notes_of(data, model=model)
    which = next((m for m in notes.modes if m.name == asked["mode"]), None)
    if which is None:
        raise Failed(f"it has no mode {asked['mode']!r}")
    found["signature"] = which.signature
    opened = installed.open(data, model=model, signature=which.signature)
    found["delegate"], found["fallback"] = opened.delegate, opened.fallback
    task = rates.task_of(opened, notes.loss, np.random.default_rng(0))
    stage("infer")
    _infer(opened, task, found)
    stage("eval")
    _eval(opened, task, found)
    stage("train")
    start = opened.get_weights()
    rate = _train(opened, which, task, start, found)
    found["memory"] = max(0, peak() - bare)
    stage("weights")
    _weights(opened, data, start)
    stage("state")
    _state(opened, task, rate)
    if asked["rates"]:
        stage("rates")
        opened.set_weights(start)
        rates.found_for(opened, task, notes.optimizer, start, limits.rates, found)
    opened.close()
    del opened
    give_back()
    if asked["whole"]:
        stage("features")
        _features(installed, path, notes, start)
        stage("equal")
        if stock is not None:
            equal(installed, path, stock)
    found["passed"] = True


def equal(installed: Runtime, path: Path, stock: Path) -> None:
    """Raise Failed unless `infer`, the file's first subgraph, gives the stock file's bits on zeros and on random samples.

    Without the delegate, which takes other kernels where weights may change.
    """
    try:
        before = _opened(installed, stock, delegates=False)
    except runtime.FAILURES as e:
        raise Failed(f"the stock file itself is not run by {installed.package} {installed.version}: {plain(str(e))}") from None
    after = _opened(installed, path, delegates=False)
    rng = np.random.default_rng(1)
    for k in range(1 + SAMPLES):
        given = _random_inputs(before, rng)
        if not k:
            given = [np.zeros_like(value) for value in given]
        began = time.monotonic()
        expected, got = _outputs(before, given), _outputs(after, given)
        left = [bits for _, bits in got]
        for name, bits in expected:
            if bits not in left:
                raise Failed(f"infer gives another {name[:60]!r} than the stock file, on {f'random sample {k}' if k else 'zeros'}")
            left.remove(bits)
        if time.monotonic() - began > _SLOW:
            return


def _opened(installed: Runtime, path: Path, *, delegates: bool) -> Any:
    return runtime.interpreter_for(installed.interpreter, path, delegates=delegates)


def _random_inputs(interpreter: Any, rng: np.random.Generator) -> list[NDArray[Any]]:
    """Return a plausible value for each input of the first subgraph."""
    out = []
    for detail in interpreter.get_input_details():
        shape, dtype = tuple(int(n) for n in detail["shape"]), np.dtype(detail["dtype"])
        out.append(_random(shape, dtype, rng))
    return out


def _random(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    if dtype.kind in "fc":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:  # codes
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        return rng.integers(low, high + 1, shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 2:
        return rng.integers(0, 256, shape).astype(dtype)
    if dtype.kind in "iu":  # a number of something, or a place in a table: small ones are in every table
        return rng.integers(0, 2, shape).astype(dtype)
    raise Failed(f"an input of {dtype} can't be made up")


def _outputs(interpreter: Any, given: list[NDArray[Any]]) -> list[tuple[str, bytes]]:
    """Return the names and bits of what the first subgraph gives."""
    for detail, value in zip(interpreter.get_input_details(), given, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [(str(d["name"]), np.asarray(interpreter.get_tensor(d["index"])).tobytes()) for d in interpreter.get_output_details()]


def _int8(installed: Runtime, path: Path, found: Found, stage: Stage) -> None:
    """Rehearse an int8 classifier as it is: it runs, on random codes and on zeros. Its head trains without a runtime."""
    found["signature"] = "train"
    interpreter = _opened(installed, path, delegates=True)
    found["delegate"] = runtime.delegate_of(interpreter)
    stage("infer")
    given = _random_inputs(interpreter, np.random.default_rng(0))
    _outputs(interpreter, given)
    _outputs(interpreter, [np.zeros_like(value) for value in given])
    found["infer_ms"] = _milliseconds(lambda: _outputs(interpreter, given))
    found["memory"] = peak()
    found["passed"] = True


def _milliseconds(call: Callable[[], Any], most: float = 0.5, times: int = 7) -> float:
    """Return the median time of a call; fewer calls where they take long."""
    taken: list[float] = []
    began = time.monotonic()
    while len(taken) < times and (not taken or time.monotonic() - began < most):
        before = time.monotonic()
        call()
        taken.append(1000 * (time.monotonic() - before))
    return float(np.median(taken))


def _infer(opened: RuntimeModel, task: rates.Task, found: Found) -> None:
    opened.infer(task.x[0])
    found["infer_ms"] = _milliseconds(lambda: opened.infer(task.x[0]))


def _eval(opened: RuntimeModel, task: rates.Task, found: Found) -> None:
    """Raise Failed unless eval on a batch is infer on each of its samples, but for the order of sums."""
    many = opened.evaluate(task.x)
    if opened.contract.evaluates:
        found["eval_ms"] = _milliseconds(lambda: opened.evaluate(task.x))
    began = time.monotonic()
    for k in range(opened.batch):
        _close(f"eval and infer of sample {k}", many[k], opened.infer(task.x[k]))
        if time.monotonic() - began > _SLOW:
            break


def _two_steps(opened: RuntimeModel, task: rates.Task, start: Weights) -> tuple[float, list[float]]:
    """Make two steps, and return their rate and what each took, in ms. Raises Failed where the smallest rate runs away as well."""
    fresh, why = opened.get_state(), ""
    for rate in SMALL:
        opened.set_weights(start)
        opened.set_state(fresh)
        taken: list[float] = []
        try:
            for _ in range(2):
                began = time.monotonic()
                opened.train(task.x, task.y, rate)
                taken.append(1000 * (time.monotonic() - began))
        except TrainingDiverged as e:
            why = str(e.facts.get("what", "no number"))
            continue
        if all(np.isfinite(np.asarray(value, np.float64)).all() for value in opened.get_weights().values()):
            return rate, taken
        why = "weights without a number"
    raise Failed(f"a step at the rate {SMALL[-1]:g} gives {why}, on made-up samples")


def _train(opened: RuntimeModel, which: Mode, task: rates.Task, start: Weights, found: Found) -> float:
    """Rehearse two steps, and return their rate."""
    rate, taken = _two_steps(opened, task, start)
    after = opened.get_weights()
    others = sorted(name for name in start if name not in which.weights and start[name].tobytes() != after[name].tobytes())
    if others:
        raise Failed(f"training by {which.signature} changes {others[0]!r}, which the mode {which.name!r} does not list")
    if taken[-1] < 200:
        taken.append(_milliseconds(lambda: opened.train(task.x, task.y, 0.0)))
    found["step_ms"] = taken[-1]
    return rate


def _weights(opened: RuntimeModel, data: bytes, start: Weights) -> None:
    """Raise Failed unless weights come back as they were set, to the bit."""
    whole = {v.name for v in tflite_file.read_variables(data) if v.dtype is Dtype.FLOAT32}  # others would round what is made up here
    other = {name: np.asarray(value + np.float32(0.5), np.float32) if name in whole else value for name, value in start.items()}
    for wanted in (other, start):
        opened.set_weights(wanted)
        got = opened.get_weights()
        wrong = sorted(name for name, value in wanted.items() if value.tobytes() != got[name].tobytes())
        if wrong:
            raise Failed(f"get_weights does not give {wrong[0]!r} as set_weights was given it")


def _state(opened: RuntimeModel, task: rates.Task, rate: float) -> None:
    """Raise Failed unless the optimizer's slots come back as they were set, and a step from them is the same step."""
    state, weights = opened.get_state(), opened.get_weights()
    if not opened.state_is_whole:
        return
    results = []
    for _ in range(2):
        opened.set_weights(weights)
        opened.set_state(state)
        got = opened.get_state()
        wrong = sorted(name for name, value in state.items() if value.tobytes() != got[name].tobytes())
        if wrong:
            raise Failed(f"get_state does not give {wrong[0]!r} as set_state was given it")
        loss = opened.train(task.x, task.y, rate)
        results.append((loss, {name: value.tobytes() for name, value in opened.get_weights().items()}))
    if results[0] != results[1]:
        raise Failed("the same step from the same weights and state gives other bits")


def _features(installed: Runtime, path: Path, notes: Notes, weights: Weights) -> None:
    """Raise Failed unless the head on `features` answers as `infer` does."""
    data = path.read_bytes()
    if "features" not in tflite_file.signature_names(data):
        return
    contract = tflite_file.contract(data)
    interpreter = _opened(installed, path, delegates=True)
    features, infer = (interpreter.get_signature_runner(name) for name in ("features", "infer"))
    rng = np.random.default_rng(3)
    for k in range(SAMPLES):
        x = rng.standard_normal((1, *contract.x_shape)).astype(np.float32)
        seen = np.asarray(features(x=x)["features"], np.float32).reshape(-1)
        if notes.head is None:
            continue
        answer, wanted = _head(notes.head, weights, seen), np.asarray(infer(x=x)["output"], np.float32).reshape(-1)
        if min(_apart(_finished(notes.head, answer), wanted), _apart(answer, wanted)) > AGREE:
            apart = _apart(_finished(notes.head, answer), wanted)
            raise Failed(f"the head on its features answers {apart:.2g} apart from infer, on random sample {k + 1}")


def _head(head: HeadNotes, weights: Weights, seen: F32) -> F32:
    z = seen
    for k, (matrix, biases) in enumerate(head.layers):
        z = np.asarray(weights[matrix], np.float32).reshape(len(weights[matrix]), -1) @ z + weights[biases]
        if k < len(head.layers) - 1:
            z = np.tanh(z) if head.activation == "tanh" else np.maximum(z, 0)
    return z


def _finished(head: HeadNotes, z: F32) -> F32:
    if head.loss == "softmax":
        e = np.exp(z - z.max())
        return np.asarray(e / e.sum(), np.float32)
    if head.loss == "logistic":
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-z)), np.float32)
    return z


def _close(what: str, a: F32, b: F32) -> None:
    apart = _apart(a, b)
    if apart > AGREE:
        raise Failed(f"{what} are {apart:.2g} apart, of the largest output")


def _apart(a: F32, b: F32) -> float:
    """Return the largest difference in shares of the largest entry where that is above 1; where neither is a number they are equal."""
    if not (np.isfinite(a) == np.isfinite(b)).all():
        return math.inf
    both = np.isfinite(b)
    if not both.any():
        return 0.0
    a, b = a[both].astype(np.float64), b[both].astype(np.float64)
    return float(np.abs(a - b).max()) / max(1.0, float(np.abs(b).max()))
