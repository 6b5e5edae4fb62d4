"""A whole training step of a head, by our fixed order, against the same step in numpy: ratios of CPU time, one thread.

    python tests/bench/head.py            a table: numpy's time by ours, so above 1 ours is faster
    python tests/bench/head.py --json     {"kernels": {kernel: {row: ratio}}}

A step takes a batch of 32 rows in a shuffled order, forward, loss, gradients and the optimizer's move. numpy multiplies matrices
with OpenBLAS, which uses fused multiply-adds in an order of its own; the fixed order may do neither. All rows interleaved, thread-CPU
time, the least of many.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

if __package__ in (None, ""):  # run as a script: the tree's root is what the packages are imported from
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from modelwire._core import kernel
from modelwire.output_head_settings import Optimizer, OutputHeadSettings
from tests.bench.kernels import paths
from tests.bench.timing import Timed, fastest

BATCH, ROWS, STEPS = 32, 256, 16
HEADS = {
    f"{widths[0]} features, {'hidden 64, ' if widths[1] else ''}{widths[2]} classes, {optimizer.name.lower()}": (*widths, optimizer)
    for *widths, optimizer in (
        (64, (), 10, Optimizer.SGD),
        (64, (), 100, Optimizer.SGD),
        (256, (), 10, Optimizer.SGD),
        (256, (), 100, Optimizer.SGD),
        (1024, (), 10, Optimizer.SGD),
        (1024, (), 100, Optimizer.SGD),
        (256, (64,), 10, Optimizer.SGD),
        (1024, (), 10, Optimizer.ADAM),
        (1024, (), 100, Optimizer.ADAM),
    )
}


class InNumpy:
    """The same training as one would write it in numpy."""

    def __init__(self, s: OutputHeadSettings, x: np.ndarray, y: np.ndarray) -> None:
        rng = np.random.default_rng(1)
        self.s, self.x, self.y, self.rng = s, x, y, rng
        self.layers = [
            ((rng.standard_normal((i, o)) * 0.1).astype(np.float32), np.zeros(o, np.float32))
            for i, o in zip(s.widths, s.widths[1:], strict=False)
        ]
        self.slots = [[(np.zeros_like(p), np.zeros_like(p)) for p in layer] for layer in self.layers]
        self.step, self.each = 0, np.arange(BATCH)

    def run(self) -> None:
        for k in range(STEPS):
            place = k * BATCH % len(self.x)
            if not place:
                self.order = self.rng.permutation(len(self.x))
            self.one(self.order[place : place + BATCH])

    def one(self, batch: np.ndarray) -> None:
        values = [self.x[batch]]
        for k, (w, b) in enumerate(self.layers):
            z = values[-1] @ w
            z += b
            values.append(np.maximum(z, 0, out=z) if k + 1 < len(self.layers) else z)
        z, y = values[-1], self.y[batch]
        z -= z.max(1, keepdims=True)
        own = z[self.each, y]
        np.exp(z, out=z)
        whole = z.sum(1, keepdims=True)
        self.loss = (np.log(whole[:, 0]) - own).mean()
        z /= whole
        z[self.each, y] -= 1
        z *= np.float32(1 / BATCH)
        self.step += 1
        for k in range(len(self.layers) - 1, -1, -1):
            layer, x = self.layers[k], values[k]
            grads = (x.T @ z, z.sum(0))
            if k:
                z = z @ layer[0].T
                z *= x > 0
            for p, g, slots in zip(layer, grads, self.slots[k], strict=True):
                self.move(p, g, slots)

    def move(self, p: np.ndarray, g: np.ndarray, slots: tuple[np.ndarray, np.ndarray]) -> None:
        s = self.s
        if s.optimizer is Optimizer.SGD:
            g *= np.float32(s.rate)
            p -= g
            return
        m, v = slots
        rate = np.float32(s.rate * (1 - s.beta2**self.step) ** 0.5 / (1 - s.beta1**self.step))
        m *= np.float32(s.beta1)
        m += np.float32(1 - s.beta1) * g
        v *= np.float32(s.beta2)
        g *= g
        g *= np.float32(1 - s.beta2)
        v += g
        np.sqrt(v, out=g)
        g += np.float32(s.epsilon)
        np.divide(m, g, out=g)
        g *= rate
        p -= g


def ours(path: str, s: OutputHeadSettings, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    rng = np.random.default_rng(1)
    w, slots = (rng.standard_normal(s.size) * 0.1).astype(np.float32), np.zeros(s.slots * s.size, np.float32)
    flat = x.reshape(-1).copy()

    def run() -> None:
        kernel.choose(path)
        kernel.head_train(s, flat, y, w, slots, scale=1.0, step=0, count=STEPS)

    return run


def measure(repeats: int) -> dict[str, dict[str, float]]:
    """Return numpy's time by ours, for each kernel and head."""
    ratios: dict[str, dict[str, float]] = {path: {} for path in paths()}
    for name, (features, hidden, classes, optimizer) in HEADS.items():
        rng = np.random.default_rng(features + classes)
        x = rng.standard_normal((ROWS, features)).astype(np.float32)
        y = rng.integers(0, classes, ROWS).astype(np.uint32)
        s = OutputHeadSettings(features, classes, STEPS, hidden, optimizer=optimizer, batch=BATCH, rate=0.001)
        calls = {"numpy": Timed(InNumpy(s, x, y).run)} | {path: Timed(ours(path, s, x, y)) for path in ratios}
        least = fastest(calls, repeats)
        for path in ratios:
            ratios[path][name] = least["numpy"] / least[path]
    kernel.choose("")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=60)
    args = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # read once, when numpy is imported
        os.execve(sys.executable, sys.orig_argv, os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
    ratios = measure(args.repeats)
    if args.json:
        print(json.dumps({"kernels": ratios}))
        return
    print(f"{'numpy by ours':48}" + "".join(f"{path:>10}" for path in ratios))
    for name in HEADS:
        print(f"{name:48}" + "".join(f"{r[name]:10.2f}" for r in ratios.values()))


if __name__ == "__main__":
    main()
