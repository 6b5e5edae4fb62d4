"""Fleets of cards with shares that are known: drawn as counts, so that a hundred fleets take seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgecloud.bias.skew import Judgement, judged
from edgecloud.bias.telling import Told, told_by
from modelwire.cards.card import Card
from modelwire.cards.privacy import Privacy, leaving
from modelwire.cards.sketch import Channel, Sketch

LIGHT, WEATHER = {"day": 0.6, "dusk": 0.15, "night": 0.25}, {"clear": 0.6, "fog": 0.15, "rain": 0.25}
LABELS, LEVELS = dict.fromkeys(range(10), 0.1), {0: 0.05, 1: 0.25, 2: 0.4, 3: 0.25, 4: 0.05}
HOURS = {"day": range(9, 17), "dusk": (6, 7, 8, 17, 18, 19), "night": (20, 21, 22, 23, 0, 1, 2, 3, 4, 5)}
CHANNEL = Channel("brightness")
Rng = np.random.Generator


@dataclass(frozen=True)
class Seen:
    """What a device meets, by shares."""

    light: dict[str, float] | None = None
    weather: dict[str, float] | None = None
    labels: dict[int, float] | None = None
    levels: dict[int, float] | None = None
    cards: int = 4
    samples: int = 200  # of a card
    alike: float = 0.0  # intraclass correlation of a card's samples: days differ
    privacy: Privacy | None = None

    def told(self, rng: Rng) -> list[Card]:
        out = [self._card(rng) for _ in range(self.cards)]
        return [leaving(card, self.privacy, int(rng.integers(1 << 62))) for card in out] if self.privacy else out

    def _card(self, rng: Rng) -> Card:
        light, weather = (_drawn(rng, of, self.samples, self.alike) for of in (self.light or LIGHT, self.weather or WEATHER))
        hours = [0] * 24
        for value, n in light.items():
            for hour, count in zip(HOURS[value], rng.multinomial(n, np.full(len(HOURS[value]), 1 / len(HOURS[value]))), strict=True):
                hours[hour] += int(count)
        labels = _drawn(rng, self.labels or LABELS, self.samples, self.alike / 2)
        held = _drawn(rng, self.levels or LEVELS, self.samples, self.alike)
        sketch = Sketch(CHANNEL, self.samples, 0, 0, 0, 12, held)
        return Card(self.samples, labels, tuple(hours), {"light": light, "weather": weather}, (sketch,))


def _drawn(rng: Rng, shares: dict, n: int, alike: float) -> dict:  # type: ignore[type-arg]
    p = np.array(list(shares.values()))
    if alike:
        p = rng.dirichlet(p / p.sum() * (1 - alike) / alike + 1e-9)
    return {key: int(count) for key, count in zip(shares, rng.multinomial(n, p / p.sum()), strict=True) if count}


def told(seed: int, devices: Sequence[Seen]) -> tuple[list[Told], dict[str, Channel]]:
    rng, axes = np.random.default_rng(seed), dict[str, Channel]()
    return [told_by(f"car-{n:03}", one.told(rng), axes) for n, one in enumerate(devices)], axes


def judge(seed: int, devices: Sequence[Seen], *fields: str) -> Judgement:
    return judged(*told(seed, devices), fields)


def alarmed(fleets: int, devices: Callable[[int], Sequence[Seen]]) -> int:
    """Return in how many of the fleets, by seed, any device is called biased."""
    return sum(bool(judge(seed, devices(seed)).biased) for seed in range(fleets))
