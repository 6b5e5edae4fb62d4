"""Heads of many devices on one backbone: each trained on a few rows of its own, so that only its trailing layer differs from the base."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud.feasibility import scoring
from edgecloud.graft.grafting import Wish, graft
from edgecloud.versions.materialise import LoadedBase
from edgecommon.runtime import RuntimeModel
from modelwire.tflite.file import parse_trainable, read_tensors
from modelwire.update.manifest import manifest_of
from tests.stock import STOCK, runtime
from tests.worlds import MODELS, world

F32 = NDArray[np.float32]
OWN_ROWS, STEPS = 48, 40  # of a device's training


@dataclass(frozen=True)
class Backbone:
    """A grafted base with rows. x: float32 [rows, ...]; y: classes [rows]."""

    name: str
    base: LoadedBase
    x: F32
    y: NDArray[np.int64]

    @property
    def named(self) -> dict[str, Any]:
        schema = self.base.manifest.schema
        return {spec.name: held.reshape(spec.shape) for spec, held in zip(schema.tensors, self.base.weights, strict=True)}


def loaded(file: bytes) -> LoadedBase:
    parsed = parse_trainable(file)
    return LoadedBase(manifest_of(file), tuple(read_tensors(parsed)[1]), parsed)


@functools.cache
def backbone(name: str, rows: int) -> Backbone:
    """Return `digits` (two convolutions on 8x8), `har` (two on 100x6) or `mobilenet` (V2, 0.35, on 96x96) with so many rows."""
    path = MODELS / "own" / "digits.tflite" if name == "digits" else STOCK / f"{name}.tflite"
    base = loaded(graft(path.read_bytes(), Wish()).file)
    rng = np.random.default_rng(5)
    if name == "mobilenet":  # no pictures come with it: patterns of several sizes, of four kinds
        y = rng.integers(0, 4, rows)
        coarse = rng.random((rows, 12, 12, 3)) * (0.4 + 0.2 * y[:, None, None, None])
        x = np.repeat(np.repeat(coarse, 8, 1), 8, 2) + 0.1 * rng.standard_normal((rows, 96, 96, 3))
    else:
        seen, y = world("digits" if name == "digits" else "motion", 0).stream(0, rows)
        x = seen.astype(np.float64).reshape(rows, 8, 8, 1) if name == "digits" else seen.astype(np.float64)
    return Backbone(name, base, np.asarray(x, np.float32), np.asarray(y, np.int64))


def opened(of: Backbone) -> RuntimeModel:
    """Return the base in one open interpreter."""
    return runtime().open(of.base.file.data, signature="")


def heads(of: Backbone, count: int, features: F32, seed: int = 0) -> list[scoring.Contender]:
    """Return heads, each trained on rows of its own by gradient descent in float32. features: what the backbone gives for the rows."""
    rng, named = np.random.default_rng(seed), of.named
    kernel, bias = (next(name for name, held in named.items() if held.ndim == rank) for rank in (2, 1))
    eye = np.eye(len(named[bias]), dtype=np.float32)
    scale = np.float32(1 / max(1e-6, float(np.square(features).sum(1).mean())))
    out = []
    for place in range(count):
        rows = rng.choice(len(features), OWN_ROWS)
        own, wanted = features[rows] * np.float32(rng.uniform(0.7, 1.3)), eye[of.y[rows]]
        w, b = named[kernel].copy(), named[bias].copy()
        for _ in range(STEPS):
            z = own @ w.T + b
            p = np.exp(z - z.max(1, keepdims=True))
            apart = p / p.sum(1, keepdims=True) - wanted
            w -= np.float32(2) * scale * (apart.T @ own) / np.float32(OWN_ROWS)
            b -= np.float32(0.1) * apart.mean(0)
        out.append(scoring.Contender(place, {kernel: w.astype(np.float32), bias: b.astype(np.float32)}))
    return out


def features_of(of: Backbone) -> F32:
    """Return what the backbone gives for the rows, by the file's own signature `features`."""
    runner = runtime().interpreter.Interpreter(model_content=of.base.file.data, num_threads=1).get_signature_runner("features")
    return np.stack([runner(x=row[None])["features"].reshape(-1) for row in of.x]).astype(np.float32)


def whole(of: Backbone, model: RuntimeModel, candidates: list[scoring.Contender]) -> scoring.Scores:
    """Return the scores of one open interpreter: weights set, all rows in batches, one model after the other."""
    out, judge = scoring.empty(len(candidates), of.y), scoring.Judge(of.base, of.x, of.y)
    for i, one in enumerate(candidates):
        model.set_weights({**of.named, **one.differing})
        judge.put(i, model.evaluate(of.x), out)
    return out
