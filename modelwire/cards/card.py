"""Data cards: what one device's data looks like, in a few hundred bytes and without a sample. Cards of many devices merge into one.

Everything is a count or a sum of integers, so merging is exact and does not depend on the order. docs/data-cards.md has the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire import limits
from modelwire.errors import Malformed, ShapeMismatch, TooLarge
from modelwire.names import check_name
from modelwire.text import is_plain
from modelwire.wire import cbor

from .sketch import BUCKETS, FRACTION, LEVEL_MAX, Channel, Sketch, merged, narrowed, sketch_of

HOURS = 24
CLASSES_MAX = 4096
TAGS_MAX, VALUES_MAX, CHANNELS_MAX = 16, 64, 32  # of a card that travels
TAG_LENGTH = 40  # characters of a tag's value
CARD_MAX = 8 * limits.KIB
_COUNT_MAX = 1 << 53
FORMAT = 3  # the first two were never released
ENTRIES_MAX, ENTRY_NAME = 64, 64  # named entries of a card that travels, and the characters of a name
_PLAIN = Channel("x")  # the axis of a channel that names none
_LOSS_UNIT = 20  # losses count in 2^-20


@dataclass(frozen=True, slots=True)
class Card:
    """Counts of a device's samples by what is known of them. What was not given, or may not leave, is empty."""

    samples: int = 0
    labels: Mapping[int, int] = field(default_factory=dict)  # class to count
    hours: tuple[int, ...] = ()  # 24 counts by hour of the day, or none
    tags: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # weather: {rain: 12}; board: {pi-4: 1}
    sketches: tuple[Sketch, ...] = ()  # by name of the channel
    judged: int = 0  # held-out samples behind the two losses
    loss_before: int = 0  # sum over them in 2^-20
    loss_after: int = 0
    entries: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # accuracy/light=night: (judged samples, sum over them in 2^-20)

    def __repr__(self) -> str:
        parts = (("label", self.labels), ("tag", self.tags), ("channel", self.sketches))
        counts = (f"{len(of)} {name}{'s' * (len(of) != 1)}" for name, of in parts if of)
        return f"<card: {', '.join((f'{self.samples} samples', *counts))}>"

    def entry(self, name: str) -> float:
        """Mean of a named entry, such as the accuracy in one context. Raises KeyError; NaN when nothing was judged."""
        count, total = self.entries[name]
        return math.ldexp(total / count, -_LOSS_UNIT) if count else math.nan

    @property
    def losses(self) -> tuple[float, float]:
        """Mean loss on held-out samples before and after training. NaN when none were judged."""
        if not self.judged:
            return math.nan, math.nan
        before, after = (math.ldexp(total / self.judged, -_LOSS_UNIT) for total in (self.loss_before, self.loss_after))
        return before, after

    def encode(self) -> bytes:
        """Return the canonical bytes. Raises TooLarge beyond what a card may hold, Malformed for an entry that no reader takes."""
        for what, have, most in (
            ("a card's tags", len(self.tags), TAGS_MAX),
            ("a tag of a card", max((len(values) for values in self.tags.values()), default=0), VALUES_MAX),
            ("a card's channels", len(self.sketches), CHANNELS_MAX),
            ("a card's named entries", len(self.entries), ENTRIES_MAX),
        ):
            if have > most:
                raise TooLarge(what=what, size=have, limit=most)
        tags: dict[str, cbor.Value] = {name: dict(values) for name, values in self.tags.items()}
        hours = _runs({hour: n for hour, n in enumerate(self.hours) if n}) or [0, 0] if self.hours else []
        sketches: list[cbor.Value] = [_sketch_value(sketch) for sketch in self.sketches]
        loss: list[cbor.Value] = [self.judged, self.loss_before, self.loss_after] if self.judged else []
        entries: dict[str, cbor.Value] = {_entry_name(name): list(_entry(name, list(pair))) for name, pair in self.entries.items()}
        value: list[cbor.Value] = [FORMAT, self.samples, _runs(self.labels), hours, tags, sketches, loss, entries]
        data = cbor.encode(value)
        if len(data) > CARD_MAX:
            raise TooLarge(what="the data card", size=len(data), limit=CARD_MAX)
        return data


