"""What a rule sees of one operator: the shapes and values of what it takes, and its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgecloud.graft.stock import Op, StockTensor

Shape = tuple[int, ...]
Array = NDArray[Any]


class OpenShapeError(Exception):
    """What a rule needs is known only once the operators before it have run."""


@dataclass(frozen=True, slots=True)
class At:
    """One operator of a graph whose earlier tensors have their shapes."""

    op: Op
    tensors: Sequence[StockTensor]
    shapes: Sequence[Shape | None]  # None: not known
    known: Mapping[int, Array]  # values that no sample changes

    def has(self, place: int) -> bool:
        """Return whether the operator has an input at this place."""
        return place < len(self.op.inputs) and self.op.inputs[place] >= 0

    def shape(self, place: int = 0) -> Shape:
        """Return the shape of an input. Raises OpenShapeError where it is not known."""
        found = self.shapes[self.op.inputs[place]] if self.has(place) else None
        if found is None:
            raise OpenShapeError
        return found

    def array(self, place: int) -> Array:
        """Return the value of an input. Raises OpenShapeError where only a run would tell."""
        if not self.has(place) or self.op.inputs[place] not in self.known:
            raise OpenShapeError
        return self.known[self.op.inputs[place]]

    def values(self, place: int) -> list[int]:
        """Return the value of an input as a list of integers."""
        return [int(n) for n in self.array(place).ravel()]

    def value(self, place: int) -> int:
        """Return the value of an input of one entry."""
        (n,) = self.values(place)
        return n

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front. Raises ValueError for one that is not there."""
        if not -rank <= axis < rank:
            raise ValueError(f"axis {axis} of {rank}")
        return axis % rank
