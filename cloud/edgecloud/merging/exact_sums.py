"""Exact weighted sums of numbers that no lattice holds, and the number of a storage type that is nearest to their mean.

Every finite number of a storage type is a whole multiple of 2^-149. So a sum of them is a whole number, of any size, and is the same
in any order; it is rounded once, at the end, half to even.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire.tensors import F32, Dtype, Held

GRID = -149  # 2^GRID is the smallest float32 above zero
_MANTISSA, _LIMB = 23, 32  # bits
_MASK = (1 << _LIMB) - 1
# Bits of a type's mantissa, and the exponent of its smallest number above zero. Whole numbers are rounded to whole ones.
_FLOATS = {Dtype.FLOAT32: (24, -149), Dtype.FLOAT16: (11, -24), Dtype.BFLOAT16: (8, -133)}


class ExactSums:
    """The weighted sums of one tensor's entries over several models.

    A sum is held in limbs of 32 bits, each in 64: so weights may sum to less than 2^30. Limbs that no number reaches are not held.
    """

    def __init__(self, dtype: Dtype, entries: int) -> None:
        self._dtype, self._entries = dtype, entries
        self._limbs: dict[int, NDArray[np.int64]] = {}
        self._weights = 0
        self._first: Held | None = None
        self._alike: NDArray[np.bool_] = np.ones(entries, bool)

    def add(self, held: Held, weight: int) -> None:
        """Add one model's entries, a flat array held as its type is. weight: above 0. Raises OverflowError beyond 2^30 in all."""
        self._weights += weight
        if weight <= 0 or self._weights >= 1 << 30:
            raise OverflowError("weights must be above 0, and sum to less than 2^30")
        if self._first is None:
            self._first = held.copy()
        self._alike &= held.view(np.uint32) == self._first.view(np.uint32)
        if self._dtype is Dtype.INT32:
            self._put(0, held.astype(np.int64), weight)
            return
        mantissas, shifts = _split(held)
        for limb in np.unique(shifts // _LIMB):
            here = shifts // _LIMB == limb
            moved = np.where(here, mantissas, 0) << np.where(here, shifts % _LIMB, 0)
            self._put(int(limb), moved & _MASK, weight)
            self._put(int(limb) + 1, moved >> _LIMB, weight)

    def _put(self, limb: int, values: NDArray[np.int64], weight: int) -> None:
        if limb not in self._limbs:
            self._limbs[limb] = np.zeros(self._entries, np.int64)
        self._limbs[limb] += values * weight

    def mean(self) -> Held:
        """Return the weighted means as the nearest numbers of the type, half to even, held as it is.

        An entry that is the same in all models stays as it is, to the bit: a zero keeps its sign.
        """
        assert self._first is not None, "no model was added"
        out = self._first.copy()
        apart = np.flatnonzero(~self._alike)
        sums = [0] * len(apart)
        for limb, values in self._limbs.items():
            for i, value in enumerate(values[apart].tolist()):
                sums[i] += value << (_LIMB * limb)
        out[apart] = [_nearest(self._dtype, one, self._weights) for one in sums]
        return out


def half_even(numerator: Any, denominator: int) -> Any:
    """Return numerator / denominator as the nearest whole number, half to even. numerator: a whole number, or an array of them."""
    quotient = numerator // denominator
    twice = 2 * (numerator - quotient * denominator)
    up = (twice > denominator) | ((twice == denominator) & (quotient % 2 == 1))
    return quotient + up


def _split(held: F32) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return whole numbers m and s with held = m * 2^(s + GRID)."""
    bits = held.view(np.uint32).astype(np.int64)
    biased = (bits >> _MANTISSA) & 0xFF
    mantissa = (bits & ((1 << _MANTISSA) - 1)) | np.where(biased > 0, 1 << _MANTISSA, 0)
    return np.where(bits >> 31 == 1, -mantissa, mantissa), np.maximum(biased - 1, 0)


def _nearest(dtype: Dtype, total: int, weights: int) -> float | int:
    """Return the number of a type that is nearest to total / weights, in units of 2^GRID, or of 1 for int32."""
    if dtype is Dtype.INT32:
        return int(half_even(total, weights))
    size = abs(total)
    if dtype is Dtype.INT8:
        whole = int(half_even(size, weights << -GRID))
    else:
        bits, least = _FLOATS[dtype]
        shift = max((size // weights).bit_length() - bits, least - GRID)
        whole = int(half_even(size, weights << shift))
        return float(np.ldexp(float(-whole if total < 0 else whole), shift + GRID))
    return -whole if total < 0 else whole
