"""Wearers of a smart watch: real windows of wrist motion, as a watch on another arm, turned, or with another sensor would give them.

The recordings are of four students, but their files do not tell who is who, and the order is mixed: neighbours are no more alike
than any two windows of an activity. So the persons here are simulated on real windows, each in a way that people wear watches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]
Rng: TypeAlias = np.random.Generator

DATA = Path(__file__).parents[1] / "models" / "data" / "motion.npz"
ACTIVITIES = ("standing", "running", "walking", "badminton")
STEPS = 100  # of a window: ten seconds
NOISE = np.array([0.2, 0.2, 0.2, 0.06, 0.06, 0.06])  # of the sensor: m/s^2, then rad/s


@dataclass(frozen=True)
class Wearer:
    """One person with a watch. x: [n, 100, 6], accelerometer then gyroscope; y: numbers of ACTIVITIES."""

    name: str
    how: str  # the watch is worn
    turn: F64  # [3, 3]: the watch's axes in the arm's; a reflection for the other arm
    gain: float  # of what the sensor says
    pace: float  # of all movements, 1 as recorded
    vigour: float  # of all movements' strength

    def stream(self, round: int, n: int) -> tuple[F32, Labels]:
        """Return n labelled windows of one evening, of the side that is learnt from."""
        return self._views("train", np.random.default_rng([81, _number(self.name), round]), n)

    def held_out(self, n: int = 200) -> tuple[F32, Labels]:
        """Return n views of the 40 windows that no training has seen, here or of the base."""
        return self._views("test", np.random.default_rng([82, _number(self.name)]), n)

    def _views(self, side: str, rng: Rng, n: int) -> tuple[F32, Labels]:
        windows, labels = recorded(side)
        pick = np.concatenate([rng.permutation(len(labels)) for _ in range(-(-n // len(labels)))])[:n]
        return self.seen(rng, windows[pick]), labels[pick]

    def seen(self, rng: Rng, windows: F64) -> F32:
        """Return the windows as this watch gives them, each begun elsewhere and a little stronger or weaker."""
        at = (np.arange(STEPS) * self.pace + rng.integers(0, STEPS, len(windows))[:, None]) % STEPS
        low, part = at.astype(int), (at % 1)[..., None]
        row = np.arange(len(windows))[:, None]
        moved = windows[row, low] * (1 - part) + windows[row, (low + 1) % STEPS] * part
        triads = moved.reshape(len(windows), STEPS, 2, 3) @ self.turn.T
        # The gyroscope's reading is an axial vector: a mirror turns its sign besides.
        triads[:, :, 1] *= np.sign(np.linalg.det(self.turn))
        strength = self.gain * self.vigour * rng.uniform(0.9, 1.1, (len(windows), 1, 1))
        out = triads.reshape(moved.shape) * strength + NOISE * rng.standard_normal(moved.shape)
        return np.asarray(out, np.float32)


def usual(seed: int) -> Wearer:
    """Return one of the people whom the base learnt from: as recorded, with what differs between any two."""
    rng = np.random.default_rng([83, seed])
    turn = rotation(rng.standard_normal(3), rng.uniform(-15, 15))
    return Wearer(f"usual-{seed}", "as recorded", turn, rng.uniform(0.95, 1.05), rng.uniform(0.92, 1.08), rng.uniform(0.85, 1.15))


def rotation(axis: NDArray[np.float64], degrees: float) -> F64:
    """Return the rotation about an axis (Rodrigues)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross, angle = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.deg2rad(degrees)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


# The persons of the story: whom the base has never met.
PERSONS = (
    Wearer("anna", "on the other arm", np.diag([-1.0, 1.0, 1.0]), 1.0, 1.05, 0.9),
    Wearer("bela", "turned by a quarter on the wrist", rotation(np.array([0.0, 1.0, 0.0]), 90), 1.0, 0.95, 1.1),
    Wearer("cleo", "loosely; a sensor of half the sensitivity", rotation(np.array([1.0, 1.0, 0.3]), 15), 0.5, 0.85, 0.8),
)


def recorded(side: str) -> tuple[F64, Labels]:
    """Return the windows of one side, [n, 100, 6], and their labels."""
    with np.load(DATA) as data:
        return data[f"{side}_x"].astype(np.float64), data[f"{side}_y"].astype(np.int64)


def _number(name: str) -> int:
    return int.from_bytes(name.encode()[:8], "little")
