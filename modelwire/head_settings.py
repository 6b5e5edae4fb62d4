"""What the head trainer's kernels are told: widths, loss, optimiser, rates, and the order of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

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


class Optimiser(IntEnum):
    SGD = 1
    MOMENTUM = 2
    ADAM = 3


class Schedule(IntEnum):
    CONSTANT = 1
    LINEAR = 2  # from rate to rate_end over all steps
    STAIRS = 3  # times factor after every `every` steps


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """One head and how it is trained. Floats count as float32. docs/head-trainer.md has the formulas."""

    features: int
    outputs: int
    steps: int
    hidden: tuple[int, ...] = ()  # neurons of up to two layers
    activation: Activation = Activation.RELU
    loss: Loss = Loss.SOFTMAX
    optimiser: Optimiser = Optimiser.SGD
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
        """Arrays of that size which the optimiser keeps."""
        return {Optimiser.SGD: 0, Optimiser.MOMENTUM: 1, Optimiser.ADAM: 2}[self.optimiser]
