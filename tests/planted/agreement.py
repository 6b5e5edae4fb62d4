"""How far two partitions of the same things agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rand_index(a: Sequence[object], b: Sequence[object]) -> float:
    """Return the adjusted Rand index: 1 for the same partition, about 0 for one by chance. Source: Hubert and Arabie (1985)."""
    one, other = (np.unique([str(x) for x in side], return_inverse=True)[1] for side in (a, b))
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, first, second, whole = pairs(table), pairs(table.sum(1)), pairs(table.sum(0)), len(one) * (len(one) - 1) / 2
    expected, most = first * second / whole, (first + second) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)
