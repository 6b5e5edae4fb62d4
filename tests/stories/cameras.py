"""Cameras before a meter: real handwritten digits as each camera sees them, by day, at night, against the light, or from the side."""

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

DATA = Path(__file__).parents[1] / "models" / "data" / "digits.npz"
SIZE = 32  # pixels a side; the digits were scanned at 8
FAULT = 10  # class number of the sign that a meter shows when it is broken; the base does not know it
LIGHTS = ("day", "night", "backlit")


@dataclass(frozen=True)
class Camera:
    """One camera and where it hangs. Pictures: float32 [n, 32, 32, 1], 0 to 1."""

    name: str
    how: str  # it hangs
    seed: int
    degrees: float = 0.0  # it is turned
    lean: tuple[float, float] = (0.0, 0.0)  # perspective: how much one side is nearer, across and along
    zoom: float = 1.0
    blur: float = 0.0  # pixels

    def stream(self, round: int, n: int, light: str, *, fault: float = 0.0) -> tuple[F32, Labels]:
        """Return n labelled pictures of one day or night, of the side that is learnt from. fault: share of the broken meter's sign."""
        return self._pictures("train", np.random.default_rng([91, self.seed, round]), n, light, fault)

    def held_out(self, light: str, n: int = 597, *, fault: float = 0.0) -> tuple[F32, Labels]:
        """Return n pictures of digits (and signs) that no training has seen, here or of the base."""
        return self._pictures("test", np.random.default_rng([92, self.seed, LIGHTS.index(light)]), n, light, fault)

    def _pictures(self, side: str, rng: Rng, n: int, light: str, fault: float) -> tuple[F32, Labels]:
        ink, labels = _load(side)
        pick = np.concatenate([rng.permutation(len(labels)) for _ in range(-(-n // len(labels)))])[:n]
        ink, labels = ink[pick], labels[pick]
        count = round(fault * n)
        if count:
            at = rng.choice(n, count, replace=False)
            ink[at], labels[at] = signs(rng, count), FAULT
        return self.seen(rng, ink, light), labels

    def seen(self, rng: Rng, ink: F64, light: str) -> F32:
        """Return ink [n, 8, 8], 0 to 1, as this camera sees it in this light."""
        n = len(ink)
        flat = _project(ink, self._views(rng, n))
        across, along = np.meshgrid(np.linspace(-1, 1, SIZE), np.linspace(-1, 1, SIZE))
        if light == "day":
            paper = rng.uniform(0.75, 0.95, (n, 1, 1)) + 0.05 * across
            picture, noise = paper * (1 - 0.8 * flat), 0.02
        elif light == "night":  # a lamp beside the lens: a bright spot, dark corners, a faint picture
            x, y = rng.normal(0.5, 0.1, (n, 1, 1)), rng.normal(-0.4, 0.1, (n, 1, 1))
            lamp = 0.1 + 0.45 * np.exp(-((across - x) ** 2 + (along - y) ** 2) / 1.5)
            picture, noise = lamp * (1 - 0.7 * flat), 0.04
        elif light == "backlit":  # the sun behind the meter: bright from one side, the ink washed out towards it
            glare = 1 / (1 + np.exp(-3 * (across * rng.uniform(0.8, 1.2, (n, 1, 1)) + 0.6 * along)))
            picture, noise = 0.3 + 0.7 * glare - (0.28 - 0.12 * glare) * flat, 0.02
        else:
            raise ValueError(f"no light is called {light!r}")
        if self.blur:
            picture = _blurred(picture, self.blur)
        picture = picture + noise * rng.standard_normal(picture.shape)
        return np.clip(picture, 0, 1)[..., None].astype(np.float32)

    def _views(self, rng: Rng, n: int) -> F64:
        """Return the map from each picture's places to the meter's, [n, 3, 3], with the little that each picture differs."""
        angle = np.deg2rad(self.degrees + rng.normal(0, 2.5, n))
        zoom = self.zoom * rng.uniform(0.93, 1.07, n)
        out = np.zeros((n, 3, 3))
        out[:, 0, 0] = out[:, 1, 1] = np.cos(angle) * zoom
        out[:, 0, 1], out[:, 1, 0] = -np.sin(angle) * zoom, np.sin(angle) * zoom
        out[:, :2, 2] = rng.normal(0, 0.05, (n, 2))
        out[:, 2, :2] = self.lean + rng.normal(0, 0.02, (n, 2))
        out[:, 2, 2] = 1
        return out


def signs(rng: Rng, n: int) -> F64:
    """Return n signs of a broken meter, [n, 8, 8]: a triangle with a stroke in it, drawn by an unsteady hand."""
    corners = np.array([[0.5, 3.5], [7.0, 0.3], [7.0, 6.7], [2.8, 3.5], [5.2, 3.5]])
    points = corners + rng.normal(0, 0.35, (n, *corners.shape))
    rows, columns = np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij")
    near = np.full((n, 8, 8), np.inf)
    for a, b in ((0, 1), (1, 2), (2, 0), (3, 4)):
        start, along = points[:, a, :, None, None], (points[:, b] - points[:, a])[..., None, None]
        away = np.stack([rows, columns])[None] - start
        part = np.clip((away * along).sum(1) / (along**2).sum(1), 0, 1)
        near = np.minimum(near, np.hypot(*np.moveaxis(away - part[:, None] * along, 1, 0)))
    width = rng.uniform(0.5, 0.8, (n, 1, 1))
    return np.asarray(np.clip(1.5 - near / width, 0, 1))


# The cameras of the story. The base knows pictures by day from the front.
FRONT = Camera("front", "in front of the meter, by day", 0)
PORCH = Camera("porch", "in front of it, by day and then by night", 1)
ATTIC = Camera("attic", "against the light", 2, blur=0.8)
CELLAR = Camera("cellar", "turned and to one side", 3, degrees=32, lean=(0.22, -0.12), zoom=1.1, blur=0.6)


def _load(side: str) -> tuple[F64, Labels]:
    with np.load(DATA) as data:
        return data[f"{side}_x"].astype(np.float64) / 16, data[f"{side}_y"].astype(np.int64)


def _project(ink: F64, views: F64) -> F64:
    """Return ink [n, 8, 8] at SIZE pixels a side through each picture's own projection; bilinear, no ink outside."""
    n, small, _ = ink.shape
    line = np.linspace(-1.15, 1.15, SIZE)  # a little of what is around the digit
    across, along = np.meshgrid(line, line)
    at = views @ np.stack([across.ravel(), along.ravel(), np.ones(SIZE * SIZE)])
    columns, rows = ((at[:, k] / np.maximum(at[:, 2], 0.2) + 1) / 2 * (small - 1) for k in (0, 1))
    padded = np.pad(ink, ((0, 0), (1, 2), (1, 2)))
    low = [np.clip(np.floor(v).astype(int), -1, small) for v in (rows, columns)]
    part = [np.clip(v - w, 0, 1) for v, w in zip((rows, columns), low, strict=True)]
    which, out = np.arange(n)[:, None], np.zeros((n, SIZE * SIZE))
    for i in (0, 1):
        for j in (0, 1):
            share = (part[0] if i else 1 - part[0]) * (part[1] if j else 1 - part[1])
            out += share * padded[which, low[0] + 1 + i, low[1] + 1 + j]
    return out.reshape(n, SIZE, SIZE)


def _blurred(pictures: F64, pixels: float) -> F64:
    """Return the pictures through a Gaussian of this width."""
    reach = np.arange(-3, 4)
    weights = np.exp(-(reach**2) / (2 * pixels**2))
    for axis in (1, 2):
        edge = [(0, 0)] * 3
        edge[axis] = (3, 3)
        wide = np.pad(pictures, edge, mode="edge")
        pictures = sum(w * np.take(wide, np.arange(SIZE) + 3 + r, axis) for w, r in zip(weights / weights.sum(), reach, strict=True))
    return pictures
