"""A model that runs in a process of its own, as a round sees it: the same calls, the same bits, the same errors; and one more.

The process ends with `close`, with the last reference to it, and with the one that started it, however that ends. Where it ends before
that, by a fault of the runtime or because the kernel needed its memory, each call raises RuntimeLost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeagent.system.children import lean_environment
from edgeagent.system.deferred import defer
from edgecommon.memory import give_back
from edgecommon.systemd import Pulse
from modelwire import errors
from modelwire.errors import ModelWireError, RuntimeLost
from modelwire.tensors import F32, Weights
from modelwire.tflite import file as tflite_file

from .frames import ARRAYS_MAX, BadFrame, Frames

defer("subprocess")  # loaded with the first model that is opened
import subprocess  # noqa: E402

PATIENCE = 600.0  # seconds in which it takes no processor and gives no answer, after which it is stuck
LOOK = 5.0  # seconds between two looks whether it gets on
PIECE = 1 << 20  # bytes of samples that are evaluated at once: neither side holds all of them twice
_PIPE = 1 << 20  # bytes that the kernel holds between the two: a batch goes there in one turn; what any user may have
_MODULE = "edgeagent.opened.child"
_BLOCKED = (signal.SIGINT, signal.SIGTERM)


class _Stuck(Exception):
    pass


class _Waiting:
    """Waits until the other side reads or has said something, as long as it gets on."""

    def __init__(self, process: int, patience: float) -> None:
        self._stat, self._patience = Path(f"/proc/{process}/stat"), patience
        self.begin()

    def begin(self) -> None:
        """Count from here on: it is asked for something."""
        self._pulse = Pulse(self._stat, patience=self._patience, longest=float("inf"))

    def __call__(self, file: int, writes: bool) -> None:
        """Return when the file can be written or read. Raises _Stuck."""
        poll = select.poll()
        poll.register(file, select.POLLOUT if writes else select.POLLIN)
        while not poll.poll(1000 * min(LOOK, self._patience)):
            if not self._pulse.beats():
                raise _Stuck


class ModelProcess:
    """One opened model. Not safe for use from two threads."""

    def __init__(
        self, file: bytes, *, model: str, ends: Callable[[int], None] = lambda process: None, module: str = _MODULE,
        patience: float = PATIENCE,
    ) -> None:  # fmt: skip
        """ends: told the id of the process before a part of its work ends whose memory goes back: of training, of all.

        Raises RuntimeUnusable, NotTrainable or RuntimeLost.
        """
        self.name, self._ends, self._patience = model, ends, patience
        shapes = tflite_file.contract(file, model=model)
        self.batch = shapes.batch
        self._width, self._y_shape = shapes.batch if shapes.evaluates else 1, shapes.y_shape
        self._variables = {v.name: (np.dtype(v.dtype.held), v.shape) for v in tflite_file.read_variables(file, model=model)}
        self._child = _started(module, model)
        assert self._child.stdin is not None and self._child.stdout is not None
        self.process = self._child.pid
        for pipe in (self._child.stdin, self._child.stdout):
            os.set_blocking(pipe.fileno(), False)
            with contextlib.suppress(OSError, AttributeError):  # another kernel, or one that allows less: then it takes more turns
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
        # It knows nothing of this object, which would not end with its last reference otherwise.
        self._waiting = _Waiting(self.process, patience)
        self._frames = Frames(self._child.stdout.fileno(), self._child.stdin.fileno(), self._waiting)
        self._end = weakref.finalize(self, _end, self._child)
        self._key, self._whole = "", True
        self._note(self._call("open", {"model": model}, {"file": np.frombuffer(file, np.uint8)})[0])

    @property
    def runtime_key(self) -> str:
        """What must be equal for the same weights and inputs to give the same bits."""
        return self._key

    @property
    def state_is_whole(self) -> bool:
        """Whether `get_state` gives all that training goes by beside the weights."""
        return self._whole

    def use(self, signature: str) -> None:
        """Let `train` go by this signature, "" for none. Raises NotTrainable when no setting of the runtime runs it."""
        self._ends(self.process)
        self._note(self._call("use", {"signature": signature})[0])

    def train(self, x: F32, y: F32, lr: float) -> float:
        """Return the loss of one step. Raises TrainingDiverged or ShapeMismatch."""
        said, _ = self._call("train", {"lr": float(lr)}, {"x": np.asarray(x), "y": np.asarray(y)})
        loss: float = self._told(lambda: float(said["loss"]))
        return loss

    def evaluate(self, x: F32) -> F32:
        """Return the outputs for any number of samples, shape [n, ...]. They go there in pieces of whole batches: the bits are the same."""
        each = x[:1].nbytes or 1
        rows = max(1, PIECE // each // self._width) * self._width
        outputs = []
        for first in range(0, max(1, len(x)), rows):
            part = np.asarray(x[first : first + rows])
            _, given = self._call("evaluate", {}, {"x": part}, most=max(1, len(part)) * 4 * int(np.prod(self._y_shape)))
            outputs.append(self._as_asked(given, {"output": (np.dtype(np.float32), (len(part), *self._y_shape))})["output"])
        return np.concatenate(outputs)

    def get_weights(self) -> Weights:
        """Return the present weights by name, in sorted order; copies."""
        most = sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in self._variables.values())
        return self._as_asked(self._call("get_weights", most=most)[1], self._variables)

    def set_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Put `weights` in place, to the bit. Raises ShapeMismatch unless they are exactly the file's tensors."""
        self._call("set_weights", {}, weights)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Return the slots of the present training by name, copies."""
        return self._call("get_state", most=ARRAYS_MAX)[1]

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put the slots in place, to the bit: exactly those that `get_state` gives. Raises ShapeMismatch."""
        self._call("set_state", {}, state)

    def close(self) -> None:
        """End the process; all of its memory goes back. Nothing can be called any more."""
        if self._end.alive:
            self._ends(self.process)
            self._end()
            give_back()

    def _call(
        self, name: str, said: Mapping[str, Any] | None = None, arrays: Mapping[str, NDArray[Any]] | None = None, *, most: int = 0
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        if not self._end.alive:
            raise self._lost("was ended")
        try:
            self._waiting.begin()
            self._frames.send({"call": name, **(said or {})}, arrays)
            answer, given = self._frames.receive(most)
        except _Stuck:
            raise self._lost(f"did nothing for {self._patience:.0f} s") from None
        except BadFrame as e:
            raise self._lost(f"gave an answer that is none: {e}") from None
        except (EOFError, OSError):
            raise self._lost(self._how_it_ended()) from None
        except BaseException:  # Ctrl-C in the middle of a word: what comes next would be taken for another answer
            self._end()
            raise
        if "error" in answer:
            raise self._raised(answer)
        return answer, given

    def _note(self, said: Mapping[str, Any]) -> None:
        self._key, self._whole = self._told(lambda: (str(said["key"]), bool(said["whole"])))

    def _raised(self, answer: Mapping[str, Any]) -> ModelWireError:
        """Return the error that it told of; one that is none of ours came from the runtime, which can't be believed any more."""
        kind = getattr(errors, str(answer["error"]), None)
        if isinstance(kind, type) and issubclass(kind, ModelWireError):
            return kind(**self._told(lambda: {str(key): value for key, value in dict(answer["facts"]).items()}))
        return self._lost(f"failed: {str(answer.get('said', ''))[:400]}")

    def _told(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (KeyError, TypeError, ValueError):
            raise self._lost("gave an answer that is none") from None

    def _as_asked(self, given: dict[str, NDArray[Any]], wanted: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> dict[str, Any]:
        if {name: (a.dtype, a.shape) for name, a in given.items()} != dict(wanted):
            raise self._lost("gave other arrays than it was asked for")
        return given

    def _lost(self, how: str) -> RuntimeLost:
        self._end()
        return RuntimeLost(model=self.name, how=how)

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):  # its pipes close before it is gone
            code = self._child.wait(5.0)
            if code == -signal.SIGKILL:
                return "was killed, by the kernel for want of memory or by a person"
            return f"ended by {signal.Signals(-code).name}" if -64 < code < 0 else f"ended with exit code {code}"
        return "closed its pipes"


def _started(module: str, model: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", module, str(os.getpid())]
    # systemd, and Ctrl-C, mean the agent: it asks the model for what it wants to keep, so that one must not go before. What is blocked
    # here stays so there, from its first moment on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=lean_environment())
    except OSError as e:
        raise RuntimeLost(model=model, how=f"could not be started: {e.strerror}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        give_back(code=True)  # before the other one takes its memory


def _end(child: subprocess.Popen[bytes]) -> None:
    """It holds nothing that would have to be kept."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
