"""Numbers with where they come from, and the running mean by which measured ones are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from modelwire.errors import BadArgument

MOST = 1e18  # of any figure or count: products of all that meet in one term stay finite
NEW_WEIGHT = 0.2  # of a new measurement in an Average: the last ten make up nine tenths of it


class Origin(IntEnum):
    """Where a figure comes from. Numbers travel in notes: new ones are only added."""

    DEFAULT = 0  # of this release: nothing better is known
    PROFILE = 1  # of a named link: somebody else's measurement
    SETTINGS = 2  # the operator said so
    CALIBRATED = 3  # edgeagent calibrate, on this board
    MEASURED = 4  # in the course of work, on this board and link


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it comes from. value: finite, 0 to 1e18, in the unit of the field that holds it. Raises BadArgument."""

    value: float
    origin: Origin = Origin.DEFAULT
    detail: str = ""  # "41 receipts", "lte-sleeping (phones of 2012)"

    def __post_init__(self) -> None:
        in_range("a figure", self.value)

    @property
    def source(self) -> str:
        """Say where it comes from: `measured: 41 receipts`."""
        return self.origin.name.lower() + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Average:
    """An exponentially weighted mean of what was measured, and of how many measurements. Frozen: `with_value` returns the next one.

    The first measurements count alike (their plain mean) until a new one weighs NEW_WEIGHT; so one odd start does not stay for long.
    """

    value: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        in_range("an average", self.value)
        in_range("a count", self.count)

    def with_value(self, measured: float) -> Average:
        """Return the mean with one more measurement. Raises BadArgument for one that is negative or not finite."""
        in_range("a measurement", measured)
        weight = max(NEW_WEIGHT, 1.0 / (self.count + 1))
        return Average(self.value + weight * (measured - self.value), self.count + 1)

    def figure(self, what: str, otherwise: Figure | None) -> Figure | None:
        """Return it as a figure, measured from so many `what` ("receipts"); `otherwise` when nothing was measured."""
        return Figure(self.value, Origin.MEASURED, f"{self.count} {what}") if self.count else otherwise


@dataclass(frozen=True, slots=True)
class Rate:
    """An amount per second: the weighted means of amounts and of seconds, divided. So a long run counts for more than a short one,
    and the delay of many small messages does not pass for a slow link for longer than they last.
    """

    amount: float = 0.0  # bytes, weights: the mean of one run
    seconds: float = 0.0  # of one run
    count: int = 0

    def __post_init__(self) -> None:
        for name in ("amount", "seconds", "count"):
            in_range(f"{name} of a rate", getattr(self, name))

    @property
    def value(self) -> float:
        """Amount per second; 0 where nothing is known."""
        return min(MOST, self.amount / self.seconds) if self.seconds else 0.0

    def with_run(self, amount: float, seconds: float) -> Rate:
        """Return the rate with one more run. One of no length tells nothing. Raises BadArgument for what is negative or not finite."""
        in_range("an amount", amount)
        in_range("a duration", seconds)
        if not seconds:
            return self
        weight = max(NEW_WEIGHT, 1.0 / (self.count + 1))
        return Rate(self.amount + weight * (amount - self.amount), self.seconds + weight * (seconds - self.seconds), self.count + 1)

    def figure(self, what: str, otherwise: Figure | None) -> Figure | None:
        """Return it as a figure, measured from so many `what` ("receipts"); `otherwise` when nothing was measured."""
        return Figure(self.value, Origin.MEASURED, f"{self.count} {what}") if self.count else otherwise


def in_range(what: str, value: float) -> None:
    """Raise BadArgument unless value is a finite number of 0 to 1e18."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or not 0 <= value <= MOST:
        raise BadArgument(reason=f"{what} can't be {value!r}", fix="give a finite number of 0 or more, up to 1e18")
