"""One field of all devices' cards as arrays: what each block counts, and the events by which devices are told apart.

An event is a set of cells: a class, a value of a tag, an hour or six hours in a row, a channel's values below a bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwire.cards.card import HOURS
from modelwire.cards.sketch import FRACTION, Channel

from .chances import F64
from .telling import CardBlock, Key, Told, leveled

EVENTS_MAX = 64  # of a field: classes and values that are rarer in the fleet count as one
SPAN = 6  # hours in a row that are one event, beside each hour
OTHERS = "all others"


@dataclass(frozen=True, slots=True)
class FieldView:
    """A field as all devices' cards tell it that have it. Blocks stand by device, then by time."""

    field: str
    devices: tuple[int, ...]  # places in the list of what was told
    starts: NDArray[np.int64]  # [devices] first block of each
    cells: tuple[str, ...]
    counts: F64  # [devices, cells] as told
    events: tuple[str, ...]
    blocks: F64  # [blocks, events] samples in each event, as told
    sizes: F64  # [blocks] samples whose cell is told, or may have been kept back
    least: F64  # [devices, events] samples that an event has surely
    most: F64  # [devices, events] that it may have had

    @property
    def totals(self) -> F64:
        """Samples of each device."""
        return np.asarray(np.add.reduceat(self.sizes, self.starts), np.float64)

    def event(self, place: int, *, more: bool) -> str:
        """Return an event in words, or its opposite for a channel."""
        name = self.events[place]
        return name if more or not self.field.startswith("channels.") else name.replace("below", "from", 1)


def view_of(field: str, told: Sequence[Told], axes: dict[str, Channel]) -> FieldView | None:
    """Return a field of the devices' cards; None where fewer than two devices tell of it."""
    some = [place for place, one in enumerate(told) if field in one.fields]
    if len(some) < 2:
        return None
    blocks = [block for place in some for block in told[place].fields[field]]
    level = leveled(blocks) if field.startswith("channels.") else 0
    keys = sorted({key for block in blocks for key in block.counts})
    names, sets = _events(field, keys, blocks, level, axes)
    owners = np.array([place for place in some for _ in told[place].fields[field]])
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    place_of = {key: n for n, key in enumerate(keys)}

    def dense(which: str) -> F64:
        out = np.zeros((len(blocks), len(keys)))
        for row, block in enumerate(blocks):
            for key, n in getattr(block, which).items():
                out[row, place_of[key]] = n
        return out

    counts, shown = dense("counts"), dense("shown")
    cards, hidden = np.array([b.cards for b in blocks], np.float64), np.array([b.hidden for b in blocks], np.float64)
    kept_back = np.array([max(0, told[place].least - 1) for place in owners], np.float64)
    # A cell that is not there may hold up to `least` - 1 samples of each card; of a channel, whose buckets may be several, all hidden ones.
    room = (cards[:, None] - shown) * kept_back[:, None]
    if field.startswith("channels."):
        room = np.repeat(hidden[:, None], len(keys), 1)
    may = np.minimum(hidden[:, None], room @ sets)
    sizes = counts.sum(1) + np.minimum(hidden, room.sum(1))
    told_in = counts @ sets
    return FieldView(
        field, tuple(some), starts, tuple(_word(field, key) for key in keys), _sums(counts, starts), names, told_in, sizes,
        _sums(dense("certain") @ sets, starts), _sums(told_in + may, starts),
    )  # fmt: skip


def _sums(blocks: F64, starts: NDArray[np.int64]) -> F64:
    return np.asarray(np.add.reduceat(blocks, starts, 0), np.float64)


def _word(field: str, key: Key) -> str:
    return f"{key:02}" if field == "hours" else str(key)


def _events(
    field: str, keys: Sequence[Key], blocks: Sequence[CardBlock], level: int, axes: dict[str, Channel]
) -> tuple[tuple[str, ...], F64]:  # fmt: skip
    """Return the names of a field's events, and which cells each holds: [cells, events] of 0 and 1."""
    kind, _, name = field.partition(".")
    if kind == "hours":
        spans = [[hour] for hour in range(HOURS)] + [[(hour + n) % HOURS for n in range(SPAN)] for hour in range(HOURS)]
        names = [f"{s[0]:02}-{(s[-1] + 1) % HOURS:02} h" for s in spans]
        return tuple(names), np.array([[float(key in span) for span in spans] for key in keys]).reshape(len(keys), len(spans))
    if kind == "channels":
        channel = axes[name]
        bounds = [channel.centre + math.ldexp(int(key), level + channel.scale - FRACTION) for key in keys[1:]]
        return tuple(f"below {bound:.4g}" for bound in bounds), np.triu(np.ones((len(keys), len(keys))))[:, :-1]
    if len(keys) == 2:  # the other is its opposite
        return (f"{keys[0]}",), np.array([[1.0], [0.0]])
    if len(keys) <= EVENTS_MAX:
        return tuple(map(str, keys)), np.eye(len(keys))
    total: dict[Key, int] = {}
    for block in blocks:
        for key, n in block.counts.items():
            total[key] = total.get(key, 0) + n
    often = sorted(sorted(keys), key=lambda key: -total[key])[: EVENTS_MAX - 1]
    sets = np.array([[*(float(key == one) for one in often), float(key not in often)] for key in keys])
    return (*map(str, often), OTHERS), sets
