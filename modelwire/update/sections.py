"""What an update says: integer differences per tensor. They add, invert and squash exactly, because integers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelwire import limits
from modelwire.errors import Malformed, RangeOverflow
from modelwire.tensors import I32, U32, Dtype

from . import planes
from .manifest import Manifest


class Kind(IntEnum):
    """Kinds of update by their number on the wire."""

    SNAPSHOT = 0  # the whole state: full Q against the base
    DELTA = 1  # sparse dQ against the parent
    EXACT = 2  # what a delta is where all tensors of the base are exact
    RECIPE = 3  # how the version was trained: no sections; what it comes to depends on the parent (rebuild.py)


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


@dataclass(frozen=True, slots=True, eq=False)
class PlaneSection:
    """One exact tensor's part of an update: the differences of its ordered integers, coded. docs/format/container.md, "Planes"."""

    tensor: int
    dtype: Dtype
    entries: int  # of the tensor
    planes: bytes | memoryview

    @property
    def count(self) -> int:
        """Entries that change. Raises Malformed when the planes are not those of such a tensor."""
        return planes.check(self.planes, self.entries, self.dtype.width)


AnySection: TypeAlias = Section | PlaneSection
Sections: TypeAlias = tuple[AnySection, ...]


def sparse(sections: Sequence[AnySection]) -> list[Section]:
    """Return those that the range coder carries."""
    return [s for s in sections if isinstance(s, Section)]


def dense(sections: Sequence[AnySection]) -> list[PlaneSection]:
    """Return those that planes carry."""
    return [s for s in sections if isinstance(s, PlaneSection)]


def changed(sections: Sequence[AnySection]) -> int:
    """Return how many weights an update changes."""
    return sum(s.count if isinstance(s, PlaneSection) else len(s.index) for s in sections)


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
    entries = (keep if index is None else index[keep]).astype(np.uint32)
    values = dq[keep]
    common = int(np.gcd.reduce(np.abs(values)))
    shift = min((common & -common).bit_length() - 1, limits.STEP_SHIFT_MAX)
    odd = common >> shift
    step = next(m for m in range(limits.STEP_MANTISSA_MAX, 0, -2) if odd % m == 0) << shift
    values = values // step
    wide = np.flatnonzero((values < -(1 << 31)) | (values >= 1 << 31))
    if len(wide):
        raise RangeOverflow(tensor=tensor, index=int(entries[wide[0]]))
    return Section(tensor, entries, values.astype(np.int32), step, exponent)


def verbatim_section(tensor: int, difference: I32) -> Section | None:
    """Return the section of a verbatim tensor: difference of bit patterns mod 2^32, all entries."""
    keep = np.flatnonzero(difference).astype(np.uint32)
    return Section(tensor, keep, difference[keep], 1, 0) if len(keep) else None


def add(first: Sequence[AnySection], second: Sequence[AnySection], manifest: Manifest) -> Sections:
    """Return one update that does what `first` and then `second` do. Exact, in any grouping.

    Raises Malformed when a tensor's unit changed in between: a snapshot with larger units is a barrier for sums.
    """
    a = {s.tensor: s for s in first}
    b = {s.tensor: s for s in second}
    out: list[AnySection] = []
    for t in sorted(a.keys() | b.keys()):
        x, y = a.get(t), b.get(t)
        if x is None or y is None:
            one = x or y
            assert one is not None
            out.append(one)
            continue
        if isinstance(x, PlaneSection) or isinstance(y, PlaneSection):
            summed = _sum_of_planes(x, y)
            if summed is not None:
                out.append(summed)
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


def invert(sections: Sequence[AnySection]) -> Sections:
    """Return the update that takes `sections` back, exactly."""
    return tuple(
        _inverse_planes(s)
        if isinstance(s, PlaneSection)
        else Section(s.tensor, s.index, _wrap(-s.value.astype(np.int64)), s.step, s.exponent)
        for s in sections
    )


def _sum_of_planes(x: AnySection, y: AnySection) -> PlaneSection | None:
    if not isinstance(x, PlaneSection) or not isinstance(y, PlaneSection) or (x.dtype, x.entries) != (y.dtype, y.entries):
        raise Malformed(what="sum of updates", reason=f"tensor {x.tensor} is not coded alike in both")
    total = _differences(x)
    total += _differences(y)  # unsigned: mod 2^width
    data = planes.encode(total, None, 0)
    return PlaneSection(x.tensor, x.dtype, x.entries, data) if data else None


def _inverse_planes(s: PlaneSection) -> PlaneSection:
    return PlaneSection(s.tensor, s.dtype, s.entries, planes.encode(0 - _differences(s), None, 0))


def _differences(s: PlaneSection) -> NDArray[Any]:
    return planes.differences(s.planes, s.entries, s.dtype)


def _wrap(x: NDArray[np.int64]) -> I32:
    return (x & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
