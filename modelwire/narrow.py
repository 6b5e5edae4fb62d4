"""Lattice tensors that are stored in fewer bits than they are held in: sums are rounded as they are stored, and int8 moves by codes."""

from __future__ import annotations

import numpy as np

from . import _core, storage
from .errors import ModelWireError, NonFinite
from .manifest import CODE_MAX
from .tensors import F32, I32, U16, U32, Dtype, TensorSpec
from .update import Section

BF16_INFINITY = 0x7F80


def sums(dtype: Dtype, base: F32, q: I32, exponent: int) -> F32:
    """Return base + Q * 2^exponent as it is stored, and base where Q is 0. Raises RangeOverflow, NonFinite or Malformed."""
    out = np.empty_like(base)
    _core.weights_from_q(base, q, out, exponent=exponent)
    return out if dtype is Dtype.FLOAT32 else storage.rounded(dtype, out)


def check(spec: TensorSpec, base: F32, q: I32, s: Section) -> None:
    """Raise NonFinite or RangeOverflow when a section, whose sums fit float32, leaves what the storage type has."""
    if spec.dtype is Dtype.FLOAT32:
        return
    try:
        sums(spec.dtype, base[s.index], (q[s.index] + s.dq).astype(np.int32), s.exponent)
    except ModelWireError as error:
        entry = error.facts.get("index")
        if isinstance(entry, int):
            error.facts["index"] = int(s.index[entry])
        raise


def store(spec: TensorSpec, w: F32, index: U32) -> None:
    """Round the entries at `index`, sums that `check` has taken, to what the type stores; in place."""
    if spec.dtype is not Dtype.FLOAT32:
        w[index] = storage.rounded(spec.dtype, w[index])


def check_whole(n: int, s: Section) -> None:
    """Raise IndexOutOfRange or Malformed when a section is none of a verbatim int32 tensor of n entries: any bits are a number there."""
    nothing = np.zeros(n, np.uint32)
    _core.check_verbatim(nothing, nothing.view(np.int32), s.index, (s.value != 0).astype(np.int32))


def move_whole(base: I32, w: I32, q: I32, s: Section) -> None:
    """Move a verbatim int32 tensor by a section that `check_whole` has taken; in place, mod 2^32."""
    q[s.index] += s.value
    w[s.index] = base[s.index] + q[s.index]


def left_over(w: F32, trained: F32, residual: U16, after: F32, index: U32) -> U16:
    """Return what adopting `after` leaves of the differences at `index`, as bfloat16. Raises NonFinite."""
    d = np.empty(len(index), np.float32)
    before = w[index]
    _core.differences(before, trained[index], residual[index], d)
    return _bf16(d - (after[index] - before), index)


def changed_codes(w: F32, trained: F32, residual: U16) -> tuple[U32, I32, U16]:
    """Return (index, change of the code, residual) of all entries of an int8 tensor whose nearest code is another.

    trained: in codes, as float32. Beyond +-127 the code stops there, and what is left stays in the residual. Raises NonFinite.
    """
    d = np.empty_like(w)
    _core.differences(w, trained, residual, d)
    codes = np.rint(np.clip(w + d, -CODE_MAX, CODE_MAX))
    change = codes - w
    index = np.flatnonzero(change).astype(np.uint32)
    every = np.arange(len(w), dtype=np.uint32)
    return index, change[index].astype(np.int32), _bf16(d - change, every)


def _bf16(x: F32, index: U32) -> U16:
    bits = x.view(np.uint32)
    left = ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    infinite = np.flatnonzero(left & BF16_INFINITY == BF16_INFINITY)
    if len(infinite):
        raise NonFinite(what="the residual", tensor=0, index=int(index[infinite[0]]))
    return left
