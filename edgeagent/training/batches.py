"""In which order and in which batches a round goes through its samples, and what it needs of an opened model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeagent.samples.spool import Samples
from modelwire.tensors import F32, Weights

from .balance import order


class Trainable(Protocol):
    """What a round needs of an opened model; edgecommon.runtime.Model is one."""

    @property
    def batch(self) -> int: ...
    @property
    def runtime_key(self) -> str: ...
    @property
    def state_is_whole(self) -> bool: ...
    def use(self, signature: str) -> None: ...
    def train(self, x: F32, y: F32, lr: float) -> float: ...
    def evaluate(self, x: F32) -> F32: ...
    def get_weights(self) -> Weights: ...
    def set_weights(self, weights: Weights) -> None: ...
    def get_state(self) -> Mapping[str, NDArray[Any]]: ...
    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None: ...
    def close(self) -> None: ...


def orders(samples: Samples, *, seed: int, balance: bool = False) -> Iterator[NDArray[np.int64]]:
    """Yield the order of each epoch, without end: all of it follows from the samples and `seed` alone.

    balance: an epoch draws classes that are unevenly many about equally often.
    """
    rng = np.random.default_rng(seed)
    classes = samples.y.argmax(-1) if balance and samples.labelled else None
    while True:
        yield rng.permutation(len(samples)) if classes is None else order(classes, rng)


def batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Yield the order cut into batches of exactly `size`: what is left over waits for the next epoch's order.

    Fewer samples than one batch are repeated until they fill it: the signatures take nothing smaller.
    """
    if len(order) < size:
        yield np.resize(order, size)
        return
    for first in range(0, len(order) - size + 1, size):
        yield order[first : first + size]


def steps_of(samples: int, batch: int, epochs: int) -> int:
    """Return how many steps so many epochs take."""
    return epochs * max(1, samples // batch)


def seed_of(device: str, model: str, version: int, round: int) -> int:
    """Return the seed of a round: a round that is repeated after a kill does the same again."""
    return int.from_bytes(hashlib.sha256(f"{device}/{model}@{version}#{round}".encode()).digest()[:8], "little")
