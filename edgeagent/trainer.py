"""Runs epochs over fixed batches through a model's `train` signature, one step at a time so that the agent can do else between."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import TrainingDiverged
from modelwire.tensors import F32, Weights

from .spool import Samples


class Trainable(Protocol):
    """What a round needs of an opened model; edgeagent.runtime.Model is one."""

    @property
    def batch(self) -> int: ...
    @property
    def runtime_key(self) -> str: ...
    def train(self, x: F32, y: F32, lr: float) -> float: ...
    def evaluate(self, x: F32) -> F32: ...
    def get_weights(self) -> Weights: ...
    def set_weights(self, weights: Weights) -> None: ...


def steps(model: Trainable, samples: Samples, *, name: str, epochs: int, learning_rate: float, seed: int) -> Iterator[float]:
    """Train, yielding each step's loss. The order of the samples follows from `seed` alone.

    Raises TrainingDiverged on a loss or a weight that is not finite; the model's weights are worthless then.
    """
    rng = np.random.default_rng(seed)
    done = 0
    for _ in range(epochs):
        for at in batches(rng.permutation(len(samples)), model.batch):
            loss = model.train(samples.x[at], samples.y[at], learning_rate)
            done += 1
            if not np.isfinite(loss):
                raise TrainingDiverged(model=name, what=f"a loss of {loss}", steps=done)
            yield loss
    # A runtime may report a finite loss computed before the step that ruined the weights.
    for tensor, value in model.get_weights().items():
        if not np.isfinite(value).all():
            raise TrainingDiverged(model=name, what=f"a weight in {tensor} that is not finite", steps=done)


def batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Yield the order cut into batches of exactly `size`: what is left over waits for the next epoch's order.

    Fewer samples than one batch are repeated until they fill it: the signatures take nothing smaller.
    """
    if len(order) < size:
        yield np.resize(order, size)
        return
    for at in range(0, len(order) - size + 1, size):
        yield order[at : at + size]


def steps_of(samples: int, batch: int, epochs: int) -> int:
    """Return how many steps `steps` takes."""
    return epochs * max(1, samples // batch)


def seed_of(device: str, model: str, version: int, round: int) -> int:
    """Return the seed of a round: a round that is repeated after a kill does the same again."""
    return int.from_bytes(hashlib.sha256(f"{device}/{model}@{version}#{round}".encode()).digest()[:8], "little")
