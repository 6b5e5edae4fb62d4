"""The lattice: differences, snap, adopt, apply, and the way between Q and weights, with whole-array numpy.

Every check comes before the first write. Of several faults the first entry's is raised, and of one entry's the first that is
checked: index, zero value, range, finiteness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from modelwire.errors import IndexOutOfRange, KernelError, Malformed, ModelWireError, NonFinite, RangeOverflow
from modelwire.limits import Q_MAX
from modelwire.tensors import F32, I32, U16, U32

from .arrays import Array, Mask, sparse, take, unit, whole_step

Fault: TypeAlias = Callable[[int], ModelWireError]


def differences(w: F32, trained: F32, residual: U16, out: F32) -> None:
    w = take("w", w, np.float32)
    trained = take("trained", trained, np.float32, n=len(w))
    residual = take("residual", residual, np.uint16, n=len(w))
    out = take("out", out, np.float32, n=len(w), writable=True)
    d = _difference(w, trained, residual)
    _first([(~np.isfinite(d), _not_finite(trained))])
    out[:] = d


def collect(
    w: F32, trained: F32, residual: U16, left: U16, index: U32, d: F32, *, least: float
) -> tuple[int, bool] | None:
    w = take("w", w, np.float32)
    trained = take("trained", trained, np.float32, n=len(w))
    residual = take("residual", residual, np.uint16, n=len(w))
    left = take("left", left, np.uint16, n=len(w), writable=True)
    index = take("index", index, np.uint32, writable=True)
    d = take("d", d, np.float32, n=len(index), writable=True)
    bar = _threshold(least)
    every = _difference(w, trained, residual)
    _first([(~np.isfinite(every), _not_finite(trained))])
    magnitude = np.abs(every)
    kept = np.flatnonzero((magnitude >= bar) & (magnitude > 0))
    if len(kept) > len(index):
        return None
    left[:] = _to_bf16(every)
    index[: len(kept)] = kept
    d[: len(kept)] = every[kept]
    return len(kept), not bool(np.isfinite(_from_bf16(left)).all())


def kth_magnitude(d: F32, k: int) -> float:
    d = take("d", d, np.float32)
    if not 1 <= k <= len(d):
        raise KernelError(what="k", reason=f"expected 1 to {len(d)}, got {k}")
    bits = d.view(np.uint32) & np.uint32(0x7FFFFFFF)  # magnitudes order like their bits, NaNs included
    return float(np.sort(bits)[len(d) - k : len(d) - k + 1].view(np.float32)[0])


def quantise(
    q: I32, index: U32, d: F32, *, exponent: int, step: int, threshold: float
) -> tuple[U32, I32, int]:
    q = take("q", q, np.int32)
    index = take("index", index, np.uint32)
    d = take("d", d, np.float32, n=len(index))
    u, step = unit(exponent), whole_step(step)
    least = _threshold(threshold)
    with np.errstate(all="ignore"):
        step_size = np.float32(step) * u
    magnitude = np.abs(d)
    sent = (magnitude >= least) & (magnitude > 0)
    outside = index >= len(q)
    outside[1:] |= index[1:] <= index[:-1]
    over = sent & ~_in_range(q[np.where(outside, 0, index)] if len(q) else np.zeros(len(index), np.int32))
    _first([
        (outside, lambda k: IndexOutOfRange(tensor=0, index=int(index[k]), size=len(q))),
        (~np.isfinite(d), lambda k: _not_finite_as("the difference to the trained weights")(int(index[k]))),
        (over, lambda k: _overflow(int(index[k]))),
    ])
    return _whole_steps(index[sent].astype(np.int64), d[sent], q, step, step_size)


def snap(
    w: F32, trained: F32, residual: U16, q: I32, *, exponent: int, step: int, threshold: float
) -> tuple[U32, I32, int]:
    w = take("w", w, np.float32)
    trained = take("trained", trained, np.float32, n=len(w))
    residual = take("residual", residual, np.uint16, n=len(w))
    q = take("q", q, np.int32, n=len(w))
    u, step = unit(exponent), whole_step(step)
    least = _threshold(threshold)
    with np.errstate(all="ignore"):
        step_size = np.float32(step) * u
    d = _difference(w, trained, residual)
    magnitude = np.abs(d)
    sent = (magnitude >= least) & (magnitude > 0)
    _first([(~np.isfinite(d), _not_finite(trained)), (sent & ~_in_range(q), _overflow)])
    i = np.flatnonzero(sent)
    return _whole_steps(i, d[i], q, step, step_size)


def adopt(
    base: F32, w: F32, trained: F32, residual: U16, q: I32, index: U32, value: I32, *, exponent: int, step: int
) -> None:
    base = take("base", base, np.float32)
    w = take("w", w, np.float32, n=len(base), writable=True)
    trained = take("trained", trained, np.float32, n=len(base))
    residual = take("residual", residual, np.uint16, n=len(base), writable=True)
    q = take("q", q, np.int32, n=len(base), writable=True)
    index, value = sparse(index, value)
    moved = _checked_lattice(base, q, index, value, exponent, step)
    d = _difference(w, trained, residual)
    weights = w.copy()
    weights[index] = _weights(base[index], moved, exponent)
    left = d.copy()
    with np.errstate(all="ignore"):
        left[index] = d[index] - (weights[index] - w[index])
    rounded = _to_bf16(left)
    overflowed = ~np.isfinite(left) | ~np.isfinite(_from_bf16(rounded))
    _first([(~np.isfinite(d), _not_finite(trained)), (overflowed, _not_finite_as("the residual"))])
    q[index] = moved
    w[index] = weights[index]
    residual[:] = rounded


def adopt_sent(
    base: F32, w: F32, trained: F32, residual: U16, q: I32, left: U16, index: U32, value: I32, *, exponent: int, step: int
) -> None:
    base = take("base", base, np.float32)
    w = take("w", w, np.float32, n=len(base), writable=True)
    trained = take("trained", trained, np.float32, n=len(base))
    residual = take("residual", residual, np.uint16, n=len(base))
    q = take("q", q, np.int32, n=len(base), writable=True)
    left = take("left", left, np.uint16, n=len(base), writable=True)
    index, value = sparse(index, value)
    moved = _checked_lattice(base, q, index, value, exponent, step)
    d = _difference(w[index], trained[index], residual[index])
    weights = _weights(base[index], moved, exponent)
    with np.errstate(all="ignore"):
        rest = d - (weights - w[index])
    rounded = _to_bf16(rest)
    overflowed = ~np.isfinite(rest) | ~np.isfinite(_from_bf16(rounded))
    _first([
        (~np.isfinite(d), lambda k: _not_finite(trained)(int(index[k]))),
        (overflowed, lambda k: _not_finite_as("the residual")(int(index[k]))),
    ])
    q[index] = moved
    w[index] = weights
    left[index] = rounded


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
    w[index] = _weights(base[index], moved, exponent)


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
    weights = _weights(base, q, exponent)
    _first([(~_in_range(q), _overflow), (~np.isfinite(weights), _not_finite_as("the weights"))])
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
    same = _weights(base, found, exponent).view(np.uint32) == w.view(np.uint32)
    _first([(bad, _not_finite_as("the weights")), (~(near & same), _off_lattice)])
    q[:] = found


# The formulas.


def _difference(w: F32, trained: F32, residual: U16) -> F32:
    with np.errstate(all="ignore"):
        return (trained - w) + _from_bf16(residual)


def _whole_steps(i: Array, d: F32, q: I32, step: int, step_size: F32) -> tuple[U32, I32, int]:
    """Return index, value and the number of clamped entries, for entries i that are outside the dead zone by d."""
    with np.errstate(all="ignore"):
        ratio = np.minimum(np.abs(d) / step_size, np.float32(2**31))
    steps = np.maximum(1, np.rint(ratio).astype(np.int64))
    sign = np.where(d > 0, 1, -1)
    room = (Q_MAX - sign * q[i].astype(np.int64)) // step
    kept = np.minimum(steps, room)
    some = kept > 0
    return i[some].astype(np.uint32), (sign * kept)[some].astype(np.int32), int(np.count_nonzero(steps > room))


def _threshold(threshold: float) -> np.float32:
    """Return the threshold as float32. Raises Malformed."""
    with np.errstate(all="ignore"):
        least = np.float32(threshold)
    if not least >= 0:
        raise Malformed(what="threshold", reason="it is negative or not a number")
    return least


def _weights(base: F32, q: Array, exponent: int) -> F32:
    """Return base where Q is 0, to the bit, and base + Q * u elsewhere."""
    with np.errstate(all="ignore"):
        moved = base + q.astype(np.float32) * unit(exponent)
    return np.where(q == 0, base.view(np.uint32), moved.view(np.uint32)).view(np.float32)


def _from_bf16(bits: U16) -> F32:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _to_bf16(x: F32) -> U16:
    """Return x rounded to bfloat16, half to even; meaningless where x is not finite."""
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _in_range(q: Array) -> Mask:
    near: Mask = np.abs(q.astype(np.int64)) <= Q_MAX
    return near


# The checks.


def _first(faults: list[tuple[Mask, Fault]]) -> None:
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
    over = ~_in_range(moved)
    weights = _weights(base[index[:reach]], np.where(over, 0, moved), exponent)
    faults.append((over, lambda k: RangeOverflow(tensor=0, index=int(index[k]))))
    faults.append((~np.isfinite(weights), lambda k: _not_finite_as("the weights")(int(index[k]))))
    _first(faults)
    new: Array = moved.astype(np.int32)
    return new


def _checked_verbatim(base: U32, q: I32, index: U32, value: I32) -> Array:
    """Return the new bit patterns of the entries that the update touches, or raise what is wrong with the update."""
    faults, reach = _checked_index(index, value, len(base))
    touched = index[:reach]
    bits: Array = base[touched] + q[touched].view(np.uint32) + value[:reach].view(np.uint32)
    faults.append((~np.isfinite(bits.view(np.float32)), lambda k: _not_finite_as("the weights")(int(index[k]))))
    _first(faults)
    return bits


def _not_finite(trained: F32) -> Fault:
    def fault(entry: int) -> ModelWireError:
        broken = not np.isfinite(trained[entry])
        what = "the trained weights" if broken else "the difference to the trained weights"
        return NonFinite(what=what, tensor=0, index=entry)

    return fault


def _not_finite_as(what: str) -> Fault:
    return lambda entry: NonFinite(what=what, tensor=0, index=entry)


def _overflow(entry: int) -> ModelWireError:
    return RangeOverflow(tensor=0, index=entry)


def _off_lattice(entry: int) -> ModelWireError:
    return Malformed(what="weights", reason=f"entry {entry} is not on the lattice of this base")
