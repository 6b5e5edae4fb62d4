"""What a device's round and the centre's apply cost, as multiples of a memcpy of one model array in the same run.

    python tests/bench/kernels.py            a table
    python tests/bench/kernels.py --json     {"kernel", "ratios": {weights: {row: ratio}}}

One thread, thread-CPU time, all rows interleaved, the least of many. Float32 tensors whose changes are normally distributed
and independent: the hardest case, since what is sent then lies on as many cache lines as it can.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

if __package__ in (None, ""):  # run as a script: the tree's root is what the packages are imported from
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from modelwire import errors
from modelwire._core import kernel
from modelwire.tensors import F32, I32, U16, U32

SIZES = ((1 << 20,), (2_300_000,), (20_000,) * 120, (12_900_000,))
DENSITY = 0.01
EXPONENT = -15  # the step below is then some 140 units
DEAD_ZONE = 0.6
SECONDS = 4.0  # a size, all rows together
NAMES = {"avx2": "AVX2", "neon": "NEON", "generic": "portable C"}


class Device:
    """A model on its lattice, what training made of it, and the room that a round needs."""

    def __init__(self, sizes: Sequence[int]) -> None:
        rng = np.random.default_rng(sum(sizes))
        self.sizes, self.n = list(sizes), sum(sizes)
        self.k = max(1, int(self.n * DENSITY))
        self.base: list[F32] = [rng.standard_normal(n, np.float32) * np.float32(0.05) for n in sizes]
        self.w, self.q = [b.copy() for b in self.base], [np.zeros(n, np.int32) for n in sizes]
        self.trained: list[F32] = [w + rng.standard_normal(len(w), np.float32) * np.float32(1e-3) for w in self.w]
        carried = [rng.standard_normal(n, np.float32) * np.float32(1e-4) for n in sizes]
        self.residual: list[U16] = [(c.view(np.uint32) >> 16).astype(np.uint16) for c in carried]
        room = np.zeros(sum(-(-n // 64) * 64 for n in sizes) + 64, np.uint16)
        starts = np.cumsum([-room.ctypes.data // 2 % 64, *(-(-n // 64) * 64 for n in sizes)])
        self.left = [room[at : at + n] for at, n in zip(starts, sizes, strict=False)]
        self.whole: F32 = np.concatenate(self.w)
        self.copy: F32 = np.zeros(self.n, np.float32)
        self.sent: tuple[U32, I32, list[int]] | None = None
        edge = self.round().collect(self.k)[3]
        self.step = int(edge / DEAD_ZONE * 2.0**-EXPONENT)  # at most 255
        self.threshold = float(np.float32(DEAD_ZONE * self.step * 2.0**EXPONENT))

    def round(self) -> kernel.Round:
        """Return the arrays as a round takes them: part of what every row costs."""
        t = len(self.sizes)
        starts = np.cumsum([0, *self.sizes])[:-1].tolist()
        return kernel.Round(
            self.base, self.w, self.q, self.trained, self.residual, self.left,
            exponents=[EXPONENT] * t, kinds=[0] * t, dtypes=[1] * t, starts=starts,
        )  # fmt: skip

    def choices(self, threshold: float) -> dict[str, list[Any]]:
        return {"steps": [self.step] * len(self.sizes), "thresholds": [threshold] * len(self.sizes)}

    def nothing_sent(self) -> None:
        self.round().adopt_known(**self.choices(1e9))

    def known_step(self) -> None:
        index, value, ends, _, _ = self.round().adopt_known(**self.choices(self.threshold), room=self.k)
        self.sent = index, value, ends

    def top_k(self) -> None:
        """Collect, and adopt with the same step in each row, whichever follows from the edge."""
        round = self.round()
        index, d, ends, _, bar = round.collect(self.k)
        assert bar <= self.threshold
        index, value, ends, _, _ = round.adopt(index, d, ends, **self.choices(self.threshold))
        self.sent = index, value, ends

    def undo(self) -> None:
        if self.sent is not None:
            index, value, ends = self.sent
            self.round().retract(index, value, ends, steps=[self.step] * len(self.sizes))
            self.sent = None

    def parts(self) -> list[tuple[int, U32, I32]]:
        """Return what was sent, by tensor."""
        assert self.sent is not None
        index, value, ends = self.sent
        return [(t, index[a:b].copy(), value[a:b].copy()) for t, (a, b) in enumerate(zip([0, *ends], ends, strict=False))]

    def numpy_pipeline(self) -> None:
        trained, w, residual = (np.concatenate(a) for a in (self.trained, self.w, self.residual))
        d = (trained - w) + (residual.astype(np.uint32) << 16).view(np.float32)
        index = np.argpartition(np.abs(d), self.n - self.k)[self.n - self.k :]
        index.sort()
        size = np.float32(self.step * 2.0**EXPONENT)
        value = np.rint(d[index] / size).astype(np.int32)
        np.diff(index).astype(np.uint32)  # the gaps that a coder would take
        moved = value.astype(np.float32) * size
        w[index] += moved
        d[index] -= moved
        (d.view(np.uint32) >> 16).astype(np.uint16)


def rows(device: Device) -> dict[str, Callable[[], None]]:
    """Return what is timed, by the name of its row."""
    timed: dict[str, Callable[[], None]] = {"memcpy of one array": lambda: np.copyto(device.copy, device.whole)}

    def on(path: str, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            kernel.choose(path)
            work()

        return run

    for path in paths():
        name = NAMES[path]
        timed[f"dense pass alone, {name}"] = on(path, device.nothing_sent)
        timed[f"adopt pass, known step, 1 %, {name}"] = on(path, device.known_step)
        timed[f"adopt pass, exact top-k, 1 %, {name}"] = on(path, device.top_k)
    device.known_step()
    parts = device.parts()
    device.undo()
    for share, every in (("1 %", 1), ("0.1 %", 10)):
        thin = [(t, index[::every].copy(), value[::every].copy()) for t, index, value in parts]

        def apply(thin: list[tuple[int, U32, I32]] = thin, sign: int = 1) -> None:
            for t, index, value in thin:
                kernel.apply_lattice(device.base[t], device.w[t], device.q[t], index, sign * value, exponent=EXPONENT, step=device.step)

        def back(apply: Callable[..., None] = apply) -> None:
            apply(sign=-1)

        def fingerprint(thin: list[tuple[int, U32, I32]] = thin) -> None:
            for _, index, value in thin:
                kernel.fingerprint_sparse(index, value, step=device.step, start=0, verbatim=False)

        timed[f"apply with validation, {share}"] = apply
        timed[f"apply of the inverse, {share}"] = back  # also what puts the model back for the next row
        timed[f"fingerprint of an update, {share}"] = fingerprint
    timed["numpy: argpartition, quantise, gaps"] = device.numpy_pipeline
    return timed


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


def measure(sizes: Sequence[int], seconds: float) -> dict[str, float]:
    """Return the ratio to memcpy of each row, for a model of tensors of these sizes."""
    device = Device(sizes)
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
    parser.add_argument("--weights", type=int, nargs="*", help="of one tensor each, instead of the usual sizes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each size")
    args = parser.parse_args()
    models = [(n,) for n in args.weights] if args.weights else SIZES
    names = {m: f"{len(m)} x {m[0]:,}" if len(m) > 1 else f"{m[0]:,}" for m in models}
    ratios = {names[m]: measure(m, args.seconds) for m in models}
    kernel.choose("")
    if args.json:
        print(json.dumps({"kernel": kernel.kernel_name(), "ratios": ratios}))
        return
    print(f"{'':44}" + "".join(f"{n:>14}" for n in ratios))
    for name in next(iter(ratios.values())):
        print(f"{name:44}" + "".join(f"{r[name]:14.2f}" for r in ratios.values()))


if __name__ == "__main__":
    main()
