"""How many epochs a model may open: a rate and no end, so that a stolen key burns none for the board that comes after it.

What counts are the epochs of the last day, since a key of the device was last admitted: a new key, or the operator's reset, starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecloud.registry import Store

from .decision import Bounds

DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class EpochRate:
    """How a model stands to the bound. Times in Unix seconds of the centre's clock."""

    opened: int  # epochs that count, at most as many as are allowed
    allowed: int
    free_at: int  # when one more may be opened; 0: now

    @property
    def full(self) -> bool:
        return self.free_at > 0


def rate(store: Store, lineage: int, admitted_at: int, now: int, bounds: Bounds) -> EpochRate:
    """Return how many epochs a model has opened of those that it may. admitted_at: when a key of its device last was.

    What lies ahead of the clock, because that was set back, counts for nothing.
    """
    since = max(now - DAY + 1, admitted_at if admitted_at <= now else 0)
    opened = store.lineages.granted(lineage, since, now, bounds.epochs_a_day)
    full = len(opened) >= bounds.epochs_a_day
    return EpochRate(len(opened), bounds.epochs_a_day, opened[-1] + DAY if full else 0)
