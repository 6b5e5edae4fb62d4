"""Lattice tensors that are stored in fewer bits than they are held in: sums are rounded as they are stored."""

from __future__ import annotations

import numpy as np

from modelwire import _core, storage
from modelwire.errors import ModelWireError
from modelwire.tensors import F32, I32, U32, Dtype, TensorSpec
from modelwire.update.sections import Section


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