def card_of(
    samples: int,
    *,
    labels: NDArray[Any] | None = None,
    hours: NDArray[Any] | None = None,
    tags: Mapping[str, Sequence[str]] | None = None,
    channels: Sequence[Channel] = (),
    values: NDArray[Any] | None = None,
    judged: int = 0,
    loss_before: float = 0.0,
    loss_after: float = 0.0,
    entries: Mapping[str, tuple[int, float]] | None = None,
) -> Card:
    """Return the card of `samples` samples.

    labels: classes; hours: 0 to 23, local time; tags: by name, one value a sample, or one for all that then counts once;
    values: [samples, channels]. judged: held-out samples whose mean losses are given. entries: by name, how many were judged and
    their mean. Raises ShapeMismatch or Malformed.
    """
    if not 0 <= samples < _COUNT_MAX or not 0 <= judged < 1 << 31:
        raise Malformed(what="card", reason="a number of samples is out of range")
    if not all(math.isfinite(loss) and abs(loss) < 1 << 30 for loss in (loss_before, loss_after)):
        raise Malformed(what="card", reason="a loss is not a number below 2^30")
    counted = {}
    for name, given in (tags or {}).items():
        check_name("tag", name)
        if len(given) not in (1, samples):
            raise ShapeMismatch(tensor=f"tag {name}", expected=f"1 or {samples} values", got=str(len(given)))
        counted[name] = _counts([_tag_value(name, value) for value in given])
    if (values is None) != (not channels) or (values is not None and values.shape != (samples, len(channels))):
        got = "none" if values is None else str(list(values.shape))
        raise ShapeMismatch(tensor="values", expected=str([samples, len(channels)]), got=got)
    sketches = [] if values is None else [sketch_of(channel, values[:, k]) for k, channel in enumerate(channels)]
    if len({channel.name for channel in channels}) < len(channels):
        raise Malformed(what="card", reason="two channels have one name")
    by_hour: list[int] = [] if hours is None else np.bincount(_whole("hours", hours, samples, HOURS), minlength=HOURS).tolist()
    return Card(
        samples,
        _counts(_whole("labels", labels, samples, CLASSES_MAX).tolist()) if labels is not None else {},
        tuple(by_hour),
        counted,
        tuple(sorted(sketches, key=lambda sketch: sketch.channel.name)),
        judged,
        round(math.ldexp(loss_before * judged, _LOSS_UNIT)),
        round(math.ldexp(loss_after * judged, _LOSS_UNIT)),
        {_entry_name(name): _entry_of(name, n, mean) for name, (n, mean) in sorted((entries or {}).items())},
    )


def merge(a: Card, b: Card, buckets: int = BUCKETS) -> Card:
    """Return the card of both ones' samples together; exact, and the same in any order and grouping.

    buckets: of each sketch, the same number in every merge. Raises Malformed when a channel of one name is not the same in both.
    """
    sketches = {sketch.channel.name: narrowed(sketch, buckets) for sketch in a.sketches}
    for sketch in b.sketches:
        name = sketch.channel.name
        sketches[name] = merged(sketches[name], sketch, buckets) if name in sketches else narrowed(sketch, buckets)
    return Card(
        a.samples + b.samples,
        _added(a.labels, b.labels),
        tuple(x + y for x, y in zip(a.hours, b.hours, strict=True)) if a.hours and b.hours else a.hours or b.hours,
        {name: _added(a.tags.get(name, {}), b.tags.get(name, {})) for name in sorted(a.tags.keys() | b.tags.keys())},
        tuple(sketches[name] for name in sorted(sketches)),
        a.judged + b.judged,
        a.loss_before + b.loss_before,
        a.loss_after + b.loss_after,
        {name: _sum_of_entries(a.entries.get(name), b.entries.get(name)) for name in sorted(a.entries.keys() | b.entries.keys())},
    )


