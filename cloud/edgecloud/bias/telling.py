"""What the cards of a device tell of one field, in blocks of time, with what privacy may have kept back or added.

A block is one card, or a few that follow each other: samples of a day are alike, and what blocks differ by says how much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelwire.cards.card import Card
from modelwire.cards.sketch import BUCKETS, Channel, Sketch

BLOCKS = 32  # of a device at most: cards that follow each other are put together beyond
CERTAIN = 3.0  # scales of a card's noise, from which on a count is of samples and not of noise alone
Key = int | str


@dataclass(slots=True)
class CardBlock:
    """Counts of one field over the cards of a stretch of time."""

    counts: dict[Key, int] = field(default_factory=dict)
    certain: dict[Key, int] = field(default_factory=dict)  # of them, what noise alone would not have made
    shown: dict[Key, int] = field(default_factory=dict)  # in how many of the cards a cell is there
    cards: int = 0
    hidden: int = 0  # samples that stand in no cell
    level: int = 0  # of a channel: a bucket's width

    def add(self, counts: Mapping[Any, int], samples: int, noise: float) -> None:
        """Add one card's counts. samples: of the card, or of the channel; noise: the scale of what the device adds to counts."""
        held = {key: n for key, n in counts.items() if n}
        for key, n in held.items():
            self.counts[key] = self.counts.get(key, 0) + n
            self.shown[key] = self.shown.get(key, 0) + 1
            if n >= CERTAIN * noise:
                self.certain[key] = self.certain.get(key, 0) + n
        self.cards += 1
        self.hidden += max(0, samples - sum(held.values()))

    def join(self, other: CardBlock) -> None:
        """Add what follows."""
        for mine, theirs in ((self.counts, other.counts), (self.certain, other.certain), (self.shown, other.shown)):
            for key, n in theirs.items():
                mine[key] = mine.get(key, 0) + n
        self.cards += other.cards
        self.hidden += other.hidden


@dataclass(slots=True)
class Told:
    """All that the cards of one device tell."""

    device: str
    samples: int = 0
    cards: int = 0
    least: int = 0  # cells below so many samples may be kept back; 0: nothing is
    noise: float = 0.0  # the scale of what is added to counts; 0: nothing is
    fields: dict[str, list[CardBlock]] = field(default_factory=dict)  # labels, hours, tags.NAME, channels.NAME
    axes: dict[str, Channel] = field(default_factory=dict)  # of its channels, as the fleet measures them
    odd: set[str] = field(default_factory=set)  # channels of another axis than the fleet's, which are left out


def told_by(device: str, cards: Iterable[Card], axes: dict[str, Channel]) -> Told:
    """Return what a device's cards tell, oldest first. axes: of the fleet's channels so far; new ones are entered."""
    of = list(cards)
    noise = _noise(of)
    out = Told(device, sum(card.samples for card in of), len(of), _least(of), noise)
    at_once = max(1, -(-len(of) // BLOCKS))
    for start in range(0, len(of), at_once):
        here: dict[str, CardBlock] = {}
        for card in of[start : start + at_once]:
            for name, counts, samples in _histograms(card):
                here.setdefault(name, CardBlock()).add(counts, samples, noise)
            for sketch in card.sketches:
                if axes.setdefault(sketch.channel.name, sketch.channel) != sketch.channel:
                    out.odd.add(sketch.channel.name)
                elif any(sketch.buckets.values()):
                    out.axes[sketch.channel.name] = sketch.channel
                    _add_sketch(here.setdefault(f"channels.{sketch.channel.name}", CardBlock(level=sketch.level)), sketch, noise)
        for name, block in here.items():
            out.fields.setdefault(name, []).append(block)
    return out


def leveled(blocks: Sequence[CardBlock]) -> int:
    """Bring a channel's blocks, of all devices, to one width of buckets, as a sketch of them all would have; return its level."""
    level = max(block.level for block in blocks)
    while len({int(key) >> level - block.level for block in blocks for key in block.counts}) > BUCKETS:
        level += 1
    for block in blocks:
        _widen(block, level - block.level)
    return level


def _histograms(card: Card) -> Iterator[tuple[str, Mapping[Any, int], int]]:
    if any(card.labels.values()):
        yield "labels", dict(card.labels), card.samples
    if any(card.hours):
        yield "hours", dict(enumerate(card.hours)), card.samples
    for name, values in card.tags.items():
        if any(values.values()):
            yield f"tags.{name}", dict(values), card.samples


def _add_sketch(block: CardBlock, sketch: Sketch, noise: float) -> None:
    other = CardBlock(level=sketch.level)
    other.add(sketch.buckets, sketch.count, noise)
    _widen(other, max(0, block.level - other.level))
    _widen(block, max(0, other.level - block.level))
    block.join(other)


def _widen(block: CardBlock, by: int) -> None:
    if not by:
        return
    for name in ("counts", "certain", "shown"):
        held: dict[Key, int] = {}
        for key, n in getattr(block, name).items():
            held[int(key) >> by] = held.get(int(key) >> by, 0) + n
        setattr(block, name, held)
    block.shown = {key: min(n, block.cards) for key, n in block.shown.items()}
    block.level += by


def _least(cards: Sequence[Card]) -> int:
    """Return the smallest count of any cell where cells may have been kept back: the device's `least` is no larger. 0: none were."""
    smallest, hides = 0, False
    for card in cards:
        channels = [(sketch.channel.name, sketch.buckets, sketch.count) for sketch in card.sketches]
        for _, counts, samples in [*_histograms(card), *channels]:
            held = [n for n in counts.values() if n]
            hides = hides or sum(held) < samples
            if held:
                smallest = min(smallest or min(held), min(held))
    return smallest if hides else 0


def _noise(cards: Sequence[Card]) -> float:
    """Return the scale of the noise on counts, rather too large than too small; 0 where no cells hold more than there are samples.

    Without noise cells never do. With it, the sum of k cells is off by a deviation of scale * sqrt(2 (k + 1)), upwards half of the time.
    """
    squares, times = 0.0, 0
    for card in cards:
        for _, counts, samples in _histograms(card):
            squares += max(0, sum(counts.values()) - samples) ** 2 / (len(counts) + 1)
            times += 1
    return math.sqrt(squares / times) if squares else 0.0
