"""The settings of a head, and a recipe's array around them (recipe page)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import cbor, limits
from .errors import Malformed, TooLarge, UnsupportedWire
from .rows import Rows, read_rows

RELU, TANH = 1, 2
SOFTMAX, SQUARES, LOGISTIC = 1, 2, 3
SGD, MOMENTUM, ADAM = 1, 2, 3
CONSTANT, LINEAR, STAIRS = 1, 2, 3


@dataclass(frozen=True)
class Head:
    """How a head is trained."""

    features: int
    outputs: int
    steps: int
    hidden: tuple[int, ...]
    activation: int
    loss: int
    optimizer: int
    schedule: int
    batch: int
    every: int
    seed: int
    rate: np.float32
    rate_end: np.float32
    factor: np.float32
    decay: np.float32
    beta1: np.float32
    beta2: np.float32
    epsilon: np.float32

    @property
    def widths(self) -> tuple[int, ...]:
        """Give features, hidden layers, outputs."""
        return (self.features, *self.hidden, self.outputs)

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Give neurons and inputs of each layer."""
        return [(b, a) for a, b in zip(self.widths, self.widths[1:], strict=False)]

    @property
    def slots(self) -> int:
        """Count the arrays that the optimizer keeps."""
        return self.optimizer - 1

    @property
    def size(self) -> int:
        """Count the weights."""
        return sum(neurons * (inputs + 1) for neurons, inputs in self.layers)


@dataclass(frozen=True)
class Layer:
    """Where a layer lies in the schema."""

    matrix: int
    biases: int
    inputs_first: bool


@dataclass(frozen=True)
class Checkpoints:
    """Roots on the way."""

    every: int
    roots: tuple[bytes, ...]


@dataclass(frozen=True)
class Recipe:
    """A version's provenance."""

    head: Head
    layers: tuple[Layer, ...]
    rows: Rows
    checkpoints: Checkpoints | None


def _float(value: Any) -> np.float32:
    """Read one of the seven floats (R8)."""
    if not isinstance(value, float) or math.copysign(1.0, value) < 0:
        raise Malformed("R8: not a float, or its sign is set")
    with np.errstate(over="ignore", under="ignore"):
        small = np.float32(value)
    if float(small) != value:
        raise Malformed("R8: not a float32 value")
    return small


def read_head(value: Any) -> Head:
    """Read a head (R7 to R13)."""
    if not isinstance(value, list) or len(value) != 19 or not cbor.is_int(value[0], 1, 1):
        raise Malformed("R7: not a head")
    floats = [_float(item) for item in value[12:]]
    hidden = value[4]
    if not isinstance(hidden, list) or len(hidden) > 2 or not all(cbor.is_int(n, 1, 4096) for n in hidden):
        raise Malformed("R9: hidden layers")
    for place, most in ((5, 2), (6, 3), (7, 3), (8, 3)):
        if not cbor.is_int(value[place], 1, most):
            raise Malformed("R10: activation, loss, optimizer or schedule")
    word = (1 << 32) - 1
    ranges = ((1, 1, 65536), (2, 1, 4096), (3, 1, word), (9, 1, 4096), (10, 1, word), (11, 0, (1 << 64) - 1))
    for place, least, most in ranges:
        if not cbor.is_int(value[place], least, most):
            raise Malformed("R11: a number out of range")
    features, outputs, steps, _, activation, loss, optimizer, schedule, batch, every, seed = value[1:12]
    numbers = (features, outputs, steps, tuple(hidden), activation, loss, optimizer, schedule, batch, every, seed)
    head = Head(*numbers, *floats)
    if head.factor > 1 or head.beta1 >= 1 or head.beta2 >= 1 or head.epsilon < np.float32(2.0**-126):
        raise Malformed("R12: factor, beta or epsilon")
    if head.loss == SOFTMAX and head.outputs == 1:
        raise Malformed("R13: softmax of one output")
    return head


def _layer(value: Any) -> Layer:
    """Read one layer (R5, R6)."""
    if not isinstance(value, list) or len(value) != 3:
        raise Malformed("R5: a layer")
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in value) or value[2] not in (0, 1):
        raise Malformed("R5: a layer")
    if not all(0 <= n < limits.TENSORS for n in value[:2]):
        raise Malformed("R6: a tensor number")
    return Layer(value[0], value[1], bool(value[2]))


def _checkpoints(value: Any, steps: int) -> Checkpoints | None:
    """Read checkpoints (R30 to R33)."""
    if value is None:
        return None
    good = isinstance(value, list) and len(value) == 2 and isinstance(value[1], bytes)
    if not good or not isinstance(value[0], int) or isinstance(value[0], bool):
        raise Malformed("R30: checkpoints")
    every, roots = value
    if len(roots) > 32_768:
        raise TooLarge("R31: checkpoints")
    if not 1 <= every <= steps - 1:
        raise Malformed("R32: every of checkpoints")
    if len(roots) != 32 * ((steps - 1) // every):
        raise Malformed("R33: number of checkpoints")
    return Checkpoints(every, tuple(roots[at : at + 32] for at in range(0, len(roots), 32)))


def read_recipe(data: bytes) -> Recipe:
    """Read a recipe (R1 to R33)."""
    value = cbor.decode(data)
    if not isinstance(value, list) or len(value) != 6 or not cbor.is_int(value[0], 1, 1):
        raise Malformed("R1: not a recipe")
    if not isinstance(value[1], int) or isinstance(value[1], bool) or value[1] < 1:
        raise Malformed("R2: trainer version")
    if value[1] != 1:
        raise UnsupportedWire("R3: another trainer")
    if not isinstance(value[3], list) or not 1 <= len(value[3]) <= 3:
        raise Malformed("R4: layers")
    layers = tuple(_layer(item) for item in value[3])
    head = read_head(value[2])
    rows = read_rows(value[4])
    return Recipe(head, layers, rows, _checkpoints(value[5], head.steps))
