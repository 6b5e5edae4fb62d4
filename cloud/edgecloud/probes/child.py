"""The process that runs models on probes: told a file and weights, it says outputs and, where asked, what each layer gave.

    python -m edgecloud.probes.child     (messages on standard input and output, as `framing` has them)

It has loaded nothing but the runtime; whatever goes wrong in a model is told as a reason, or ends the process.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud.rehearsal import allow_seconds, limit_memory
from edgecommon import runtime
from modelwire.errors import ModelWireError, RuntimeUnusable
from modelwire.limits import MIB
from modelwire.tensors import F32, Dtype

from . import framing
from .layers import CutFile, Layers, StockFile

BODY_MAX = 2048 * MIB  # of a message to this process


class Opened:
    """One file and the interpreters of it: by its `infer` signature, or whole where it is a stock file."""

    def __init__(self, installed: runtime.Runtime, file: bytes, asked: Mapping[str, Any]) -> None:
        self._model: runtime.RuntimeModel | None = None
        self._read: Layers | StockFile | CutFile
        if asked["signature"]:
            self._read = CutFile(installed, file, asked["signature"])
        elif asked["layers"]:
            self._read = Layers(installed, file, pool=asked["pool"])
        elif asked["stock"]:
            self._read = StockFile(installed, file)
        else:
            self._model = installed.open(file, model=asked["model"], signature="")
        self._batches = bool(asked["batches"])

    @property
    def delegate(self) -> str:
        return self._model.delegate if self._model is not None else self._read.delegate

    def set_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        if self._model is not None:
            self._model.set_weights(weights)
        else:
            self._read.set_weights(weights)

    def run(self, x: F32) -> tuple[F32, list[tuple[str, F32]]]:
        """Return the outputs for all rows, and of each layer its name and what it gave for them."""
        if self._model is not None:
            return (self._model.evaluate(x) if self._batches else np.stack([self._model.infer(row) for row in x])), []
        return self._read.run(x)


def main() -> int:
    """Answer until the other side closes."""
    out, source = os.dup(1), os.dup(0)
    os.dup2(2, 1)  # what libraries print goes to standard error
    first, _ = framing.receive(source, BODY_MAX)
    os.nice(int(first["nice"]))
    try:
        installed = runtime.load()
    except RuntimeUnusable as error:
        framing.send(out, {"no_runtime": str(error.facts.get("reason", error))})
        return 0
    limit_memory(int(first["memory"]))
    framing.send(out, {"runtime": f"{installed.package} {installed.version} {runtime.isa()}"})
    x: F32 = np.zeros((0,), np.float32)
    opened: Opened | None = None
    until = float("inf")
    while True:
        try:
            asked, body = framing.receive(source, BODY_MAX, until=until)
        except (framing.ChannelEndedError, framing.LateError):
            return 0
        until = float("inf")
        allow_seconds(float(first["seconds"]))
        if asked["do"] == "rest":  # nobody knows whether it is needed again
            framing.send(out, {"ok": True})
            until = time.monotonic() + float(asked["seconds"])
        elif asked["do"] == "rows":
            x = np.frombuffer(body, np.float32).reshape(asked["shape"])
            framing.send(out, {"ok": True})
        elif asked["do"] == "file":
            opened = None  # its memory is given back first
            found = _told(lambda: Opened(installed, bytes(body), asked))  # noqa: B023 (it is called at once)
            opened = found if isinstance(found, Opened) else None
            framing.send(out, {"delegate": opened.delegate} if opened is not None else {"reason": found})
        else:
            head, pieces = _ran(opened, body, asked, x)
            framing.send(out, head, pieces)


def _told(work: Callable[[], Any]) -> Any:
    """Return what work gives, or why it failed, in words."""
    try:
        return work()
    except ModelWireError as error:
        return str(error.facts.get("reason", error.message))[:300]
    except MemoryError:
        return "it takes more memory than it is allowed"
    except runtime.FAILURES as error:
        return " ".join(str(error).split())[:300] or type(error).__name__


def _ran(opened: Opened | None, body: bytearray, asked: Mapping[str, Any], x: F32) -> tuple[dict[str, Any], bytes]:
    def work() -> tuple[dict[str, Any], bytes]:
        assert opened is not None  # a file that did not open is asked for nothing
        started = time.perf_counter()
        opened.set_weights(_weights(body, asked["weights"]))
        output, layers = opened.run(x if asked["rows"] is None else x[np.array(asked["rows"], np.int64)])
        seconds = time.perf_counter() - started
        shapes = [[name, list(values.shape)] for name, values in layers]
        pieces = [np.ascontiguousarray(values, np.float32) for values in (output, *(values for _, values in layers))]
        return {"seconds": seconds, "output": list(output.shape), "layers": shapes}, b"".join(piece.tobytes() for piece in pieces)

    found = _told(work)
    return ({"reason": found}, b"") if isinstance(found, str) else found


def _weights(body: bytearray, told: list[Any]) -> dict[str, NDArray[Any]]:
    out, place = {}, 0
    for name, dtype, shape in told:
        held = np.dtype(Dtype[dtype].held)
        size = held.itemsize * int(np.prod(shape, dtype=np.int64))
        out[name] = np.frombuffer(body, held, size // held.itemsize, place).reshape(shape)
        place += size
    return out


if __name__ == "__main__":
    sys.exit(main())
