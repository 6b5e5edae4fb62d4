"""What every kernel asks of its arguments: arrays of one type, contiguous, aligned, as long as each other; units and steps."""

from __future__ import annotations

from operator import index
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import KernelError, Malformed
from modelwire.limits import EXPONENT_MAX, EXPONENT_MIN, STEP_MANTISSA_MAX, STEP_SHIFT_MAX
from modelwire.tensors import F32

Array: TypeAlias = NDArray[Any]
Mask: TypeAlias = NDArray[np.bool_]


def take(name: str, array: object, dtype: type[np.generic], *, n: int | None = None, writable: bool = False) -> Array:
    """Return `array` as it is when it has one dimension, the dtype, n entries, and lies in memory as C wants it.

    Raises KernelError: a wrong array is the fault of the code that calls, never of what came over the wire.
    """
    try:
        view = memoryview(array)  # type: ignore[arg-type]
    except (BufferError, TypeError, ValueError) as problem:
        raise KernelError(what=name, reason=str(problem)) from None
    taken: Array = np.asarray(array)
    if taken.dtype != np.dtype(dtype):
        raise KernelError(what=name, reason=f"expected {np.dtype(dtype)}, got {taken.dtype}")
    if taken.ndim != 1:
        raise KernelError(what=name, reason=f"expected 1 dimension, got {taken.ndim}")
    if not view.c_contiguous:
        raise KernelError(what=name, reason="the array is not contiguous")
    if writable and view.readonly:
        raise KernelError(what=name, reason="the array is read-only")
    if not taken.flags.aligned:
        raise KernelError(what=name, reason="the array is not aligned")
    if n is not None and len(taken) != n:
        raise KernelError(what=name, reason=f"expected {n} entries, got {len(taken)}")
    return taken


def octets(data: object) -> bytes:
    """Return the bytes of a contiguous bytes-like object. Raises KernelError."""
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except (BufferError, TypeError, ValueError) as problem:
        raise KernelError(what="data", reason=str(problem)) from None
    if view.format not in ("B", "b", "c") or view.ndim != 1 or not view.c_contiguous:
        raise KernelError(what="data", reason="expected contiguous bytes")
    return view.tobytes()


def sparse(indices: object, values: object) -> tuple[Array, Array]:
    """Return index and value of one section. Raises KernelError."""
    taken = take("index", indices, np.uint32)
    return taken, take("value", values, np.int32, n=len(taken))


def unit(exponent: int) -> F32:
    """Return 2^exponent as one float32 in an array. Raises Malformed."""
    if not EXPONENT_MIN <= index(exponent) <= EXPONENT_MAX:
        raise Malformed(what="exponent", reason="it is not within -96..100")
    return np.ldexp(np.ones(1, np.float32), index(exponent))


def whole_step(step: int) -> int:
    """Return `step` when it is m * 2^j with an odd m of 1..255 and j of 0..22. Raises Malformed."""
    m, j = index(step), 0
    while m > 0 and m % 2 == 0:
        m, j = m // 2, j + 1
    if not 1 <= m <= STEP_MANTISSA_MAX or j > STEP_SHIFT_MAX:
        raise Malformed(what="step", reason="it is not m * 2^j with an odd m of 1..255 and j of 0..22")
    return index(step)
