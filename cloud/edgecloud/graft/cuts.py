"""Says where a file is cut: which layers each of its modes trains, the cheapest mode first and the deepest last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelwire import limits
from modelwire.errors import BadArgument

from .layers import Layer, select
from .stock import Stock


@dataclass(frozen=True, eq=False, slots=True)
class Cut:
    """What one mode trains."""

    name: str  # as it was asked for
    layers: tuple[Layer, ...]

    @property
    def weights(self) -> dict[str, int]:
        """The stock tensor of each weight, by its name, in sorted order."""
        return dict(sorted((name, t) for layer in self.layers for name, t in layer.weights.items()))


def cuts(stock: Stock, every: Sequence[Layer], train: Sequence[str], modes: Sequence[str]) -> tuple[Cut, ...]:
    """Return the cuts, those that reach less far down first; `train` is the last. Two that train the same are one.

    Raises BadArgument for a name that is not there, and for a mode that trains what `train` does not.
    """
    deepest = Cut(named(train), select(stock, every, train))
    out: list[Cut] = []
    for name in modes:
        cut = Cut(name, select(stock, every, (name,)))
        beyond = sorted(cut.weights.keys() - deepest.weights.keys())
        if beyond:
            raise BadArgument(reason=f"the mode {name!r} trains {beyond[0]!r}, which --train {deepest.name} does not", fix="--train all")
        if all(cut.weights != other.weights for other in (*out, deepest)):
            out.append(cut)
    if len(out) >= limits.DEFAULT.modes:
        raise BadArgument(reason=f"{len(out) + 1} modes", fix=f"name fewer; a file has {limits.DEFAULT.modes} at most")
    # How far down the gradient goes decides what a step costs; among equals, how many weights it moves.
    out.sort(key=lambda cut: (-min(layer.operator for layer in cut.layers), sum(layer.entries(stock) for layer in cut.layers)))
    return (*out, deepest)


def named(train: Sequence[str]) -> str:
    """Return the name of the mode that trains what is asked for."""
    name = " ".join(train)
    return name if len(name) <= limits.DEFAULT.tensor_name else f"{len(train)} layers"
