"""What the integers of an int8 head stand for, and the way back: numbers become codes under scales.

The board's trainer and the centre's both end here, so that a head is rounded in one way, wherever it learnt.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from modelwire.tensors import Held, Weights

from .int8_head import BIAS, BIAS_MAX, CODE_MAX, KERNEL, OUTPUT_SCALE, OUTPUT_ZERO, Int8Head

F64 = NDArray[np.float64]


def each(scales: tuple[float, ...], outputs: int) -> F64:
    """Return a scale for each output, where the file may have one for all."""
    return np.array(np.broadcast_to(np.array(scales, np.float64), outputs))


def layer_of(head: Int8Head, weights: Mapping[str, Held]) -> tuple[F64, F64]:
    """Return (kernel [outputs, features], biases) as the numbers that the integers stand for."""
    kernel = weights[KERNEL].astype(np.float64) * each(head.kernel_scales, head.outputs)[:, None]
    return kernel, weights[BIAS] * each(head.bias_scales, head.outputs)


def features_of(head: Int8Head, codes: NDArray[np.generic]) -> F64:
    """Return what rows of codes stand for, [rows, features]."""
    return (codes.reshape(len(codes), -1).astype(np.float64) - head.feature_zero) * head.feature_scale


def to_integers(kernel: F64, biases: F64, kernel_scales: F64, bias_scales: F64) -> Weights:
    """Return the layer as integers under a scale for each output; what lies beyond the largest code is cut to it."""
    codes = np.clip(np.rint(kernel / kernel_scales[:, None]), -CODE_MAX, CODE_MAX)
    return {
        KERNEL: codes.astype(np.float32) + np.float32(0),  # -0 is no int8
        BIAS: np.clip(np.rint(biases / bias_scales), -BIAS_MAX, BIAS_MAX).astype(np.int32),
    }


def wider(least: float, most: float, *, room: float, centred: bool) -> Weights:
    """Return scale and zero point of logits from `least` (at most 0) to `most` (at least 0).

    room: how much more than these the scale holds, as a factor of at least 255/254. centred: half of that below them; else all above.
    """
    scale = np.float32((most - least) * (room / 255))
    lowest = -0.5 - (most + least) / (2 * float(scale)) if centred else -128 - least / float(scale)
    zero = int(np.clip(np.rint(lowest), -128, 127))
    return {OUTPUT_SCALE: np.array([scale], np.float32), OUTPUT_ZERO: np.array([zero], "<i8").view("<i4").astype(np.int32)}
