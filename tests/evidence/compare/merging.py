"""A merge of 100 devices is the integer mean, in any order: checked against whole numbers of any size, and timed.

Keys: merged_equal (1 where every order and every check agrees, else 0), merged_devices, merged_orders, merge_seconds.
Alone: python -m tests.evidence.compare.merging; FULL=1 for 100 devices on 1 M weights besides.
"""

from __future__ import annotations

import os
import random
import sys
import time
from typing import Any

import numpy as np

from edgecloud.merging.averaging import LatticeMean
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import Schema, TensorSpec
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind, section_of
from tests.edgecloud.device import Base
from tests.keys import NO_FILE
from tests.stock import ROOT

DEVICES, ORDERS = 100, 10
ENTRIES_OF_FULL = 1_000_000


def measure(full: bool) -> dict[str, int | float | str]:
    """Return the figures. full: 100 devices on a net of 1 M weights, too."""
    base = Base.of(ROOT / "tests" / "models" / "digits.tflite")
    sizes = [(ModelState.of_base(base.manifest, base.weights), "digits.tflite")]
    if full:
        sizes.append((_large(), "1 M weights"))
    equal, seconds, first_size = True, 0.0, sizes[0][0]
    for first, name in sizes:
        states, weights = _fleet(first), [1 + int(w) for w in np.random.default_rng(1).integers(0, 10_000, DEVICES)]
        for rule, counts in (("mean", [1] * DEVICES), ("weighted", weights)):
            started = time.perf_counter()
            merged = _merge(states, counts)
            seconds = time.perf_counter() - started
            right = _is_mean(merged, states, counts)
            again = [_merge(*_shuffled(states, counts, order)) for order in range(ORDERS if first is first_size else 2)]
            alike = all(one == merged and one.root == merged.root for one in again)
            equal &= right and alike
            print(f"{name}, {rule} of {DEVICES}: the integer mean: {right}; other orders alike: {alike}; {seconds:.2f} s", file=sys.stderr)
    return {"merged_equal": int(equal), "merged_devices": DEVICES, "merged_orders": ORDERS, "merge_seconds": round(seconds, 3)}


def _fleet(first: ModelState) -> list[ModelState]:
    """Return versions as devices make them: some noisy rounds each, snapped; every tenth has widened the unit of its first tensor."""
    out = []
    for device in range(DEVICES):
        rng, state, residual = np.random.default_rng([15, device]), first.at_base(), no_residual(first.manifest)
        for _ in range(2):
            trained = [w + rng.standard_normal(len(w)).astype(w.dtype) * np.float32(0.02) for w in state.weights]
            made = snap(state, trained, residual, density=0.3, max_bytes=1 << 26)
            state, residual = made.state, made.residual
        if device % 10 == 9:
            state = _widened(state)
        out.append(state)
    return out


def _widened(state: ModelState) -> ModelState:
    """Return the state with its first tensor on a unit 8 times as large, as a snapshot may put it."""
    t = next(i for i in range(len(state.weights)) if state.manifest.lattice(i))
    sections: list[Any] = [s for s in state.snapshot() if s.tensor != t]
    moved = section_of(t, np.rint(state.integers[t] / 8).astype(np.int64), state.exponents[t] + 3)
    out = state.at_base()
    out.apply(Kind.SNAPSHOT, [*sections, *([moved] if moved is not None else [])])
    return out


def _large() -> ModelState:
    rng, side = np.random.default_rng(3), 1000
    schema = Schema((TensorSpec("bias", (side,)), TensorSpec("kernel", (side, ENTRIES_OF_FULL // side))))
    flat = [rng.standard_normal(spec.size).astype(np.float32) * np.float32(0.05) for spec in schema.tensors]
    return ModelState.of_base(manifest_for(schema, flat, **NO_FILE, exponents={}), flat)


def _merge(states: list[ModelState], weights: list[int]) -> ModelState:
    average = LatticeMean(states[0])
    for state, weight in zip(states, weights, strict=True):
        average.add(state, weight)
    return average.state()


def _shuffled(states: list[ModelState], weights: list[int], seed: int) -> tuple[list[ModelState], list[int]]:
    order = list(range(len(states)))
    random.Random(seed).shuffle(order)
    return [states[i] for i in order], [weights[i] for i in order]


def _is_mean(merged: ModelState, states: list[ModelState], weights: list[int]) -> bool:
    """Whether each Q is the whole number nearest to the mean, half to even, by whole numbers of any size and nothing else."""
    total = sum(weights)
    for t in (i for i in range(len(merged.weights)) if merged.manifest.lattice(i)):
        shifts = [s.exponents[t] - merged.exponents[t] for s in states]
        for i in range(0, len(merged.weights[t]), max(1, len(merged.weights[t]) // 20_000)):  # of large tensors a share
            whole = sum((w * int(s.integers[t][i])) << shift for s, w, shift in zip(states, weights, shifts, strict=True))
            apart = abs(whole - total * int(merged.integers[t][i])) * 2
            if apart > total or (apart == total and int(merged.integers[t][i]) % 2):
                return False
    return True


if __name__ == "__main__":
    print(measure(os.environ.get("FULL") == "1"))
