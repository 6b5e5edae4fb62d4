"""What one feature's values look like: how many, mean, variance and quantiles, in integers that merge exactly in any order.

Buckets are equally wide, and get twice as wide whenever more than a few hold something: the result hangs on the values alone, not on
how they were grouped or merged, and an outlier takes one bucket and no more. docs/data-cards.md has the errors that follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import Malformed
from modelwire.names import check_name

BUCKETS = 12  # at most; 2 always suffice: below the centre, and from it on
FRACTION = 16  # values count in 2^-16 of the channel's scale
BOUND_MAX = 40
LEVEL_MAX = BOUND_MAX + FRACTION + 1  # there a sketch has two buckets


@dataclass(frozen=True, slots=True)
class Channel:
    """A feature as cards see it: z = (x - centre) / 2^scale. Only what was measured on the same channel can be merged."""

    name: str
    centre: float = 0.0
    scale: int = 0  # power of two: choose it so that z is mostly within 1 of 0
    bound: int = 20  # z is cut to +-2^bound: what one sample can add to a sum, which noise has to hide

    def __post_init__(self) -> None:
        check_name("channel", self.name)
        if not math.isfinite(self.centre) or not -60 <= self.scale <= 60 or not 0 <= self.bound <= BOUND_MAX:
            raise Malformed(what=f"channel {self.name}", reason="centre, scale or bound is out of range")

    def units(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return the values that are numbers in 2^-16 of the scale from the centre, cut to the bound."""
        z = np.asarray(values, np.float64).reshape(-1)
        most = math.ldexp(1.0, self.bound)
        with np.errstate(over="ignore"):
            z = np.clip(np.ldexp(z[np.isfinite(z)] - self.centre, -self.scale), -most, most)
        return np.rint(np.ldexp(z, FRACTION)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Sketch:
    """Count, sums and buckets of one channel's values."""

    channel: Channel
    count: int = 0
    missing: int = 0  # values that were no numbers
    total: int = 0  # sum of the values in units
    squares: int = 0  # sum of their squares
    level: int = 0  # a bucket is 2^level units wide
    buckets: Mapping[int, int] = field(default_factory=dict)  # units divided by the width, rounded down, to count

    @property
    def mean(self) -> float:
        """The mean of the values. NaN when there are none."""
        if not self.count:
            return math.nan
        return self.channel.centre + math.ldexp(self.total / self.count, self.channel.scale - FRACTION)

    @property
    def variance(self) -> float:
        """The variance of the values, never below 0. NaN when there are none."""
        if not self.count:
            return math.nan
        spread = self.squares * self.count - self.total * self.total  # exact: they are integers
        return math.ldexp(max(0.0, spread / self.count**2), 2 * (self.channel.scale - FRACTION))

    def quantile(self, share: float) -> float:
        """Return a value of the bucket below which `share` of all values lie: its middle. NaN when there are none."""
        held = sum(self.buckets.values())
        if not held:
            return math.nan
        rank, passed = share * held, 0
        for key in sorted(self.buckets):
            passed += self.buckets[key]
            if passed >= rank and self.buckets[key]:
                break
        return self.channel.centre + math.ldexp(key + 0.5, self.level + self.channel.scale - FRACTION)


def sketch_of(channel: Channel, values: NDArray[Any], most: int = BUCKETS) -> Sketch:
    """Return the sketch of a channel's values, with at most `most` buckets (2 at least)."""
    units = channel.units(values)
    level = 0
    while len(np.unique(units >> level)) > max(2, most):
        level += 1
    keys, counts = np.unique(units >> level, return_counts=True)
    whole = units.tolist()  # Python's integers: the squares' sum may not fit in 64 bits
    buckets = dict(zip(keys.tolist(), counts.tolist(), strict=True))
    return Sketch(channel, len(whole), np.size(values) - len(whole), sum(whole), sum(q * q for q in whole), level, buckets)


def merged(a: Sketch, b: Sketch, most: int = BUCKETS) -> Sketch:
    """Return the sketch of both ones' values together: the very sketch that all values at once would have given.

    Raises Malformed when they are not of one channel.
    """
    if a.channel != b.channel:
        raise Malformed(what=f"sketch of {a.channel.name}", reason="the other is of another channel")
    level = max(a.level, b.level)
    buckets = dict(_widened(a.buckets, level - a.level))
    for key, n in _widened(b.buckets, level - b.level).items():
        buckets[key] = buckets.get(key, 0) + n
    sums = (a.count + b.count, a.missing + b.missing, a.total + b.total, a.squares + b.squares)
    return narrowed(Sketch(a.channel, *sums, level, buckets), most)


def narrowed(sketch: Sketch, most: int) -> Sketch:
    """Return the sketch with its buckets made wider until there are at most `most`."""
    level, buckets = sketch.level, sketch.buckets
    while len(buckets) > max(2, most):
        level, buckets = level + 1, _widened(buckets, 1)
    return Sketch(sketch.channel, sketch.count, sketch.missing, sketch.total, sketch.squares, level, buckets)


def aligned(a: Sketch, b: Sketch, most: int = BUCKETS) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """Return the buckets of both, of one width, so that they can be compared. Raises Malformed when they are not of one channel."""
    level = merged(a, b, most).level
    return _widened(a.buckets, level - a.level), _widened(b.buckets, level - b.level)


def _widened(buckets: Mapping[int, int], by: int) -> Mapping[int, int]:
    """Return the buckets 2^by times as wide."""
    if not by:
        return buckets
    out: dict[int, int] = {}
    for key, n in buckets.items():
        out[key >> by] = out.get(key >> by, 0) + n
    return out
