"""How one output head is trained: widths, loss, optimizer, rates, and the order of the rows. The same ones give the same bits anywhere."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import Malformed

if TYPE_CHECKING:
    from .wire.cbor import Value

FEATURES_MAX = 65536
WIDTH_MAX = 4096  # neurons of a layer
BATCH_MAX = 4096  # rows
STEPS_MAX = 0xFFFFFFFF


class Activation(IntEnum):
    """Of the hidden layers. Numbers of this module travel in recipes: new ones are only added."""

    RELU = 1
    TANH = 2


class Loss(IntEnum):
    SOFTMAX = 1  # cross-entropy of one label a row
    MSE = 2  # mean of squares against targets
    LOGISTIC = 3  # cross-entropy of each output alone against targets of 0 to 1


class Optimizer(IntEnum):
    SGD = 1
    MOMENTUM = 2
    ADAM = 3


class Schedule(IntEnum):
    CONSTANT = 1
    LINEAR = 2  # from rate to rate_end over all steps
    STAIRS = 3  # times factor after every `every` steps


_FLOATS = ("rate", "rate_end", "factor", "decay", "beta1", "beta2", "epsilon")
# Measured, in multiply-adds: a step beside its batch, and what is done to one output of a neuron (tanh takes the longest).
_OF_A_STEP, _OF_A_NEURON = 1024, 32
_FLOAT32_MAX = float.fromhex("0x1.fffffep+127")
_RANGES = {  # inclusive; the kernels refuse the same
    "features": (1, FEATURES_MAX), "outputs": (1, WIDTH_MAX), "steps": (1, STEPS_MAX), "batch": (1, BATCH_MAX), "every": (1, STEPS_MAX),
    "seed": (0, (1 << 64) - 1), "rate": (0, _FLOAT32_MAX), "rate_end": (0, _FLOAT32_MAX), "factor": (0, 1), "decay": (0, _FLOAT32_MAX),
    "beta1": (0, 1 - 2.0**-24), "beta2": (0, 1 - 2.0**-24), "epsilon": (2.0**-126, _FLOAT32_MAX),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OutputHeadSettings:
    """One output head and how it is trained. docs/head-trainer.md has the formulas.

    Floats are rounded to float32, what the trainer computes in. Raises Malformed for a value that is out of range.
    """

    features: int
    outputs: int
    steps: int
    hidden: tuple[int, ...] = ()  # neurons of up to two layers
    activation: Activation = Activation.RELU
    loss: Loss = Loss.SOFTMAX
    optimizer: Optimizer = Optimizer.SGD
    schedule: Schedule = Schedule.CONSTANT
    batch: int = 32
    every: int = 1
    seed: int = 0  # of the order of the rows, 64 bits
    rate: float = 0.05
    rate_end: float = 0.0
    factor: float = 0.5
    decay: float = 0.0  # of the weights, not of the biases
    beta1: float = 0.9  # momentum, or Adam's first
    beta2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        for name in _FLOATS:
            object.__setattr__(self, name, _float32(name, getattr(self, name)))
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if (name not in _FLOATS and type(value) is not int) or not low <= value <= high:
                raise Malformed(what="head", reason=f"{name} {value} is not within {low}..{high}")
        if len(self.hidden) > 2 or any(type(width) is not int or not 1 <= width <= WIDTH_MAX for width in self.hidden):
            raise Malformed(what="head", reason=f"hidden {list(self.hidden)} is not up to two layers of 1..{WIDTH_MAX} neurons")
        if self.loss is Loss.SOFTMAX and self.outputs < 2:
            raise Malformed(what="head", reason="softmax needs two outputs")

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs of the first layer, then neurons of each."""
        return (self.features, *self.hidden, self.outputs)

    @property
    def size(self) -> int:
        """Entries of the weights: layer by layer the matrix [neurons][inputs], then the biases."""
        return sum(neurons * (inputs + 1) for inputs, neurons in zip(self.widths, self.widths[1:], strict=False))

    @property
    def slots(self) -> int:
        """Arrays of that size which the optimizer keeps."""
        return {Optimizer.SGD: 0, Optimizer.MOMENTUM: 1, Optimizer.ADAM: 2}[self.optimizer]

    def work(self, rows: int) -> int:
        """Return how long a training on `rows` rows takes, in multiply-adds of its forward passes; backward passes come on top.

        What is no multiply-add counts as so many as take its time, so that no training takes hours and counts little.
        """
        neurons = sum(self.widths[1:])
        each = min(self.batch, rows) * (self.size + _OF_A_NEURON * neurons) + self.size * (1 + 2 * self.slots) + _OF_A_STEP
        return self.steps * each

    def as_value(self) -> Value:
        """Return what stands for the settings in a record: one value a field, in order, behind the format's number."""
        values: list[Value] = [1]
        for field in fields(self):
            value = getattr(self, field.name)
            values.append(list(value) if field.name == "hidden" else value if field.name in _FLOATS else int(value))
        return values


def steps_of(epochs: int, rows: int, batch: int) -> int:
    """Return how many steps `epochs` passes over the rows take; the last batch of a pass may be smaller."""
    return epochs * -(-rows // batch)


def output_head_settings_of(value: Value) -> OutputHeadSettings:
    """Return the settings that `as_value` gave. Raises Malformed."""
    names = [field.name for field in fields(OutputHeadSettings)]
    if not isinstance(value, list) or len(value) != 1 + len(names) or type(value[0]) is not int or value[0] != 1:
        raise Malformed(what="head", reason="it is not a recipe of format 1")
    given: dict[str, Any] = dict(zip(names, value[1:], strict=True))
    for name in _FLOATS:
        x = given[name]
        if type(x) is not float or x != _float32(name, x) or math.copysign(1, x) < 0:
            raise Malformed(what="head", reason=f"{name} is not a float32")
    hidden = given["hidden"]
    if not isinstance(hidden, list):
        raise Malformed(what="head", reason="hidden is no list")
    return OutputHeadSettings(
        **{name: x for name, x in given.items() if name in ("features", "outputs", "steps", "batch", "every", "seed", *_FLOATS)},
        hidden=tuple(hidden),
        activation=_member(Activation, given["activation"]),
        loss=_member(Loss, given["loss"]),
        optimizer=_member(Optimizer, given["optimizer"]),
        schedule=_member(Schedule, given["schedule"]),
    )


_Enum = TypeVar("_Enum", bound=IntEnum)


def _member(kind: type[_Enum], value: Value) -> _Enum:
    if type(value) is not int or value not in tuple(kind):
        raise Malformed(what="head", reason=f"{value!r} is no {kind.__name__.lower()} that this release knows")
    return kind(value)


def _float32(name: str, x: float) -> float:
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", x))
    except (OverflowError, struct.error, TypeError):
        raise Malformed(what="head", reason=f"{name} {x!r} is not a float32") from None
    return float(rounded)
