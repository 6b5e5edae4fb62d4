"""Between tensors as they are held (float32, and int32 for itself) and as they are stored, in files, roots and planes. The one place.

float16, bfloat16 and int8 are held as float32: their values lose nothing by it, and training and the lattice know one type alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .errors import Malformed
from .tensors import F32, Dtype, Held, Stored

_SAME = (Dtype.FLOAT32, Dtype.INT32)  # stored as they are held
_UNSIGNED: dict[int, Any] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}


def bits(dtype: Dtype, held: Held) -> Stored:
    """Return the stored bits of a flat array: a view where it is held as it is stored, else new.

    Raises Malformed for a value that the type does not have, NonFinite for one that is no number in it.
    """
    if dtype in _SAME:
        same: NDArray[np.uint32] = held.view(np.uint32)
        return same
    stored: NDArray[Any] = np.empty(len(held), _UNSIGNED[dtype.width])
    _core.to_storage(held, stored, dtype=dtype)
    return stored


def put_bits(dtype: Dtype, stored: Stored, held: Held) -> None:
    """Write into `held` what the stored bits mean. Raises NonFinite for float16 and bfloat16; `held` then means nothing."""
    if dtype in _SAME:
        held.view(np.uint32)[:] = stored
    else:
        _core.from_storage(stored, held, dtype=dtype)


def to_bytes(dtype: Dtype, held: Held) -> bytes:
    """Return a flat array as its type is stored, little-endian. Raises as `bits`."""
    return bits(dtype, held).tobytes()


def from_bytes(dtype: Dtype, data: bytes | memoryview) -> Held:
    """Return stored bytes as a new flat array, held. Raises Malformed when they are no whole entries, NonFinite as `put_bits`."""
    if len(data) % dtype.width:
        raise Malformed(what="stored tensor", reason=f"{len(data)} bytes are no whole number of {dtype.name.lower()}")
    stored = np.frombuffer(data, _UNSIGNED[dtype.width])
    held: Held = np.empty(len(stored), dtype.held)
    put_bits(dtype, stored, held)
    return held


def pieces(dtype: Dtype, held: Held, nbytes: int) -> Iterator[memoryview]:
    """Yield a flat array's stored bytes, so many at a time; what is held otherwise is converted piece by piece. Raises as `bits`."""
    width = dtype.width
    entries = nbytes // width
    if dtype in _SAME and len(held):
        stored, step = held.data.cast("B"), entries * width
        for start in range(0, len(stored), step):
            yield stored[start : start + step]
        return
    for start in range(0, len(held), entries):
        yield bits(dtype, held[start : start + entries]).data.cast("B")


def rounded(dtype: Dtype, numbers: F32) -> F32:
    """Return numbers as the nearest that the type stores, half to even: how the lattice stores its sums.

    Raises NonFinite beyond the type's end, and RangeOverflow for int8 beyond +-127. Of int32 there is no such rounding.
    """
    held = np.empty_like(numbers)
    _core.round_stored(numbers, held, dtype=dtype)
    return held
