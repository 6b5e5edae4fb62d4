"""Runs models on rows in a process with limits, one interpreter for all versions of a base; what a model does wrong is its own result."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud.registry import Store
from edgecloud.rehearsal import how_it_ended
from edgecloud.versions import materialise, naming
from modelwire.errors import ModelWireError, RuntimeUnusable
from modelwire.limits import MIB
from modelwire.tensors import F32, Weights
from modelwire.tflite.file import TrainableFile, parse_trainable, read_weights, write_weights

from . import framing

ANSWER_MAX = 1024 * MIB  # bytes of what one version gives
STARTS = 60.0  # seconds for the process and its runtime to be there
CHILD = "edgecloud.probes.child"
RESTS = 60.0  # seconds that a spare process waits for another run before it ends by itself
NOT_FINITE = "it gives numbers that are not finite"


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What running one model may take."""

    seconds: float = 120.0  # by the clock, and of processor time, for all rows
    memory: int = 3 << 30  # bytes of address space beyond those of a process that has loaded the runtime
    nice: int = 0


@dataclass(frozen=True, slots=True)
class Runnable:
    """A model to run: a base and weights on it; or why there is none."""

    name: str
    base: TrainableFile | None
    weights: Weights | None  # None: those of the base
    reason: str = ""
    recover_s: float = 0.0  # seconds to recover it
    signature: str = ""  # of a file that was cut: the one to be called, whatever it gives, with the file's own weights
    rows: NDArray[np.int64] | None = field(default=None, compare=False)  # numbers of the rows that it is run on; None: all


@dataclass(frozen=True, slots=True)
class ModelRun:
    """What one model gave, or why it gave nothing.

    output: float32 [n, ...], finite; beside the reason NOT_FINITE it is there, too, and is not. layers: name and float32 [n, ...] of
    each, in order.
    """

    name: str
    reason: str
    output: F32 | None = None
    layers: tuple[tuple[str, F32], ...] = ()
    seconds: float = 0.0  # to set the weights and run all rows
    runtime: str = ""  # package, version, ISA and kernels: what decides the last bits

    def __repr__(self) -> str:
        return f"<run of {self.name}: {self.reason or f'{len(self.layers)} layers, {self.seconds:.3g} s'}>"


def of_file(name: str, file: bytes) -> Runnable:
    """Return a trainable or stock `.tflite` as a model to run; what is wrong with it is its reason."""
    try:
        base = parse_trainable(file, model=name)
        return Runnable(name, base, read_weights(base, model=name))
    except ModelWireError as error:
        return Runnable(name, None, None, error.message)


def of_place(store: Store, place: naming.Place, bases: materialise.LoadedBases) -> Runnable:
    """Return a version or a base of a registry as a model to run: recovered and proven; one that can't be is its reason."""
    started = time.perf_counter()
    try:
        base = bases[place.base]
        if place.version is None:
            return Runnable(str(place), base.file, base.state().named(), "", time.perf_counter() - started)
        state = materialise.rebuild(store, place.version, bases)
    except ModelWireError as error:
        return Runnable(str(place), None, None, error.message)
    return Runnable(str(place), base.file, state.named(), "", time.perf_counter() - started)


