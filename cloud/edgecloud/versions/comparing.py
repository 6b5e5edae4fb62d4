"""How far two versions are from each other, tensor by tensor: exactly in lattice units where they have a base in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelwire import storage
from modelwire.errors import WrongBase
from modelwire.identity import tensor_leaves
from modelwire.lattice.state import ModelState
from modelwire.merkle import LEAF_BYTES
from modelwire.tensors import Held, TensorSpec


@dataclass(frozen=True, slots=True)
class TensorDistance:
    """One tensor of both versions."""

    name: str
    entries: int
    changed: int  # entries whose bits differ
    units: int | None  # sum of |Q - Q'| in units of 2^exponent; None where the bases differ or the tensor is not on the lattice
    most_units: int | None  # max |Q - Q'|, likewise
    exponent: int | None  # of the finer of both lattices
    largest: float  # max |w - w'|
    l2: float
    relative: float | None  # l2 over the norm of the first version's; None where that is 0 and the second's is not
    leaves: int  # of the tensor in the Merkle tree
    leaves_changed: int  # that differ


@dataclass(frozen=True, slots=True)
class Distance:
    """Two versions."""

    same_base: bool
    tensors: tuple[TensorDistance, ...]

    def __repr__(self) -> str:
        return f"<distance: {self.changed} of {self.entries} weights differ, by {self.largest:.3g} at most>"

    @property
    def changed(self) -> int:
        return sum(t.changed for t in self.tensors)

    @property
    def entries(self) -> int:
        return sum(t.entries for t in self.tensors)

    @property
    def leaves(self) -> int:
        return sum(t.leaves for t in self.tensors)

    @property
    def leaves_changed(self) -> int:
        return sum(t.leaves_changed for t in self.tensors)

    @property
    def largest(self) -> float:
        return max((t.largest for t in self.tensors), default=0.0)

    @property
    def largest_units(self) -> int | None:
        """The largest difference of an entry in units of its tensor; None where no tensor of both lies on a lattice."""
        return max((t.most_units for t in self.tensors if t.most_units is not None), default=None)

    @property
    def l2(self) -> float:
        return float(np.sqrt(sum(t.l2**2 for t in self.tensors)))


def distance(a: ModelState, b: ModelState) -> Distance:
    """Return how far `b` is from `a`. Raises WrongBase when they have not the same tensors."""
    one, other = a.manifest.schema, b.manifest.schema
    if one.id != other.id:
        raise WrongBase(what="the second version", kind="schema", expected=one.id.hex()[:16], got=other.id.hex()[:16])
    same_base = a.manifest.commit == b.manifest.commit
    return Distance(same_base, tuple(_tensor(a, b, t, same_base) for t in range(len(one.tensors))))


def differing_leaves(state: ModelState, tensor: int, first: int, given: bytes, count: int) -> tuple[int, ...]:
    """Return which leaves of a tensor are not those of a state. given: from leaf `first` on, 32 bytes each; count: of the whole tensor."""
    spec = state.manifest.schema.tensors[tensor]
    mine = tensor_leaves(spec, state.weights[tensor])
    theirs = [given[i : i + 32] for i in range(0, len(given), 32)]
    apart = [first + i for i, leaf in enumerate(theirs) if first + i >= len(mine) or mine[first + i] != leaf]
    return tuple(apart) if count == len(mine) else (*apart, *range(min(count, len(mine)), max(count, len(mine))))


def _tensor(a: ModelState, b: ModelState, t: int, same_base: bool) -> TensorDistance:
    spec = a.manifest.schema.tensors[t]
    difference = a.weights[t].astype(np.float64) - b.weights[t].astype(np.float64)
    changed = int(np.count_nonzero(a.weights[t].view(np.uint32) != b.weights[t].view(np.uint32)))
    units = most = exponent = None
    if same_base and a.manifest.lattice(t):
        exponent = min(a.exponents[t], b.exponents[t])
        units, most = _units(a, t, exponent, b)
    largest = float(np.abs(difference).max(initial=0.0))
    l2, norm = float(np.linalg.norm(difference)), float(np.linalg.norm(a.weights[t].astype(np.float64)))
    pairs = [one == other for one, other in zip(*(_pieces(spec, state.weights[t]) for state in (a, b)), strict=True)]
    relative = l2 / norm if norm else None if l2 else 0.0
    return TensorDistance(spec.name, spec.size, changed, units, most, exponent, largest, l2, relative, len(pairs), pairs.count(False))


def _pieces(spec: TensorSpec, array: Held) -> list[bytes]:
    """Return what the leaves of a tensor are digests of."""
    return [bytes(piece) for piece in storage.pieces(spec.dtype, array, LEAF_BYTES)]


def _units(a: ModelState, t: int, exponent: int, b: ModelState) -> tuple[int, int]:
    shift_a, shift_b = a.exponents[t] - exponent, b.exponents[t] - exponent
    # Units that were widened k times are 2^3k as large: there whole numbers of any size, else 64 bits hold the sum.
    wide = np.int64 if shift_a == shift_b == 0 else object
    q = a.integers[t].astype(wide) * (1 << shift_a) - b.integers[t].astype(wide) * (1 << shift_b)
    return int(np.abs(q).sum()), int(np.abs(q).max(initial=0))
