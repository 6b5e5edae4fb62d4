"""What the integers of an int8 head stand for, and the way back: numbers become codes under scales.

The board's trainer and the centre's both end here, so that a head is rounded in one way, wherever it learnt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from modelwire.tensors import Held, Weights

from .int8_head import BIAS, BIAS_MAX, CODE_MAX, KERNEL, OUTPUT_SCALE, OUTPUT_ZERO, Int8Head

_SHIFT = 16  # by so many bits the runtimes shorten a factor for sums of 64 bits

F64 = NDArray[np.float64]


def each(scales: tuple[float, ...], outputs: int) -> F64:
    """Return a scale for each output, where the file may have one for all."""
    return np.array(np.broadcast_to(np.array(scales, np.float64), outputs))


def layer_of(head: Int8Head, weights: Mapping[str, Held]) -> tuple[F64, F64]:
    """Return (kernel [outputs, features], biases) as the numbers that the integers stand for."""
    kernel = weights[KERNEL].astype(np.float64) * each(head.kernel_scales, head.outputs)[:, None]
    return kernel, biases_of(head, weights) * each(head.bias_scales, head.outputs)


def biases_of(head: Int8Head, weights: Mapping[str, Held]) -> NDArray[np.int64]:
    """Return the integers of the biases, [outputs]: of 64 bits the low half says all, and what the file lacks is 0."""
    if head.kept is not None:
        return np.array(head.kept, np.int64)
    held = weights[BIAS]
    low: NDArray[np.int64] = (held[:, 0] if held.ndim == 2 else held).astype(np.int64)
    return low


def features_of(head: Int8Head, codes: NDArray[np.generic]) -> F64:
    """Return what rows of codes stand for, [rows, features]."""
    return (codes.reshape(len(codes), -1).astype(np.float64) - head.feature_zero) * head.feature_scale


def to_integers(head: Int8Head, kernel: F64, biases: F64, kernel_scales: F64, bias_scales: F64) -> Weights:
    """Return what of the layer is trained as integers under a scale for each output; what lies beyond the largest code is cut to it."""
    codes = np.clip(np.rint(kernel / kernel_scales[:, None]), -CODE_MAX, CODE_MAX)
    out: Weights = {KERNEL: codes.astype(np.float32) + np.float32(0)}  # -0 is no int8
    if head.kept is None:
        whole = np.clip(np.rint(biases / bias_scales), -BIAS_MAX, BIAS_MAX).astype(np.int32)
        out[BIAS] = np.stack([whole, whole >> 31], 1) if head.halves else whole
    return out


def logits_of(head: Int8Head, weights: Mapping[str, Held], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the codes of the logits, [n, outputs], of rows of codes: as LiteRT's default kernels have them, on every processor.

    The delegate multiplies sums by a factor of float32 and rounds halves to even; int16 goes by the kernels' integers. tflite-runtime and
    LiteRT's kernels without a delegate round otherwise, and give a neighbouring code in one of some hundred cases; in more where scales
    are plain decimals, as 0.1 and 0.02: then many sums lie half between two codes.
    """
    # Products of integers summed in float64 are whole numbers below 2^53: exact in any order.
    sums = (codes - head.feature_zero).astype(np.float64) @ weights[KERNEL].astype(np.float64).T
    total = sums.astype(np.int64) + biases_of(head, weights)
    out = _by_integers(head, total) if head.wide else _by_floats(head, total)
    clipped: NDArray[np.int64] = np.clip(out + head.output_zero, -head.most - 1, head.most)
    return clipped


def _by_floats(head: Int8Head, total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return sums in the unit of the logits. Each step is one operation of IEEE float32: no processor has other bits."""
    factors = np.float32(head.feature_scale) * np.array(head.kernel_scales, np.float32) / np.float32(head.output_scale)
    nearest: NDArray[np.int64] = np.rint(total.astype(np.float32) * factors).astype(np.int64)
    return nearest


def _by_integers(head: Int8Head, total: NDArray[np.int64]) -> NDArray[np.int64]:
    out = np.empty_like(total)
    for k in range(head.outputs):
        kernel_scale = head.kernel_scales[k if len(head.kernel_scales) > 1 else 0]
        fraction, exponent = math.frexp(head.feature_scale * kernel_scale / head.output_scale)
        factor, shift = math.floor(fraction * 2**31 + 0.5), 31 - exponent
        if factor == 2**31:
            factor, shift = factor // 2, shift - 1
        if head.long:
            factor, shift = min((factor + (1 << (_SHIFT - 1))) >> _SHIFT, 0x7FFF), shift - _SHIFT
        out[:, k] = (total[:, k] * factor + (1 << (shift - 1))) >> shift
    return out


def wider(least: float, most: float, *, room: float, centred: bool, wide: bool = False) -> Weights:
    """Return scale and zero point of logits from `least` (at most 0) to `most` (at least 0).

    room: how much more than these the scale holds, as a factor of at least 255/254. centred: half of that below them; else all above.
    wide: of int16, whose zero point is 0.
    """
    if wide:
        return {OUTPUT_SCALE: np.array([max(most, -least) * room / 32767], np.float32)}
    scale = np.float32((most - least) * (room / 255))
    lowest = -0.5 - (most + least) / (2 * float(scale)) if centred else -128 - least / float(scale)
    zero = int(np.clip(np.rint(lowest), -128, 127))
    return {OUTPUT_SCALE: np.array([scale], np.float32), OUTPUT_ZERO: np.array([zero], "<i8").view("<i4").astype(np.int32)}