def stability(a: Mapping[Any, int], b: Mapping[Any, int]) -> float:
    """Return the population stability index of two histograms: 0 for equal shares; above 0.25 they are commonly called different.

    Half a count is added to every cell that either has, so that an empty one does not make it infinite. NaN when either is empty.
    """
    cells = a.keys() | b.keys()
    if not sum(a.values()) or not sum(b.values()):
        return math.nan
    totals = [sum(side.values()) + 0.5 * len(cells) for side in (a, b)]
    index = 0.0
    for cell in sorted(cells):
        x, y = ((side.get(cell, 0) + 0.5) / total for side, total in zip((a, b), totals, strict=True))
        index += (x - y) * math.log(x / y)
    return index


def parse_card(data: bytes) -> Card:
    """Return the card that `data` holds. Raises Malformed or TooLarge; the canonical form is the only one read."""
    if len(data) > CARD_MAX:
        raise TooLarge(what="the data card", size=len(data), limit=CARD_MAX)
    top = cbor.decode(data, "data card")
    if not isinstance(top, list) or len(top) != 8 or type(top[0]) is not int or top[0] != FORMAT:
        raise Malformed(what="data card", reason=f"it has not the eight fields of a card of format {FORMAT}")
    _, samples, labels, hours, tags, channels, losses, entries = top
    by_hour, loss = _counted(hours, 0, HOURS - 1), _list(losses)
    if len(loss) not in (0, 3) or not isinstance(tags, dict) or not isinstance(entries, dict) or any(type(n) is not int for n in loss):
        raise Malformed(what="data card", reason="loss, tags or entries have not their form")
    judged, before, after = loss or (0, 0, 0)
    if not 0 <= judged < 1 << 31 or bool(loss) != (judged > 0) or max(abs(before), abs(after)) >= _COUNT_MAX << 9:
        raise Malformed(what="data card", reason="a loss is out of range")
    card = Card(
        _count(samples),
        _counted(labels, 0, CLASSES_MAX - 1),
        tuple(by_hour.get(hour, 0) for hour in range(HOURS)) if by_hour else (),
        {check_name("tag", name): _tag(name, values) for name, values in tags.items()},
        tuple(_sketch(value) for value in _list(channels)),
        judged,
        before,
        after,
        {_entry_name(name): _entry(name, pair) for name, pair in entries.items()},
    )
    names = [sketch.channel.name for sketch in card.sketches]
    if names != sorted(set(names)) or card.encode() != data:
        raise Malformed(what="data card", reason="no encoder writes these bytes")
    return card


def _tag_value(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= TAG_LENGTH or not is_plain(value):
        raise Malformed(what=f"tag {name}", reason=f"{str(value)[:60]!r} is not 1 to {TAG_LENGTH} printable characters")
    return value


def _entry_name(name: str) -> str:
    if not 0 < len(name) <= ENTRY_NAME or not is_plain(name):
        raise Malformed(what="data card", reason=f"the entry {name[:80]!r} is not called by 1 to {ENTRY_NAME} printable characters")
    return name


def _entry(name: str, value: cbor.Value) -> tuple[int, int]:
    pair = _list(value)
    if len(pair) != 2 or any(type(n) is not int for n in pair) or not 0 <= pair[0] < _COUNT_MAX or abs(pair[1]) >= _COUNT_MAX << 9:
        raise Malformed(what="data card", reason=f"the entry {name!r} is not a count and a sum")
    return pair[0], pair[1]


def _entry_of(name: str, count: int, mean: float) -> tuple[int, int]:
    if not math.isfinite(mean) or abs(mean) >= 1 << 30:
        raise Malformed(what="data card", reason=f"the mean of the entry {name!r} is not a number below 2^30")
    return _entry(name, [count, round(math.ldexp(mean * count, _LOSS_UNIT))])


def _sum_of_entries(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int]:
    (n, x), (m, y) = a or (0, 0), b or (0, 0)
    return n + m, x + y


def _whole(what: str, values: NDArray[Any], samples: int, end: int) -> NDArray[np.intp]:
    taken = np.asarray(values)
    if taken.shape != (samples,) or taken.dtype.kind not in "iu":
        raise ShapeMismatch(tensor=what, expected=f"integers[{samples}]", got=f"{taken.dtype}{list(taken.shape)}")
    if samples and (taken.min() < 0 or taken.max() >= end):
        raise Malformed(what=what, reason=f"not all are within 0..{end - 1}")
    return taken.astype(np.intp)  # what numpy counts by: 32 bits on a 32-bit board


def _counts(values: Sequence[Any]) -> dict[Any, int]:
    out: dict[Any, int] = {}
    for value in sorted(values):
        out[value] = out.get(value, 0) + 1
    return out


def _added(a: Mapping[Any, int], b: Mapping[Any, int]) -> dict[Any, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in sorted(a.keys() | b.keys())}


def _runs(counts: Mapping[int, int]) -> list[cbor.Value]:
    """Return counts as the first key and the counts from there on; -n stands for n keys without one."""
    keys = sorted(counts)
    out: list[cbor.Value] = [*keys[:1]]
    for before, key in zip([keys[0] - 1, *keys] if keys else [], keys, strict=False):
        if key > before + 1:
            out.append(before + 1 - key)
        out.append(counts[key])
    return out


def _sketch_value(s: Sketch) -> list[cbor.Value]:
    c = s.channel
    out: list[cbor.Value] = [c.name, s.count, s.missing, _short(s.total), _short(s.squares), s.level, _runs(s.buckets)]
    if (c.centre, c.scale, c.bound) != (_PLAIN.centre, _PLAIN.scale, _PLAIN.bound):
        centre = int(c.centre) if c.centre.is_integer() and abs(c.centre) < _COUNT_MAX else c.centre
        out += [centre, c.scale, c.bound]
    return out


def _short(number: int) -> cbor.Value:
    """Return a whole number as one of 32 bits, or as bytes where it does not fit: no more of them than it takes."""
    if -(1 << 32) <= number < 1 << 32:
        return number
    return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)