class Spare:
    """A process that one run leaves behind for the next of the same base, since half of a short run is its start. For one thread.

    Only what ran that base alone, by the same limits, and went wrong in nothing is taken again: a model of another base is run in a process
    that has seen none. It ends with `close` or a `with` statement, with this program, or after a minute without work.
    """

    def __init__(self) -> None:
        self._left: tuple[tuple[object, ...], _Process] | None = None

    def __enter__(self) -> Spare:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process, where one waits."""
        left, self._left = self._left, None
        if left is not None:
            left[1].close()

    def take(self, key: tuple[object, ...], x: F32) -> _Process | None:
        """Return the process that a run of this key has left, given other rows; None where there is none, or it has ended."""
        left, self._left = self._left, None
        if left is None:
            return None
        if left[0] == key and left[1].resume(x):
            return left[1]
        left[1].close()
        return None

    def leave(self, key: tuple[object, ...], process: _Process) -> None:
        """Keep a process for the next run; one in which something went wrong is ended."""
        self.close()
        if process.rest():
            self._left = key, process
        else:
            process.close()


def outputs(
    models: Iterable[Runnable], x: F32, *, layers: bool = False, pool: bool = False, batches: bool = False, limits: RunLimits | None = None,
    spare: tuple[Spare, bytes] | None = None,
) -> Generator[ModelRun, None, None]:  # fmt: skip
    """Yield what each model gives for the rows x, in order; a model that fails, crashes or takes too long yields its reason.

    x: float32 [n, ...], rows as the models take them. layers: by plain kernels, what each layer gave, too; pool: of a layer with rows and
    columns, their mean alone. batches: by `eval`, where a base has it, else one row at a time by `infer`.
    Give models of one base behind each other: they share an interpreter. Raises RuntimeUnusable.
    spare: where a process is taken from and left, and the commit of the one base that all these models are of.
    """
    limits, x = limits or RunLimits(), np.ascontiguousarray(x, np.float32)
    key = (limits, layers, pool, batches, spare[1] if spare is not None else b"")
    process = spare[0].take(key, x) if spare is not None else None
    if process is None:
        process = _Process(x, layers, pool, batches, limits)
    between = True  # two models: nothing is under way in it
    try:
        for model in models:
            between = False
            run = process.run(model)
            between = True
            yield run
    finally:
        if spare is not None and between:
            spare[0].leave(key, process)
        else:
            process.close()


def key_of(runnable: Runnable) -> bytes:
    """Return what a model's file is but for its weights: models of one key share an interpreter."""
    assert runnable.base is not None
    hashed, place, data = hashlib.sha256(), 0, memoryview(runnable.base.data)
    for v in sorted(runnable.base.variables, key=lambda one: one.offset):
        hashed.update(data[place : v.offset])
        place = v.offset + v.nbytes
    hashed.update(data[place:])
    return hashed.digest()


