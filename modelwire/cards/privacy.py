"""What of a data card may leave the device: chosen fields, noise on the counts, and no cell that only a few samples share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from modelwire.errors import Malformed

from .card import Card
from .sketch import FRACTION, Sketch

FIELDS = ("labels", "hours", "tags", "channels", "loss")
_Key = TypeVar("_Key")
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Privacy:
    """The device's settings. The default lets everything leave as it is."""

    leave: tuple[str, ...] = FIELDS  # fields of the card; tags may be named alone as tags.NAME, channels as channels.NAME
    least: int = 0  # cells with fewer counts are left out, after the noise
    epsilon: float | None = None  # of the whole card, for one sample more or less; None: no noise

    def __post_init__(self) -> None:
        strange = [name for name in self.leave if name.split(".")[0] not in FIELDS or ("." in name and name.split(".")[0] not in _PARTED)]
        if strange:
            raise Malformed(what="privacy", reason=f"{strange[0]!r} is no field of a card: {', '.join(FIELDS)}")
        if self.least < 0 or (self.epsilon is not None and not 2.0**-20 <= self.epsilon <= 2.0**20):
            raise Malformed(what="privacy", reason="least or epsilon is out of range")

    def lets(self, field: str, name: str) -> bool:
        return field in self.leave or f"{field}.{name}" in self.leave


_PARTED = ("tags", "channels")


def leaving(card: Card, privacy: Privacy, seed: int) -> Card:
    """Return what of the card may leave: first the fields, then the noise, then the small cells.

    seed: 64 random bits, another for each card, and never told: who has it takes the noise off again. Unused without noise.
    The losses carry no noise: a loss has no bound that one sample could be hidden in; leave them out where that matters.
    """
    kept = Card(
        card.samples,
        card.labels if "labels" in privacy.leave else {},
        card.hours if "hours" in privacy.leave else (),
        {name: values for name, values in card.tags.items() if privacy.lets("tags", name)},
        tuple(sketch for sketch in card.sketches if privacy.lets("channels", sketch.channel.name)),
        *((card.judged, card.loss_before, card.loss_after) if "loss" in privacy.leave else (0, 0, 0)),
    )
    if privacy.epsilon is not None:
        kept = _noisy(kept, privacy.epsilon, _Draws(seed))
    return _without_small_cells(kept, privacy.least)


def _noisy(card: Card, epsilon: float, draws: _Draws) -> Card:
    # One sample is in one cell of each histogram, and in the sums of each channel: the budget is shared among these.
    parts = 1 + bool(card.labels) + bool(card.hours) + len(card.tags) + 5 * len(card.sketches)
    share = epsilon / parts

    def noisy(counts: Mapping[_Key, int]) -> dict[_Key, int]:
        return {key: n for key, count in counts.items() if (n := max(0, count + draws.laplace(share, 1)))}

    def sketch(s: Sketch) -> Sketch:
        bound = 1 << s.channel.bound + FRACTION
        count = max(0, s.count + draws.laplace(share, 1))
        missing = max(0, s.missing + draws.laplace(share, 1))
        total = s.total + draws.laplace(share, bound)
        squares = s.squares + draws.laplace(share, bound * bound)
        most = count * bound
        sums = (max(-most, min(most, total)), max(0, min(most * bound, squares)))
        return replace(s, count=count, missing=missing, total=sums[0], squares=sums[1], buckets=noisy(s.buckets))

    return replace(
        card,
        samples=max(0, card.samples + draws.laplace(share, 1)),
        labels=noisy(card.labels),
        hours=tuple(max(0, n + draws.laplace(share, 1)) for n in card.hours),
        tags={name: noisy(values) for name, values in card.tags.items()},
        sketches=tuple(sketch(s) for s in card.sketches),
    )


def _without_small_cells(card: Card, least: int) -> Card:
    def large(counts: Mapping[_Key, int]) -> dict[_Key, int]:
        return {key: n for key, n in counts.items() if n >= least}

    tags: dict[str, dict[str, int]] = {name: large(values) for name, values in card.tags.items()}
    def sketch(s: Sketch) -> Sketch:
        return replace(s, buckets=large(s.buckets), missing=s.missing if s.missing >= least else 0)

    judged = card.judged >= max(1, least)
    return replace(
        card,
        samples=card.samples if card.samples >= least else 0,
        labels=large(card.labels),
        hours=tuple(n if n >= least else 0 for n in card.hours),
        tags={name: values for name, values in tags.items() if values},
        sketches=tuple(sketch(s) for s in card.sketches if s.count >= least),
        judged=card.judged if judged else 0,
        loss_before=card.loss_before if judged else 0,
        loss_after=card.loss_after if judged else 0,
    )


class _Draws:
    """Whole numbers from a two-sided geometric distribution, the Laplace distribution of the integers, driven by splitmix64."""

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK

    def uniform(self) -> float:
        """Return a number above 0 and at most 1, a multiple of 2^-53."""
        self.state = self.state + 0x9E3779B97F4A7C15 & _MASK
        z = self.state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        return ((z ^ z >> 31) >> 11) * 2.0**-53 + 2.0**-53

    def laplace(self, epsilon: float, sensitivity: int) -> int:
        """Return k with a chance proportional to exp(-epsilon * |k| / sensitivity)."""
        scale = sensitivity / epsilon
        first, second = (int(-math.log(self.uniform()) * scale) for _ in range(2))  # two geometric ones; their difference is two-sided
        return first - second
