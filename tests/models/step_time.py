"""Compares the training step of a grafted file with that of a file from a converter: thread-CPU time, interleaved, minimum of many.

    python -m tests.models.step_time tests/models/stock/har.tflite all har_by_converter.tflite

The second file must keep the signature train(x, y, lr) with the same shapes; the batch is its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecloud.graft.grafting import Wish, graft
from edgecommon.runtime import interpreter_for, load

SECONDS = 6.0


def step(interpreter: Any) -> tuple[Callable[[], object], int]:
    """Return one training step on noise, and its batch."""
    runner = interpreter.get_signature_runner("train")
    rng, given = np.random.default_rng(0), {}
    for name, detail in runner.get_input_details().items():
        value = np.float32(1e-4) if name == "lr" else rng.standard_normal(tuple(detail["shape"])).astype(np.float32)
        if name == "y":
            value = (value == value.max(-1, keepdims=True)).astype(np.float32)
        given[name] = value
    return lambda: runner(**given), len(given["x"])


def main(stock: str, cut: str, converted: str) -> None:
    runtime = load()
    theirs = interpreter_for(runtime.interpreter, Path(converted).read_bytes(), delegates=True)
    their_step, batch = step(theirs)
    ours = interpreter_for(runtime.interpreter, graft(Path(stock).read_bytes(), Wish(train=(cut,), batch=batch)).file, delegates=True)
    steps = (their_step, step(ours)[0])
    best = [float("inf"), float("inf")]
    end = time.monotonic() + SECONDS
    for run in steps:
        run()
    while time.monotonic() < end:
        for i, run in enumerate(steps):
            start = time.thread_time()
            run()
            best[i] = min(best[i], time.thread_time() - start)
    theirs_ms, ours_ms = (1e3 * seconds for seconds in best)
    print(f"{runtime.package} {runtime.version}: converter {theirs_ms:.3f} ms, graft {ours_ms:.3f} ms, ratio {ours_ms / theirs_ms:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