class _Process:
    """The other process: begun when it is first needed, and again after it has ended."""

    def __init__(self, x: F32, layers: bool, pool: bool, batches: bool, limits: RunLimits) -> None:
        self._x, self._limits = x, limits
        self._how = {"layers": layers, "pool": pool, "batches": batches}
        self._child: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="edgecloud-probes-")
        self._runtime, self._delegate = "", ""
        self._open: tuple[TrainableFile, bytes] | None = None  # the base whose interpreter is there, and its key

    def close(self) -> None:
        self._stop()  # how it ended is nobody's question, and where the program ends, what it complained of is gone already
        self._folder.cleanup()

    def rest(self) -> bool:
        """Let it wait for other rows, and return whether it does: it is there, and nothing went wrong in it."""
        if self._child is None:
            return False
        return self._answers(lambda until: self._ask({"do": "rest", "seconds": RESTS}, b"", until))

    def resume(self, x: F32) -> bool:
        """Give it other rows, and return whether it is still there and has taken them."""
        self._x = x
        return self._child is not None and self._child.poll() is None and self._answers(self._tell_rows)

    def _answers(self, asking: Callable[[float], object]) -> bool:
        try:
            asking(time.monotonic() + STARTS)
        except (framing.LateError, framing.ChannelEndedError):
            return False
        return True

    def run(self, model: Runnable) -> ModelRun:
        if model.base is None or model.reason:
            return ModelRun(model.name, model.reason or "there is no such model")
        until = time.monotonic() + self._limits.seconds
        try:
            if self._child is None:
                self._start()
                until = time.monotonic() + self._limits.seconds
            reason = self._opened(model, until)
            if reason:
                return ModelRun(model.name, reason)
            return self._ran(model, until)
        except framing.LateError:
            return ModelRun(model.name, self._end(late=True))
        except framing.ChannelEndedError:
            return ModelRun(model.name, self._end())
        except ModelWireError as error:
            if isinstance(error, RuntimeUnusable):
                raise
            return ModelRun(model.name, error.message)

    def _ran(self, model: Runnable, until: float) -> ModelRun:
        told, pieces = list[list[Any]](), list[bytes]()
        assert model.base is not None
        if not _stock(model.base) and model.weights is not None and not model.signature:
            for v in model.base.variables:
                told.append([v.name, v.dtype.name, list(v.shape)])
                pieces.append(np.ascontiguousarray(model.weights[v.name], v.dtype.held).tobytes())
        rows, n = (None, len(self._x)) if model.rows is None else (model.rows.tolist(), len(model.rows))
        head, body = self._ask({"do": "run", "weights": told, "rows": rows}, b"".join(pieces), until)
        if "reason" in head:
            return ModelRun(model.name, str(head["reason"])[:300])
        shapes = [("", tuple(head["output"])), *((str(name), tuple(shape)) for name, shape in head["layers"])]
        if sum(4 * prod(shape) for _, shape in shapes) != len(body) or any(n != shape[0] for _, shape in shapes):
            raise framing.ChannelEndedError
        arrays, place = list[F32](), 0
        for _, shape in shapes:
            arrays.append(np.frombuffer(body, np.float32, prod(shape), place).reshape(shape))
            place += 4 * prod(shape)
        if not np.isfinite(arrays[0]).all():
            return ModelRun(model.name, NOT_FINITE, arrays[0])
        named = tuple((name, values) for (name, _), values in zip(shapes[1:], arrays[1:], strict=True))
        return ModelRun(model.name, "", arrays[0], named, float(head["seconds"]), f"{self._runtime} {self._delegate}")

    def _opened(self, model: Runnable, until: float) -> str:
        """Have the interpreter of a model's base, and return why that failed."""
        base = model.base
        assert base is not None
        stock = _stock(base)
        if not stock and not model.signature and self._open is not None and (self._open[0] is base or self._open[1] == key_of(model)):
            return ""
        self._open = None
        file = write_weights(base, model.weights, model=model.name) if stock and model.weights is not None else base.data
        head, _ = self._ask({"do": "file", "stock": stock, "model": model.name, "signature": model.signature, **self._how}, file, until)
        if "reason" in head:
            return str(head["reason"])[:300]
        self._delegate = str(head["delegate"])
        self._open = None if stock or model.signature else (base, key_of(model))
        return ""

    def _ask(self, head: Mapping[str, Any], body: bytes, until: float) -> tuple[dict[str, Any], bytearray]:
        child = self._child
        assert child is not None and child.stdin is not None and child.stdout is not None
        framing.send(child.stdin.fileno(), dict(head), body, until=until)
        return framing.receive(child.stdout.fileno(), ANSWER_MAX, until=until)

    def _start(self) -> None:
        with (Path(self._folder.name) / "stderr").open("wb") as complaints:
            self._child = subprocess.Popen(  # a session of its own, so that nothing it starts outlives it
                [sys.executable, "-m", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
                start_new_session=True, bufsize=0,
            )  # fmt: skip
        assert self._child.stdin is not None
        os.set_blocking(self._child.stdin.fileno(), False)
        until = time.monotonic() + STARTS
        limits = {"seconds": self._limits.seconds, "memory": self._limits.memory, "nice": self._limits.nice}
        head, _ = self._ask(limits, b"", until)
        if "no_runtime" in head:
            raise RuntimeUnusable(reason=str(head["no_runtime"]))
        self._runtime = str(head.get("runtime", ""))
        self._tell_rows(until)

    def _tell_rows(self, until: float) -> None:
        self._ask({"do": "rows", "shape": list(self._x.shape)}, self._x.tobytes(), until)

    def _end(self, *, late: bool = False) -> str:
        """End the process, and return how it ended."""
        code = self._stop(late=late)
        if code is None:
            return "its process could not be started"
        return how_it_ended(code, late, self._limits.seconds, Path(self._folder.name) / "stderr")

    def _stop(self, *, late: bool = False) -> int | None:
        """End the process, and return its exit code; None where there is none."""
        child, self._child, self._open = self._child, None, None
        if child is None:
            return None
        if not late:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if child.stdin is not None:
                    child.stdin.close()
                child.wait(timeout=2)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        return child.returncode


def _stock(base: TrainableFile) -> bool:
    return "infer" not in base.parsed.signatures

