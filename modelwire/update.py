"""What an update says: integer differences per tensor. They add, invert and squash exactly, because integers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from . import limits
from .errors import Malformed, RangeOverflow
from .manifest import Manifest
from .tensors import I32, U32


class Kind(IntEnum):
    """Kinds of update by their number on the wire; `exact` and `recipe` are reserved in wire 1."""

    SNAPSHOT = 0  # the whole state: full Q against the base
    DELTA = 1  # sparse dQ against the parent


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """One tensor's part of an update: dQ = value * step at the indices; all other entries are 0.

    In a snapshot dQ is Q itself. Of a verbatim tensor the differences are those of bit patterns mod 2^32, step is 1.
    """

    tensor: int
    index: U32  # strictly rising
    value: I32  # never 0
    step: int  # lattice units, m * 2^j with odd m <= 255
    exponent: int  # unit 2^e of the tensor, 0 where verbatim

    @property
    def count(self) -> int:
        return len(self.index)

    @property
    def dq(self) -> NDArray[np.int64]:
        return self.value.astype(np.int64) * self.step


Sections = tuple[Section, ...]


def split_step(step: int) -> tuple[int, int]:
    """Return (m, j) with step = m * 2^j and m odd. Raises Malformed when the wire can't say it."""
    j = (step & -step).bit_length() - 1 if step > 0 else -1
    m = step >> j if step > 0 else 0
    if not 0 < m <= limits.STEP_MANTISSA_MAX or j > limits.STEP_SHIFT_MAX:
        raise Malformed(what="step", reason=f"{step} units is not m * 2^j with m <= 255")
    return m, j


def section_of(tensor: int, dq: NDArray[np.int64], exponent: int, *, index: U32 | None = None) -> Section | None:
    """Return the section for differences in units, or None where all are 0.

    dq: all entries of the tensor, or those at `index`. The step is the largest that divides them all and that the wire can say.
    Raises RangeOverflow when a difference does not fit in 32 bits.
    """
    keep = np.flatnonzero(dq)
    if not len(keep):
        return None
    at = (keep if index is None else index[keep]).astype(np.uint32)
    values = dq[keep]
    common = int(np.gcd.reduce(np.abs(values)))
    shift = min((common & -common).bit_length() - 1, limits.STEP_SHIFT_MAX)
    odd = common >> shift
    step = next(m for m in range(limits.STEP_MANTISSA_MAX, 0, -2) if odd % m == 0) << shift
    values = values // step
    wide = np.flatnonzero((values < -(1 << 31)) | (values >= 1 << 31))
    if len(wide):
        raise RangeOverflow(tensor=tensor, index=int(at[wide[0]]))
    return Section(tensor, at, values.astype(np.int32), step, exponent)


def verbatim_section(tensor: int, difference: I32) -> Section | None:
    """Return the section of a verbatim tensor: difference of bit patterns mod 2^32, all entries."""
    keep = np.flatnonzero(difference).astype(np.uint32)
    return Section(tensor, keep, difference[keep], 1, 0) if len(keep) else None


def add(first: Sequence[Section], second: Sequence[Section], manifest: Manifest) -> Sections:
    """Return one update that does what `first` and then `second` do. Exact, in any grouping.

    Raises Malformed when a tensor's unit changed in between: a snapshot with larger units is a barrier for sums.
    """
    a = {s.tensor: s for s in first}
    b = {s.tensor: s for s in second}
    out = []
    for t in sorted(a.keys() | b.keys()):
        x, y = a.get(t), b.get(t)
        if x is None or y is None:
            one = x or y
            assert one is not None
            out.append(one)
            continue
        if x.exponent != y.exponent:
            raise Malformed(what="sum of updates", reason=f"tensor {t} changed its unit in between")
        index = np.union1d(x.index, y.index)
        total = np.zeros(len(index), np.int64)
        total[np.searchsorted(index, x.index)] += x.dq
        total[np.searchsorted(index, y.index)] += y.dq
        section: Section | None
        if manifest.verbatim(t):
            wrapped = _wrap(total)
            keep = np.flatnonzero(wrapped)
            section = Section(t, index[keep], wrapped[keep], 1, 0) if len(keep) else None
        else:
            section = section_of(t, total, x.exponent, index=index)
        if section is not None:
            out.append(section)
    return tuple(out)


def invert(sections: Sequence[Section]) -> Sections:
    """Return the update that takes `sections` back, exactly."""
    return tuple(Section(s.tensor, s.index, _wrap(-s.value.astype(np.int64)), s.step, s.exponent) for s in sections)


def _wrap(x: NDArray[np.int64]) -> I32:
    return (x & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
