"""How far two data cards are apart, field by field, and how far chance alone would take them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .card import Card, stability
from .sketch import aligned

SHIFTED, ANOTHER = 0.1, 0.25  # customary bounds of the population stability index


@dataclass(frozen=True, slots=True)
class Shift:
    """One field of both cards."""

    field: str  # labels, hours, tags.NAME or channels.NAME
    psi: float  # population stability index: 0 for equal shares
    chance: float  # two samples of these sizes from one population come to more about once in thirty times

    @property
    def beyond_chance(self) -> bool:
        return self.psi > self.chance

    @property
    def words(self) -> str:
        """What the number is commonly called."""
        if not self.beyond_chance:
            return "alike" if self.psi <= SHIFTED else "alike: so few differ as much by chance"
        return "another population" if self.psi > ANOTHER else "shifted" if self.psi > SHIFTED else "alike"


def shifts(a: Card, b: Card) -> tuple[Shift, ...]:
    """Return how far apart the fields are that both cards have, the farthest first. Channels of another axis are left out."""
    fields = [
        _shift("labels", a.labels, b.labels),
        _shift("hours", dict(enumerate(a.hours)), dict(enumerate(b.hours))),
        *(_shift(f"tags.{name}", a.tags[name], b.tags[name]) for name in a.tags.keys() & b.tags.keys()),
    ]
    other = {sketch.channel: sketch for sketch in b.sketches}
    for sketch in a.sketches:
        if sketch.channel in other:
            fields.append(_shift(f"channels.{sketch.channel.name}", *aligned(sketch, other[sketch.channel])))
    return tuple(sorted((shift for shift in fields if shift is not None), key=lambda shift: (-shift.psi, shift.field)))


def _shift(field: str, a: Mapping[Any, int], b: Mapping[Any, int]) -> Shift | None:
    a, b = ({key: n for key, n in counts.items() if n} for counts in (a, b))
    if not a or not b:
        return None
    # For equal populations the index times n*m/(n+m) is nearly chi-squared with one degree of freedom less than cells: its mean
    # and two standard deviations.
    free, size = len(a.keys() | b.keys()) - 1, 1 / sum(a.values()) + 1 / sum(b.values())
    return Shift(field, stability(a, b), size * (free + 2 * math.sqrt(2 * free)))
