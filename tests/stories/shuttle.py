"""Readings of a real machine that changes with time: nine sensors of a space shuttle, early and late in its flights."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]

DATA = Path(__file__).parents[1] / "models" / "data" / "shuttle.npz"
SENSORS = 8  # the ninth column is the time, by which early and late are told apart


def readings(part: str) -> F32:
    """Return rows as the model takes them, [n, 8]. part: "early" (normal), "late" (normal) or "odd" (late, and not normal)."""
    with np.load(DATA) as data:
        raw, early = data[part].astype(np.float64), data["early"].astype(np.float64)
    middle = np.median(early, 0)
    spread = np.maximum(np.percentile(early, 90, 0) - np.percentile(early, 10, 0), 4) / 2
    return np.asarray(np.arcsinh((raw - middle) / spread), np.float32)  # some readings are a thousand times the usual
