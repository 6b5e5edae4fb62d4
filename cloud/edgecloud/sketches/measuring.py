"""The exact distance of two states of one base on its lattice, which a sketch estimates: what is printed, and decides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from modelwire.errors import WrongBase
from modelwire.lattice.state import ModelState
from modelwire.tensors import I32, Dtype
from modelwire.update.manifest import Manifest

from .counting import INT8_SHIFT

_AT_ONCE = 1 << 16  # entries
_SAFE = 1 << 23  # so many squares of what is smaller fit into 64 bits
_WHOLE = float(1 << 53)  # below it a sum of squares in float64 was exact in every part
_SHIFT_MAX = 30  # by which 32 bits may be moved within 64


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What of a state its distances are of."""

    manifest: Manifest
    exponents: tuple[int, ...]
    integers: tuple[I32, ...]  # Q, flat arrays in schema order

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(q.nbytes for q in self.integers)


def coordinates_of(state: ModelState) -> Coordinates:
    """Return a copy of what distances are of: the state may be moved on."""
    return Coordinates(state.manifest, tuple(state.exponents), tuple(q.copy() for q in state.integers))


@dataclass(frozen=True, slots=True)
class Apart:
    """How far two states are apart."""

    squared: Fraction  # of the distance, in units of the base as counting.py counts them; exact
    changed: int  # entries on the lattice that differ
    entries: int  # on the lattice

    @property
    def distance(self) -> float:
        """The Euclidean distance in units of the base."""
        return math.sqrt(self.squared)


def apart(a: Coordinates | ModelState, b: Coordinates | ModelState) -> Apart:
    """Return how far two states are apart on the lattice. Verbatim and exact tensors are not counted. Raises WrongBase."""
    manifest = a.manifest
    if b.manifest.commit != manifest.commit:
        raise WrongBase(what="the second model", kind="base", expected=manifest.commit.hex()[:16], got=b.manifest.commit.hex()[:16])
    squared, changed, entries = Fraction(0), 0, 0
    for t, spec in enumerate(manifest.schema.tensors):
        if not manifest.lattice(t):
            continue
        fine = min(a.exponents[t], b.exponents[t])
        total, differing = _squares(a.integers[t], a.exponents[t] - fine, b.integers[t], b.exponents[t] - fine)
        scale = fine - manifest.exponents[t] + (INT8_SHIFT if spec.dtype is Dtype.INT8 else 0)
        squared += total * Fraction(4) ** scale
        changed, entries = changed + differing, entries + spec.size
    return Apart(squared, changed, entries)


def _squares(a: I32, a_shift: int, b: I32, b_shift: int) -> tuple[int, int]:
    """Return the sum of (a * 2^a_shift - b * 2^b_shift)^2, and how many entries differ. Exact, whatever the numbers."""
    total, differing = 0, 0
    for start in range(0, len(a), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        if a_shift == b_shift == 0:
            apart = a[part].astype(np.float64) - b[part]
            squares = float(np.einsum("i,i->", apart, apart))  # of no negative numbers: no part is above the whole
            if squares < _WHOLE:
                total, differing = total + int(squares), differing + int(np.count_nonzero(a[part] != b[part]))
                continue
        if max(a_shift, b_shift) > _SHIFT_MAX:
            pairs = zip(a[part].tolist(), b[part].tolist(), strict=True)
            some = [d for x, y in pairs if (d := (x << a_shift) - (y << b_shift))]
            total, differing = total + sum(d * d for d in some), differing + len(some)
            continue
        d = (a[part].astype(np.int64) << a_shift) - (b[part].astype(np.int64) << b_shift)
        differing += int(np.count_nonzero(d))
        if len(d) and int(np.abs(d).max()) >= _SAFE:
            total += sum(x * x for x in d.tolist())
        else:
            total += int((d * d).sum())
    return total, differing
