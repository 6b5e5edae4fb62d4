"""The last layer of an int8 model, which a device trains with no signature for it: what its integers mean.

docs/trainable-models.md, "An int8 classifier as it is". `int8_finder` finds it, and checks everything about the layer that could be
otherwise: whoever has an `Int8Head` may compute with it and write over its variables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from modelwire.errors import NotTrainable
from modelwire.tensors import Codes, Held

from .graph import Contract, Variable

KERNEL, BIAS, KERNEL_SCALE, BIAS_SCALE = "head_kernel", "head_bias", "head_kernel_scale", "head_bias_scale"
OUTPUT_SCALE, OUTPUT_ZERO = "head_output_scale", "head_output_zero"
BATCH = 32  # samples of a step; no graph fixes it
CODE_MAX = 127  # of a weight: narrow range, as the runtimes want it
BIAS_MAX = 1 << 30
FEATURES_MAX = 16384  # 255 * 127 * this and a bias stay within the int32 in which the kernels add up
OUTPUTS_MAX = 4096  # neurons that the head trainer takes
SOFTMAX, LOGISTIC, MSE = "softmax", "logistic", "mse"  # what a head learns by

_NEAR = 2.0**-18  # how far, of itself, a bias's scale may be from the product that it should be: float32 loses 2^-24 a step


@dataclass(frozen=True, slots=True)
class Int8Head:
    """The dense layer that an int8 model ends in. It sees rows of `features` codes; a code c counts (c - zero) * scale."""

    variables: tuple[Variable, ...]  # sorted by name; scales are among them where they are the layer's own
    features: int
    outputs: int
    loss: str  # SOFTMAX: the outputs add up to 1; LOGISTIC: each is a probability by itself; MSE: they are numbers
    feature_scale: float
    feature_zero: int
    kernel_scales: tuple[float, ...]  # one for each output, or one for all
    bias_scales: tuple[float, ...]
    output_scale: float  # of the logits
    output_zero: int
    exposed: int | None  # the output of the file that gives what the head sees; None where it has no such output
    seen: int  # the tensor of what it sees, in the first subgraph
    given: int  # and that of its logits
    output: int = 0  # which of the file's outputs it leads to
    rows: int = 1  # rows that one run computes, as the file's shapes say
    wide: bool = False  # codes of features and logits are int16, not int8
    long: bool = False  # the kernels add up in 64 bits and multiply by the first 15 bits of a factor, as those of convolutions of int16 do
    kept: tuple[int, ...] | None = None  # the biases where they are not trained: zeros where there are none

    @property
    def names(self) -> frozenset[str]:
        return frozenset(v.name for v in self.variables)

    @property
    def halves(self) -> bool:
        """Whether biases are 64 bits in the file: each is held as two int32, the low one first."""
        return any(v.name == BIAS and len(v.shape) == 2 for v in self.variables)

    @property
    def logistic(self) -> bool:
        return self.loss == LOGISTIC

    @property
    def keeps_scales(self) -> bool:
        """Whether the file shares the layer's scales with others, so that they stay as they are."""
        return KERNEL_SCALE not in self.names

    @property
    def contract(self) -> Contract:
        """Rows of codes in, a class or numbers out: of one logistic output two classes, its absence and its presence."""
        codes = Codes.CODES
        if self.loss == MSE:
            codes |= Codes.TARGETS
        elif self.logistic and self.outputs > 1:
            codes |= Codes.TARGETS | Codes.SHARES
        if self.wide:
            codes |= Codes.WIDE
        return Contract(BATCH, (self.features,), (2 if self.logistic and self.outputs == 1 else self.outputs,), True, codes)

    @property
    def most(self) -> int:
        """The largest code of features and logits; the least is one more below zero."""
        return 32767 if self.wide else 127

    def holds(self, least: float, most: float) -> bool:
        """Return whether the scale of the logits holds all between these."""
        low, high = self.reach
        return low <= least and most <= high

    @property
    def reach(self) -> tuple[float, float]:
        """The least and the largest logit that its codes stand for."""
        return (-self.most - 1 - self.output_zero) * self.output_scale, (self.most - self.output_zero) * self.output_scale

    def with_weights(self, weights: Mapping[str, Held], *, model: str = "the model") -> Int8Head:
        """Return the head with the scales that are among `weights`. Raises NotTrainable for what a runtime would refuse or get wrong."""
        kernel = numbers(weights.get(KERNEL_SCALE), self.kernel_scales)
        bias = numbers(weights.get(BIAS_SCALE), self.bias_scales)
        if KERNEL_SCALE in weights and BIAS_SCALE not in weights:  # there is no bias
            bias = tuple(s * self.feature_scale for s in kernel)
        scale, zero = self.output_scale, self.output_zero
        if OUTPUT_SCALE in weights:
            scale = float(weights[OUTPUT_SCALE].reshape(()))
        if OUTPUT_ZERO in weights:
            zero = int(weights[OUTPUT_ZERO].astype("<i4").view("<i8")[0])
        made = replace(self, kernel_scales=kernel, bias_scales=bias, output_scale=scale, output_zero=zero)
        made.check(model)
        made.check_biases(weights.get(BIAS), model)
        return made

    def check(self, model: str) -> None:
        """Raise NotTrainable unless its scales are such as every runtime computes with."""
        scales = (self.feature_scale, *self.kernel_scales, *self.bias_scales, self.output_scale)
        if not all(math.isfinite(s) and s >= float(np.finfo(np.float32).tiny) for s in scales):
            refuse(model, "a scale of its last layer is not a positive number")
        for zero in (self.feature_zero, self.output_zero):
            if self.wide and zero:
                refuse(model, "a zero point of its last layer is not 0, as those of int16 are")
            if not -128 <= zero <= 127:
                refuse(model, "a zero point of its last layer is no int8")
        for kernel, bias in zip(self.kernel_scales, self.bias_scales, strict=True):
            product = kernel * self.feature_scale
            if abs(bias - product) > _NEAR * product:
                refuse(model, "the scale of its last layer's bias is not that of the weights times that of the features")
            if not 2.0**-31 <= product / self.output_scale < 2.0**8:
                refuse(model, "the scales of its last layer are too far apart")

    def check_biases(self, held: Held | None, model: str) -> None:
        """Raise NotTrainable for biases of 64 bits beyond what the runtimes add up."""
        if held is not None and held.ndim == 2 and held.size and not (held[:, 1] == held[:, 0] >> 31).all():
            refuse(model, "a bias of its last layer takes more than 32 of its 64 bits")


def numbers(held: Held | None, otherwise: tuple[float, ...]) -> tuple[float, ...]:
    """Return scales as they are held; those of the file where none are."""
    return otherwise if held is None else tuple(float(s) for s in held.reshape(-1))


def refuse(model: str, reason: str) -> NoReturn:
    raise NotTrainable(model=model, reason=reason)
