"""What a device's round and the centre's apply cost, as multiples of a memcpy of one model array in the same run.

    python tests/bench/kernels.py            a table
    python tests/bench/kernels.py --json     {"kernel", "ratios": {weights: {row: ratio}}}

One thread, thread-CPU time, all rows interleaved, the least of many. One float32 tensor whose changes are normally distributed
and independent: the hardest case, since what is sent then lies on as many cache lines as it can.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

if __package__ in (None, ""):  # run as a script: the tree's root is what the packages are imported from
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from modelwire import errors
from modelwire._core import kernel
from modelwire.candidates import BLOCK, SAMPLE, bar_of
from modelwire.tensors import F32, I32, U16, U32

SIZES = (1 << 20, 2_300_000, 12_900_000)
DENSITY = 0.01
EXPONENT = -15  # the step below is then some 140 units
DEAD_ZONE = 0.6
SECONDS = 4.0  # a size, all rows together
NAMES = {"avx2": "AVX2", "neon": "NEON", "generic": "portable C"}


class Device:
    """One tensor on its lattice, what training made of it, and the buffers that a round needs."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(n)
        self.n = n
        self.base: F32 = rng.standard_normal(n, np.float32) * np.float32(0.05)
        self.w, self.q = self.base.copy(), np.zeros(n, np.int32)
        self.trained: F32 = self.w + rng.standard_normal(n, np.float32) * np.float32(1e-3)
        carried = rng.standard_normal(n, np.float32) * np.float32(1e-4)
        self.residual: U16 = (carried.view(np.uint32) >> 16).astype(np.uint16)
        self.left, self.index, self.d = np.zeros(n, np.uint16), np.zeros(n, np.uint32), np.zeros(n, np.float32)
        self.copy: F32 = np.zeros(n, np.float32)
        self.sent: tuple[U32, I32] | None = None
        self.step = self.step_for(self.edge(int(n * DENSITY)))

    def edge(self, k: int) -> float:
        """Return the k-th largest difference: sampled bar, one pass, selection among what stands out."""
        stride, whole = max(1, self.n // SAMPLE), self.n // BLOCK * BLOCK
        w, trained, residual = (a[:whole].reshape(-1, BLOCK)[::stride] for a in (self.w, self.trained, self.residual))
        magnitudes = np.abs((trained - w) + (residual.astype(np.uint32) << 16).view(np.float32)).ravel()
        self.collect(bar_of(magnitudes, k / self.n))
        assert self.found >= k
        return kernel.kth_magnitude(self.d[: self.found], k)

    def step_for(self, edge: float) -> int:
        return int(edge / DEAD_ZONE * 2.0**-EXPONENT)  # at most 255

    def collect(self, least: float) -> None:
        kept = kernel.collect(self.w, self.trained, self.residual, self.left, self.index, self.d, least=least)
        assert kept is not None
        self.found = kept[0]

    def take(self, step: int) -> None:
        """Choose among what was collected, and adopt it."""
        threshold = float(np.float32(DEAD_ZONE * step * 2.0**EXPONENT))
        index, d = self.index[: self.found], self.d[: self.found]
        index, value, _ = kernel.quantise(self.q, index, d, exponent=EXPONENT, step=step, threshold=threshold)
        kernel.adopt_sent(
            self.base, self.w, self.trained, self.residual, self.q, self.left, index, value, exponent=EXPONENT, step=step
        )
        self.sent = index, value

    def undo(self) -> None:
        if self.sent is not None:
            self.apply(self.sent[0], -self.sent[1])
            self.sent = None

    def apply(self, index: U32, value: I32) -> None:
        kernel.apply_lattice(self.base, self.w, self.q, index, value, exponent=EXPONENT, step=self.step)

    def known_step(self) -> None:
        self.collect(float(np.float32(DEAD_ZONE * self.step * 2.0**EXPONENT)))
        self.take(self.step)

    def top_k(self) -> None:
        self.edge(int(self.n * DENSITY))
        self.take(self.step)  # the same entries in each row, whichever step follows from the edge

    def numpy_pipeline(self) -> None:
        d = (self.trained - self.w) + (self.residual.astype(np.uint32) << 16).view(np.float32)
        k = int(self.n * DENSITY)
        index = np.argpartition(np.abs(d), self.n - k)[self.n - k :]
        index.sort()
        size = np.float32(self.step * 2.0**EXPONENT)
        value = np.rint(d[index] / size).astype(np.int32)
        np.diff(index).astype(np.uint32)  # the gaps that a coder would take
        moved = value.astype(np.float32) * size
        w = self.w.copy()
        w[index] += moved
        d[index] -= moved
        (d.view(np.uint32) >> 16).astype(np.uint16)


def rows(device: Device) -> dict[str, Callable[[], None]]:
    """Return what is timed, by the name of its row."""
    timed: dict[str, Callable[[], None]] = {"memcpy of one array": lambda: np.copyto(device.copy, device.w)}

    def on(path: str, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            kernel.choose(path)
            work()

        return run

    for path in paths():
        name = NAMES[path]
        bar = float(np.float32(DEAD_ZONE * device.step * 2.0**EXPONENT))
        timed[f"dense pass alone, 1 %, {name}"] = on(path, lambda: device.collect(bar))
        timed[f"adopt pass, known step, 1 %, {name}"] = on(path, device.known_step)
        timed[f"adopt pass, exact top-k, 1 %, {name}"] = on(path, device.top_k)
    device.known_step()
    assert device.sent is not None
    index, value = device.sent
    device.undo()
    few = slice(None, None, 10)
    for share, part in (("1 %", slice(None)), ("0.1 %", few)):
        i, v = index[part].copy(), value[part].copy()

        def apply(i: U32 = i, v: I32 = v) -> None:
            device.apply(i, v)
            device.sent = i, v

        timed[f"apply with validation, {share}"] = apply
        timed[f"fingerprint of an update, {share}"] = lambda i=i, v=v: _ignore(
            kernel.fingerprint_sparse(i, v, step=device.step, start=0, verbatim=False)
        )
    timed["numpy: argpartition, quantise, gaps"] = device.numpy_pipeline
    return timed


def _ignore(_: object) -> None:
    """Give a row's result back as nothing."""


def paths() -> list[str]:
    """Return the kernels that this processor can run, the best first."""
    usable = []
    for name in kernel.kernel_names():
        try:
            kernel.choose(name)
        except errors.ConfigError:
            continue
        usable.append(name)
    kernel.choose("")
    return usable


def measure(n: int, seconds: float) -> dict[str, float]:
    """Return the ratio to memcpy of each row, for a model of n weights."""
    device = Device(n)
    timed = rows(device)
    best = dict.fromkeys(timed, float("inf"))
    until, rounds = time.monotonic() + seconds, 0
    while rounds < 5 or time.monotonic() < until:
        rounds += 1
        for name, work in timed.items():
            if name.startswith("numpy") and rounds > 3:
                continue
            start = time.thread_time()
            work()
            best[name] = min(best[name], time.thread_time() - start)
            device.undo()
    return {name: seconds / best["memcpy of one array"] for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--weights", type=int, nargs="*", default=SIZES)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each size")
    args = parser.parse_args()
    ratios = {n: measure(n, args.seconds) for n in args.weights}
    kernel.choose("")
    if args.json:
        print(json.dumps({"kernel": kernel.kernel_name(), "ratios": ratios}))
        return
    print(f"{'':44}" + "".join(f"{n:>14,}" for n in ratios))
    for name in next(iter(ratios.values())):
        print(f"{name:44}" + "".join(f"{r[name]:14.2f}" for r in ratios.values()))


if __name__ == "__main__":
    main()
