"""The order in which an epoch goes through its samples: each once, or, where classes are unevenly many, all classes about equally often."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SKEW = 2  # up to so many times as many samples of one class as of another, each sample is drawn once
REPEATS = 4  # times that a sample is drawn in an epoch at most: a class of three would be learnt by heart


def order(labels: NDArray[np.int64], seed: int | np.random.Generator) -> NDArray[np.int64]:
    """Return the indices of one epoch, as many as there are labels. They follow from labels and seed alone.

    seed: a Generator is drawn from and moves on: the next epoch has another order. Of a frequent class an epoch draws a part.
    """
    rng = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.max() <= SKEW * counts.min():
        return rng.permutation(len(labels))
    indices, keys = [], []
    for cls, wanted in zip(classes, draws(counts), strict=True):
        own = np.flatnonzero(labels == cls)
        rounds = [rng.permutation(own) for _ in range(-(-wanted // len(own)))]
        indices.append(np.concatenate(rounds)[:wanted])
        keys.append((np.arange(wanted) + rng.random()) / wanted)  # evenly over the epoch: each batch has of all classes
    return np.concatenate(indices)[np.argsort(np.concatenate(keys), kind="stable")]


def repeated(labels: NDArray[np.integer[Any]], most: int) -> NDArray[np.int64]:
    """Return indices of rows for a trainer that has its own order: those of rarer classes whole times more, until all are near as many.

    most: rows that there may be; with fewer repeats, or none, where that many would be too many.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.max() <= SKEW * counts.min():
        return np.arange(len(labels))
    of = np.searchsorted(classes, labels)
    for limit in range(REPEATS, 1, -1):
        times = np.minimum(counts.max() // counts, limit)
        if int((times * counts).sum()) <= most:
            return np.repeat(np.arange(len(labels)), times[of])
    return np.arange(len(labels))


def draws(counts: NDArray[np.int64]) -> list[int]:
    """Return how often each class is drawn: as many draws in all as samples, equally many of each class that has enough of them."""
    total, out = int(counts.sum()), [0] * len(counts)
    left = list(np.argsort(counts, kind="stable"))  # the rarest first: what it can't take is shared by the others
    while left:
        rarest = left.pop(0)
        out[rarest] = min(-(-total // (len(left) + 1)), REPEATS * int(counts[rarest]))
        total -= out[rarest]
    return out