def _number(value: cbor.Value) -> int:
    if type(value) is int:
        return value
    if isinstance(value, bytes) and len(value) <= 24:
        return int.from_bytes(value, "big", signed=True)
    raise Malformed(what="data card", reason="a sum is not a whole number")


def _list(value: cbor.Value) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed(what="data card", reason="a list is missing")
    return value


def _count(value: cbor.Value) -> int:
    if type(value) is not int or not 0 <= value < _COUNT_MAX:
        raise Malformed(what="data card", reason="a count is out of range")
    return value


def _counted(value: cbor.Value, low: int, high: int) -> dict[int, int]:
    """Return the counts that `_runs` wrote, with keys from low to high."""
    flat = _list(value)
    if any(type(n) is not int for n in flat) or len(flat) == 1:
        raise Malformed(what="data card", reason="counts are not a first key and what follows it")
    out: dict[int, int] = {}
    key = flat[0] if flat else low
    for n in flat[1:]:
        if n < 0:
            key -= n
            continue
        if not low <= key <= high:
            raise Malformed(what="data card", reason="a key is out of range")
        out[key] = _count(n)
        key += 1
    return out


def _tag(name: str, values: cbor.Value) -> dict[str, int]:
    if not isinstance(values, dict):
        raise Malformed(what="data card", reason=f"tag {name} has no counts")
    return {_tag_value(name, value): _count(n) for value, n in values.items()}


def _sketch(value: cbor.Value) -> Sketch:
    fields = _list(value)
    axis = fields[7:] or [_PLAIN.centre, _PLAIN.scale, _PLAIN.bound]
    whole = [*fields[1:3], *fields[5:6], *axis[1:]]
    named = len(fields) in (7, 10) and type(fields[0]) is str and type(axis[0]) in (int, float)
    if not named or any(type(n) is not int for n in whole):
        raise Malformed(what="data card", reason="a channel has not its seven or ten fields")
    name, count, missing, total, squares, level, buckets = fields[:7]
    channel = Channel(name, float(axis[0]), *axis[1:])
    if not 0 <= level <= LEVEL_MAX:
        raise Malformed(what="data card", reason="a level is out of range")
    end = 1 << channel.bound + FRACTION
    held = _counted(buckets, -end >> level, end >> level)
    sketch = Sketch(channel, _count(count), _count(missing), _number(total), _number(squares), level, held)
    most = sketch.count * end
    if abs(sketch.total) > most or not 0 <= sketch.squares <= most * end:
        raise Malformed(what="data card", reason="sums that so many values cannot have")
    return sketch
