"""What each simulated device alone sees: the digits through its own camera, the motions through its own mounting of the sensor.

A world is fixed by its model and seed. Its held-out side comes from images and windows that no training, here or of the base, has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]
Rng: TypeAlias = np.random.Generator

MODELS = Path(__file__).parent / "models"
NAMES = ("digits", "motion")


@dataclass(frozen=True)
class World:
    """One device's surroundings. x: float32 in the model's input shape, [n, ...]; y: class numbers."""

    model: str
    seed: int
    train_x: F32
    train_y: Labels
    test_x: F32
    test_y: Labels
    vary: Callable[[Rng, NDArray[np.int64]], F32]  # fresh views of the training items with these numbers

    def stream(self, round: int, n: int) -> tuple[F32, Labels]:
        """Return the n samples that the device meets in a round: drawn from the training side, with fresh noise."""
        rng = _rng(self.model, self.seed, 1000 + round)
        order = np.concatenate([rng.permutation(len(self.train_y)) for _ in range(-(-n // len(self.train_y)))])[:n]
        return self.vary(rng, order), self.train_y[order]


def world(model: str, seed: int) -> World:
    """Return the world of a device that runs `model` ("digits" or "motion")."""
    return {"digits": digits_world, "motion": motion_world}[model](seed)


def model_file(model: str) -> bytes:
    """Return the base model's trainable .tflite."""
    return (MODELS / f"{model}.tflite").read_bytes()


def digits_world(seed: int) -> World:
    """The digits by a camera that is turned, sheared, faint, fogged and noisy; [n, 64], about 0 to 1."""
    rng = _rng("digits", seed, 0)
    angle = np.deg2rad(rng.uniform(22, 34)) * rng.choice([-1, 1])
    shear, contrast, fog, noise = rng.uniform(-0.25, 0.25), rng.uniform(0.5, 0.8), rng.uniform(0.05, 0.25), rng.uniform(0.03, 0.08)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.array([[1, shear], [0, 1]])
    data = np.load(MODELS / "data" / "digits.npz")

    def seen(rng: Rng, images: NDArray[np.float64]) -> F32:
        picture = fog + contrast * _resample(images, turn)
        return (picture + noise * rng.standard_normal(picture.shape)).reshape(-1, 64).astype(np.float32)

    raw = {side: data[f"{side}_x"] / 16.0 for side in ("train", "test")}
    return World(
        "digits",
        seed,
        seen(rng, raw["train"]),
        data["train_y"].astype(np.int64),
        seen(rng, raw["test"]),
        data["test_y"].astype(np.int64),
        lambda rng, items: seen(rng, raw["train"][items]),
    )


def motion_world(seed: int) -> World:
    """Wrist motion by a sensor that is mounted askew, with other gains, an offset and noise; [n, 100, 6], m/s^2 and rad/s."""
    rng = _rng("motion", seed, 0)
    mounting = _rotation(rng, rng.uniform(90, 150))
    gains = rng.choice([-1, 1], 2) * rng.uniform(np.log(1.8), np.log(2.4), 2)
    offset, noise = rng.uniform(-1, 1, 6) * [1, 1, 1, 0.3, 0.3, 0.3], rng.uniform(0.4, 0.8) * np.array([1, 1, 1, 0.3, 0.3, 0.3])
    data = np.load(MODELS / "data" / "motion.npz")

    def seen(rng: Rng, windows: NDArray[np.float64]) -> F32:
        triads = windows.reshape(len(windows), 100, 2, 3) @ mounting.T * np.exp(gains)[:, None]
        return (triads.reshape(windows.shape) + offset + noise * rng.standard_normal(windows.shape)).astype(np.float32)

    def moved(rng: Rng, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Only 40 windows were recorded: begin each elsewhere, a little stronger or weaker."""
        shifts = rng.integers(0, 100, len(windows))
        rolled = np.stack([np.roll(w, s, 0) for w, s in zip(windows, shifts, strict=True)])
        return rolled * rng.uniform(0.9, 1.1, (len(windows), 1, 1))

    raw = {side: data[f"{side}_x"].astype(np.float64) for side in ("train", "test")}
    return World(
        "motion",
        seed,
        seen(rng, raw["train"]),
        data["train_y"].astype(np.int64),
        seen(rng, raw["test"]),
        data["test_y"].astype(np.int64),
        lambda rng, items: seen(rng, moved(rng, raw["train"][items])),
    )


def _rng(model: str, seed: int, part: int) -> Rng:
    return np.random.default_rng([NAMES.index(model), seed, part])


def _rotation(rng: Rng, degrees: float) -> NDArray[np.float64]:
    """Return the rotation by that angle about a random axis (Rodrigues)."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    cross, angle = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _resample(images: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return images [n, 8, 8] seen through the linear map `matrix` about their centre; bilinear, dark outside."""
    n, size, _ = images.shape
    centre = (size - 1) / 2
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    at = np.stack([rows.ravel() - centre, columns.ravel() - centre], 1) @ matrix.T + centre
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    corner = np.clip(np.floor(at).astype(int), -1, size)
    part = np.clip(at - corner, 0, 1)
    out = np.zeros((n, size * size))
    for i in (0, 1):
        for j in (0, 1):
            share = (part[:, 0] if i else 1 - part[:, 0]) * (part[:, 1] if j else 1 - part[:, 1])
            out += share * padded[:, corner[:, 0] + 1 + i, corner[:, 1] + 1 + j]
    return out.reshape(n, size, size)
