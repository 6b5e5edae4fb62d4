"""The exact average of several states of one base: sums of whole numbers of any size, rounded once, half to even. So any order is equal.

What is on the lattice is averaged there: the mean of Q, on the base's own units. Where models had widened theirs so far that the mean
leaves the base's range, the finest unit that any of them has and that holds the mean is taken. Every mean lies between the least and
the largest of what it is made of, so what the parents could store the merge can store too.
What is on no lattice (statistics, thresholds, whole numbers, and all tensors of devices that adopt nothing) is averaged as the numbers
that it stands for, rounded to the nearest of its type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire import limits
from modelwire.errors import BadArgument, WrongBase
from modelwire.lattice import exact
from modelwire.lattice.state import ModelState
from modelwire.tensors import TensorClass
from modelwire.update.sections import AnySection, Kind, Section, section_of, verbatim_section

from .exact_sums import ExactSums, half_even

_WIDE = 1 << 62  # sums of 64 bits below it can't wrap
WEIGHTS_BELOW = 1 << 30  # all weights of a merge together


class LatticeMean:
    """Takes states of one base, each once, and gives their weighted mean. Holds sums alone: memory does not grow with their number."""

    def __init__(self, first: ModelState) -> None:
        """first: any state of the base; it is not counted."""
        self._base = first.at_base()
        manifest = first.manifest
        self._exact = {
            t: ExactSums(spec.dtype, spec.size)
            for t, (spec, kind) in enumerate(zip(manifest.schema.tensors, manifest.classes, strict=True)) if kind is not TensorClass.LATTICE
        }  # fmt: skip
        self._lattice = {
            t: _LatticeSums(manifest.exponents[t], spec.size) for t, spec in enumerate(manifest.schema.tensors) if t not in self._exact
        }
        self._weights = 0
        self.count = 0

    def add(self, state: ModelState, weight: int = 1) -> None:
        """Count a state so many times. Raises WrongBase for one of another base, BadArgument for a weight that can't be counted."""
        ours, theirs = self._base.manifest.commit, state.manifest.commit
        if ours != theirs:
            raise WrongBase(what="a version that is merged", kind="base", expected=ours.hex()[:16], got=theirs.hex()[:16])
        if weight <= 0 or self._weights + weight >= WEIGHTS_BELOW:
            fix = "give smaller whole numbers above 0: only their ratios count"
            raise BadArgument(reason=f"the weights of a merge are above 0 and sum to less than {WEIGHTS_BELOW}", fix=fix)
        for t, sums in self._exact.items():
            sums.add(state.weights[t], weight)
        for t, lattice in self._lattice.items():
            lattice.add(state.integers[t], state.exponents[t], weight)
        self._weights += weight
        self.count += 1

    def state(self) -> ModelState:
        """Return the mean of what was added: a state of the same base, on its lattice."""
        assert self._weights, "no state was added"
        out = self._base.at_base()
        sections: list[AnySection] = []
        for t, spec in enumerate(out.manifest.schema.tensors):
            one: AnySection | None
            if t in self._lattice:
                one = self._lattice[t].section(t, self._weights)
            elif out.manifest.exact(t):
                one = exact.section_of(t, spec, out.base[t], self._exact[t].mean())
            else:
                moved, base = self._exact[t].mean().view(np.uint32), out.base[t].view(np.uint32)
                one = verbatim_section(t, (moved - base).view(np.int32))
            if one is not None:
                sections.append(one)
        out.apply(Kind.SNAPSHOT, sections)
        return out


class _LatticeSums:
    """Sums of one tensor's Q, in the finest unit that was met: 64 bits, or whole numbers of any size where these could wrap."""

    def __init__(self, exponent: int, entries: int) -> None:
        self._base, self._unit = exponent, exponent
        self._units = {exponent}
        self._sums: NDArray[Any] = np.zeros(entries, np.int64)
        self._bound = 0  # on the magnitude of any sum

    def add(self, q: NDArray[np.int32], exponent: int, weight: int) -> None:
        self._units.add(exponent)
        if exponent < self._unit:
            self._widen(self._bound << (self._unit - exponent))
            self._sums = self._sums * (1 << (self._unit - exponent))
            self._unit = exponent
        factor = weight << (exponent - self._unit)
        self._widen(self._bound + factor * limits.Q_MAX)
        self._sums = self._sums + q.astype(self._sums.dtype) * factor

    def _widen(self, bound: int) -> None:
        """Make room for sums of this magnitude."""
        self._bound = bound
        if bound >= _WIDE and self._sums.dtype != object:
            self._sums = self._sums.astype(object)

    def section(self, tensor: int, weights: int) -> Section | None:
        """Return the mean as a section of a snapshot, None where it is the base."""
        for unit in sorted(one for one in self._units if one >= self._base):
            q = self._rounded(weights, unit)
            if np.abs(q).max(initial=0) <= limits.Q_MAX:
                break
        return section_of(tensor, q.astype(np.int64), unit)

    def _rounded(self, weights: int, unit: int) -> NDArray[Any]:
        parts = weights << (unit - self._unit)
        sums = self._sums if parts < _WIDE >> 1 and self._sums.dtype != object else self._sums.astype(object)
        rounded: NDArray[Any] = half_even(sums, parts)
        return rounded
