"""Places things on a plane by how far they are from each other: classical multidimensional scaling (Torgerson 1952)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def places(distances: F64) -> tuple[F64, float]:
    """Return a place on the plane for each row of distances, [n, 2], and the share of all distances that the plane shows, 0 to 1.

    distances: [n, n], symmetric, 0 on the diagonal, finite. The axes are the two along which most is told; each points so that the
    entry of the largest magnitude, the first of several, is above 0, so that the same distances give the same map.
    """
    n = len(distances)
    if distances.shape != (n, n) or not np.isfinite(distances).all():
        raise ValueError("distances are a square of finite numbers")
    if n < 2:
        return np.zeros((n, 2)), 1.0
    squared = (distances + distances.T) ** 2 / 4
    squared = squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()
    values, vectors = np.linalg.eigh(-squared / 2)
    order = np.argsort(values, kind="stable")[::-1][:2]
    kept, axes = np.maximum(values[order], 0.0), vectors[:, order]
    axes = axes * np.where(axes[np.argmax(np.abs(axes).round(9), axis=0), np.arange(len(order))] < 0, -1.0, 1.0)
    all_of_it = float(np.abs(values).sum())
    out = np.zeros((n, 2))
    out[:, : len(order)] = axes * np.sqrt(kept)
    return out, float(kept.sum()) / all_of_it if all_of_it else 1.0
