"""What an `exact` update of a head can't do without: the empirical entropy of its differences, for coders that know more and more.

Every figure is what an ideal coder would take that knew the statistics of its contexts beforehand: less than any real one of its kind.

    planes            byte planes of the zigzag differences of ordered integers, each byte by itself: what lz4 and zstd work on
    parent            the same, in the context of the parent weight's exponent: all that a parent tells of the scale of one unit
    scales            length and sign of a difference in the context of the exponent and of the update's own scale by row and by column
    factors           what is left when the update is foretold as a sum of outer products, whose factors are sent as float32: an update of a
                      dense layer is the sum of one outer product a sample, so this is a model of the training, and no longer a coder

`scales` is given the true means of rows and columns for nothing.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelwire.lattice.snap import exactly
from modelwire.tensors import F32
from modelwire.update.container import size_of

from . import flow

RANKS = (4, 8, 16, 32)  # the best of them counts
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Floors:
    """Bytes of an update, medians over some."""

    net: str
    sent: float  # as containers have it
    planes: float
    parent: float
    scales: float
    factors: float


def measure(net: str, file: bytes, folder: Path, updates: int = flow.UPDATES) -> Floors:
    """Train a head as the flow does, and return the floors of its updates. file: the trainable net; folder: where files may lie."""
    node = flow.Node(flow.base_of(file, exact=True), "node-1-1", "net", kind="exact", relation="partial", seed=0)
    node.learner = flow.Learner(np.random.default_rng([2, 1, 0]))
    node.start(folder)
    rows = []
    try:
        for _ in range(updates):
            before = [w.copy() for w in node.state.weights]
            done = exactly(node.state, node.trained(), node.residual)
            node.state, node.residual = done.state, done.residual
            schema = node.base.manifest.schema
            moved = [
                (w.reshape(spec.rows, spec.columns), after.reshape(spec.rows, spec.columns))
                for w, after, spec in zip(before, done.state.weights, schema.tensors, strict=True)
                if w.tobytes() != after.tobytes()
            ]
            each = np.array([of(p, f) for p, f in moved])
            rows.append((size_of(done.sections, schema), *each.sum(axis=0)))
    finally:
        node.runtime.close()
    return Floors(net, *(float(statistics.median(column)) for column in zip(*rows, strict=True)))


def of(parent: F32, fresh: F32) -> tuple[float, float, float, float]:
    """Return the four floors of one tensor in bytes: planes, parent, scales, factors. parent, fresh: float32, rows by columns."""
    change = (ordered(fresh) - ordered(parent)).ravel()
    zigzag = np.where(change >= 0, 2 * change, -2 * change - 1)
    exponent = ((parent.view(np.uint32) >> 23) & 255).astype(np.int64).ravel()
    bytes_of = [(zigzag >> 8 * p) & 255 for p in range(4)]
    nothing = np.zeros_like(change)
    planes, known = (sum(entropy(b, context) for b in bytes_of) / 8 for context in (nothing, exponent))
    return planes, known, _by_scales(parent, fresh, change, exponent), _by_factors(parent, fresh, exponent)


def ordered(x: F32) -> I64:
    """Return the integers that stand in the order of the floats."""
    bits = x.view(np.uint32).astype(np.int64)
    return np.where(bits >> 31, 0x80000000 - bits, bits)


def entropy(symbols: I64, context: I64) -> float:
    """Return the bits of symbols >= 0 under the frequencies that they have in each context."""
    span = int(symbols.max(initial=0)) + 1
    found, counts = np.unique(context * span + symbols, return_counts=True)
    _, of_context = np.unique(found // span, return_inverse=True)
    total = np.bincount(of_context, weights=counts)[of_context]
    return float((counts * np.log2(total / counts)).sum())


def coded(change: I64, context: I64) -> float:
    """Return the bits of signed integers: length and sign in a context, two bits below the first by length, the rest as they are."""
    size = np.abs(change)
    length = np.frexp(size.astype(np.float64))[1].astype(np.int64)  # 0 of 0; exact below 2^53
    below = np.maximum(length - 1, 0)
    top = np.where(below >= 2, (size >> np.maximum(below - 2, 0)) & 3, np.where(below == 1, size & 1, 0))
    return entropy(2 * length + (change < 0), context) + entropy(top, length) + float(np.maximum(below - 2, 0).sum())


def _by_scales(parent: F32, fresh: F32, change: I64, exponent: I64) -> float:
    moved = fresh.astype(np.float64) - parent
    size = np.abs(moved)
    if not size.any():
        return 0.0
    least = float(size[size > 0].min())
    scale = np.log2(size.mean(1, keepdims=True) + least) + np.log2(size.mean(0, keepdims=True) + least) - np.log2(size.mean())
    steps = np.clip(np.rint(2 * (scale.ravel() - (exponent - 150))), -40, 40).astype(np.int64) + 40  # in half powers of two of an ulp
    down = np.repeat(moved.mean(1) < 0, parent.shape[1]).astype(np.int64)
    return coded(change, 2 * steps + down) / 8


def _by_factors(parent: F32, fresh: F32, exponent: I64) -> float:
    moved = fresh.astype(np.float64) - parent
    left, values, right = np.linalg.svd(moved, full_matrices=False)
    best = coded((ordered(fresh) - ordered(parent)).ravel(), exponent) / 8  # without any
    for rank in (r for r in RANKS if r < len(values)):
        foretold = (parent + (left[:, :rank] * values[:rank]) @ right[:rank]).astype(np.float32)
        rest = (ordered(fresh) - ordered(foretold)).ravel()
        best = min(best, coded(rest, exponent) / 8 + 4 * rank * sum(parent.shape))
    return best
