"""The lattice: differences, apply, and the way between Q and weights, with whole-array numpy.

Every check comes before the first write. Of several faults the first entry's is raised, and of one entry's the first that is
checked: index, zero value, range, finiteness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from modelwire.errors import IndexOutOfRange, Malformed, ModelWireError, NonFinite, RangeOverflow
from modelwire.limits import Q_MAX
from modelwire.tensors import F32, I32, U16, U32

from .arrays import Array, Mask, sparse, take, unit, whole_step

Fault: TypeAlias = Callable[[int], ModelWireError]


def differences(w: F32, trained: F32, residual: U16, out: F32) -> None:
    w = take("w", w, np.float32)
    trained = take("trained", trained, np.float32, n=len(w))
    residual = take("residual", residual, np.uint16, n=len(w))
    out = take("out", out, np.float32, n=len(w), writable=True)
    d = difference(w, trained, residual)
    first_fault([(~np.isfinite(d), not_finite(trained))])
    out[:] = d


def check_lattice(base: F32, q: I32, index: U32, value: I32, *, exponent: int, step: int) -> None:
    base = take("base", base, np.float32)
    q = take("q", q, np.int32, n=len(base))
    index, value = sparse(index, value)
    _checked_lattice(base, q, index, value, exponent, step)


def apply_lattice(base: F32, w: F32, q: I32, index: U32, value: I32, *, exponent: int, step: int) -> None:
    base = take("base", base, np.float32)
    w = take("w", w, np.float32, n=len(base), writable=True)
    q = take("q", q, np.int32, n=len(base), writable=True)
    index, value = sparse(index, value)
    moved = _checked_lattice(base, q, index, value, exponent, step)
    q[index] = moved
    w[index] = weights_at(base[index], moved, exponent)


def check_verbatim(base: U32, q: I32, index: U32, value: I32) -> None:
    base = take("base", base, np.uint32)
    q = take("q", q, np.int32, n=len(base))
    index, value = sparse(index, value)
    _checked_verbatim(base, q, index, value)


def apply_verbatim(base: U32, w: U32, q: I32, index: U32, value: I32) -> None:
    base = take("base", base, np.uint32)
    w = take("w", w, np.uint32, n=len(base), writable=True)
    q = take("q", q, np.int32, n=len(base), writable=True)
    index, value = sparse(index, value)
    bits = _checked_verbatim(base, q, index, value)
    w[index] = bits
    q[index] = (bits - base[index]).view(np.int32)


def weights_from_q(base: F32, q: I32, w: F32, *, exponent: int) -> None:
    base = take("base", base, np.float32)
    q = take("q", q, np.int32, n=len(base))
    w = take("w", w, np.float32, n=len(base), writable=True)
    unit(exponent)
    weights = weights_at(base, q, exponent)
    first_fault([(~in_range(q), overflow), (~np.isfinite(weights), not_finite_as("the weights"))])
    w.view(np.uint32)[:] = weights.view(np.uint32)


def q_from_weights(base: F32, w: F32, q: I32, *, exponent: int) -> None:
    base = take("base", base, np.float32)
    w = take("w", w, np.float32, n=len(base))
    q = take("q", q, np.int32, n=len(base), writable=True)
    unit(exponent)
    bad = ~(np.isfinite(base) & np.isfinite(w))
    with np.errstate(all="ignore"):
        units = np.rint((w.astype(np.float64) - base.astype(np.float64)) * 2.0**-exponent)
    near = np.abs(units) <= Q_MAX
    found = np.where(near, units, 0).astype(np.int32)
    same = weights_at(base, found, exponent).view(np.uint32) == w.view(np.uint32)
    first_fault([(bad, not_finite_as("the weights")), (~(near & same), _off_lattice)])
    q[:] = found


# The formulas.


def difference(w: F32, trained: F32, residual: U16) -> F32:
    with np.errstate(all="ignore"):
        return (trained - w) + from_bf16(residual)


def weights_at(base: F32, q: Array, exponent: int) -> F32:
    """Return base where Q is 0, to the bit, and base + Q * u elsewhere."""
    with np.errstate(all="ignore"):
        moved = base + q.astype(np.float32) * unit(exponent)
    return np.where(q == 0, base.view(np.uint32), moved.view(np.uint32)).view(np.float32)


def from_bf16(bits: U16) -> F32:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bf16(x: F32) -> U16:
    """Return x rounded to bfloat16, half to even; meaningless where x is not finite."""
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def in_range(q: Array) -> Mask:
    near: Mask = np.abs(q.astype(np.int64)) <= Q_MAX
    return near


# The checks.


def first_fault(faults: list[tuple[Mask, Fault]]) -> None:
    """Raise the fault of the first entry that has one; of several at one entry, the one listed first."""
    hits = [(int(np.argmax(mask)), order) for order, (mask, _) in enumerate(faults) if mask.any()]
    if hits:
        entry, order = min(hits)
        raise faults[order][1](entry)


def _checked_index(index: U32, value: I32, n: int) -> tuple[list[tuple[Mask, Fault]], int]:
    """Return the faults of index and value, and how many entries come before the first of them.

    Entries behind it are never reached, whatever else is wrong with them.
    """
    outside = index >= n
    outside[1:] |= index[1:] <= index[:-1]
    zero = value == 0
    bad = outside | zero
    reach = int(np.argmax(bad)) if bad.any() else len(index)
    return [
        (outside[: reach + 1], lambda k: IndexOutOfRange(tensor=0, index=int(index[k]), size=n)),
        (zero[: reach + 1], lambda k: Malformed(what="value", reason="a zero was sent")),
    ], reach


def _checked_lattice(base: F32, q: I32, index: U32, value: I32, exponent: int, step: int) -> Array:
    """Return Q of the entries that the update touches as int32, or raise what is wrong with the update."""
    unit(exponent)
    whole_step(step)
    faults, reach = _checked_index(index, value, len(base))
    moved = q[index[:reach]].astype(np.int64) + value[:reach].astype(np.int64) * step
    over = ~in_range(moved)
    weights = weights_at(base[index[:reach]], np.where(over, 0, moved), exponent)
    faults.append((over, lambda k: RangeOverflow(tensor=0, index=int(index[k]))))
    faults.append((~np.isfinite(weights), lambda k: not_finite_as("the weights")(int(index[k]))))
    first_fault(faults)
    new: Array = moved.astype(np.int32)
    return new


def _checked_verbatim(base: U32, q: I32, index: U32, value: I32) -> Array:
    """Return the new bit patterns of the entries that the update touches, or raise what is wrong with the update."""
    faults, reach = _checked_index(index, value, len(base))
    touched = index[:reach]
    bits: Array = base[touched] + q[touched].view(np.uint32) + value[:reach].view(np.uint32)
    faults.append((~np.isfinite(bits.view(np.float32)), lambda k: not_finite_as("the weights")(int(index[k]))))
    first_fault(faults)
    return bits


def not_finite(trained: F32, tensor: int = 0) -> Fault:
    def fault(entry: int) -> ModelWireError:
        broken = not np.isfinite(trained[entry])
        what = "the trained weights" if broken else "the difference to the trained weights"
        return NonFinite(what=what, tensor=tensor, index=entry)

    return fault


def not_finite_as(what: str, tensor: int = 0) -> Fault:
    return lambda entry: NonFinite(what=what, tensor=tensor, index=entry)


def overflow(entry: int, tensor: int = 0) -> ModelWireError:
    return RangeOverflow(tensor=tensor, index=entry)


def _off_lattice(entry: int) -> ModelWireError:
    return Malformed(what="weights", reason=f"entry {entry} is not on the lattice of this base")
