"""Data cards: counts of what a device's data looks like (data-cards page, The bytes)."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any, TypeVar

from . import cbor
from .errors import Malformed, TooLarge
from .fields import printable

FORMAT, CARD, TAGS, VALUES, CHANNELS, ENTRIES = 3, 8192, 16, 64, 32, 64
BUCKETS, CLASSES, HOURS = 12, 4096, 24
COUNT_MAX, SUM_MAX, WHOLE = (1 << 53) - 1, (1 << 62) - 1, 1 << 53
NAME = re.compile(r"[a-z0-9._-]{1,64}")
AXIS = (0.0, 0, 20)
Run = dict[int, int]
K = TypeVar("K")


def _int(what: str, value: Any, low: int, high: int) -> int:
    """Take an integer of a range."""
    if not cbor.is_int(value, low, high):
        raise Malformed(f"{what} is no integer of its range")
    return int(value)


def _list(what: str, value: Any, *lengths: int) -> list[Any]:
    """Take a list of one of the lengths, or of any where none is given."""
    if not isinstance(value, list) or (lengths and len(value) not in lengths):
        raise Malformed(f"{what} is no list of its length")
    return value


def _map(what: str, value: Any, most: int) -> dict[str, Any]:
    """Take a map of at most so many keys."""
    if not isinstance(value, dict):
        raise Malformed(f"{what} is no map")
    if len(value) > most:
        raise TooLarge(f"{what} has too many keys")
    return value


def _text(what: str, value: Any, most: int) -> str:
    """Take a printable text of 1 to so many characters."""
    if not isinstance(value, str) or not 1 <= len(value) <= most or not printable(value):
        raise Malformed(f"{what} is no text of its form")
    return value


def _name(what: str, value: Any) -> str:
    """Take the name of a tag or channel."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Malformed(f"{what} is no name")
    return value


def read_run(what: str, value: Any, low: int, high: int) -> Run:
    """Read a run whose keys have to be of a range; that it is in its one form, the whole card's bytes tell."""
    items = _list(what, value)
    if not items:
        return {}
    key = _int(what, items[0], low, high)
    out: Run = {}
    for item in items[1:]:
        _int(what, item, -(high - low), COUNT_MAX)
        if item < 0:
            key -= item
        else:
            out[_int(what, key, low, high)] = item
            key += 1
    return out


def write_run(run: Run) -> list[int]:
    """Write a run."""
    keys = sorted(run)
    out = keys[:1]
    for n, key in enumerate(keys):
        if n and key > keys[n - 1] + 1:
            out.append(keys[n - 1] + 1 - key)
        out.append(run[key])
    return out


def _read_sum(what: str, value: Any) -> int:
    """Read a sum of a channel: an integer, or its bytes."""
    if isinstance(value, bytes):
        return int.from_bytes(value, "big", signed=True)
    return _int(what, value, -(1 << 32), (1 << 32) - 1)


def _write_sum(value: int) -> int | bytes:
    """Write a sum of a channel: as bytes where it does not fit in 32 bits and a sign."""
    if -(1 << 32) <= value < 1 << 32:
        return value
    bits = (value if value >= 0 else ~value).bit_length() + 1
    return value.to_bytes(-(-bits // 8), "big", signed=True)


@dataclass(frozen=True)
class Sketch:
    """What is known of one channel's values."""

    name: str
    centre: float
    scale: int
    bound: int
    count: int
    missing: int
    sum: int
    squares: int
    level: int
    buckets: Run

    @property
    def axis(self) -> tuple[float, int, int]:
        """Give the axis that all sides agree on."""
        return self.centre, self.scale, self.bound

    def item(self) -> list[Any]:
        """Write it as a list."""
        out = [self.name, self.count, self.missing, _write_sum(self.sum), _write_sum(self.squares), self.level]
        centre = int(self.centre) if self.centre.is_integer() and abs(self.centre) < WHOLE else self.centre
        return [*out, write_run(self.buckets), *(() if self.axis == AXIS else (centre, self.scale, self.bound))]

    def plus(self, other: Sketch) -> Sketch:
        """Add the sketch of other values of the same channel."""
        if (self.name, self.axis) != (other.name, other.axis):
            raise ValueError("sketches of different channels do not merge")
        level = max(self.level, other.level)
        buckets = _add(_coarser(self.buckets, level - self.level), _coarser(other.buckets, level - other.level))
        while len(buckets) > BUCKETS:
            buckets, level = _coarser(buckets, 1), level + 1
        sums = (self.sum + other.sum, self.squares + other.squares)
        return Sketch(self.name, *self.axis, self.count + other.count, self.missing + other.missing, *sums, level, buckets)


def _coarser(buckets: Run, levels: int) -> Run:
    """Make buckets 2^levels times as wide."""
    out: Run = {}
    for key, count in buckets.items():
        out[key >> levels] = out.get(key >> levels, 0) + count
    return out


def _add(a: dict[K, int], b: dict[K, int]) -> dict[K, int]:
    """Add counts key by key."""
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}


def read_sketch(value: Any) -> Sketch:
    """Read one channel."""
    items = _list("a channel", value, 7, 10)
    name = _name("a channel", items[0])
    centre, scale, bound = items[7:] or AXIS
    if isinstance(centre, bool) or not isinstance(centre, int | float):
        raise Malformed("centre is no number")
    if isinstance(centre, int) and abs(centre) >= WHOLE:
        raise Malformed("centre is a whole number of 2^53 or more")
    scale, bound = _int("scale", scale, -60, 60), _int("bound", bound, 0, 40)
    count, missing = _int("count", items[1], 0, COUNT_MAX), _int("missing", items[2], 0, COUNT_MAX)
    total, squares = _read_sum("sum", items[3]), _read_sum("squares", items[4])
    peak = 1 << (bound + 16)
    if abs(total) > count * peak or not 0 <= squares <= count * peak * peak:
        raise Malformed("sum or squares is beyond what the count gives")
    level = _int("level", items[5], 0, 57)
    buckets = read_run("buckets", items[6], -peak >> level, peak >> level)
    return Sketch(name, float(centre), scale, bound, count, missing, total, squares, level, buckets)


@dataclass(frozen=True)
class Card:
    """What a card holds; hours are none where they are not known."""

    samples: int
    labels: Run
    hours: Run | None
    tags: dict[str, dict[str, int]]
    channels: tuple[Sketch, ...]
    loss: tuple[int, int, int]
    entries: dict[str, tuple[int, int]]

    def encode(self) -> bytes:
        """Write the card in its one form."""
        hours = {} if self.hours is None else {hour: n for hour, n in self.hours.items() if n} or {0: 0}
        loss = list(self.loss) if self.loss[0] else []
        entries = {name: list(pair) for name, pair in self.entries.items()}
        channels = [sketch.item() for sketch in self.channels]
        return cbor.encode([FORMAT, self.samples, write_run(self.labels), write_run(hours), self.tags, channels, loss, entries])


def _hours(value: Any) -> Run | None:
    """Read the hours: none where they are not known."""
    run = read_run("hours", value, 0, HOURS - 1)
    return {hour: n for hour, n in run.items() if n} if value else None


def _tags(value: Any) -> dict[str, dict[str, int]]:
    """Read the tags."""
    out: dict[str, dict[str, int]] = {}
    for name, values in _map("tags", value, TAGS).items():
        counts = _map("values of a tag", values, VALUES).items()
        out[_name("a tag", name)] = {_text("a tag's value", v, 40): _int("a tag's count", n, 0, COUNT_MAX) for v, n in counts}
    return out


def _channels(value: Any) -> tuple[Sketch, ...]:
    """Read the channels, whose names rise."""
    items = _list("channels", value)
    if len(items) > CHANNELS:
        raise TooLarge("channels are too many")
    out = tuple(read_sketch(item) for item in items)
    if any(a.name >= b.name for a, b in itertools.pairwise(out)):
        raise Malformed("channels do not rise by name")
    return out


def _loss(value: Any) -> tuple[int, int, int]:
    """Read the loss."""
    items = _list("loss", value, 0, 3)
    if not items:
        return 0, 0, 0
    judged = _int("judged", items[0], 1, (1 << 31) - 1)
    return judged, _int("before", items[1], -SUM_MAX, SUM_MAX), _int("after", items[2], -SUM_MAX, SUM_MAX)


def _entries(value: Any) -> dict[str, tuple[int, int]]:
    """Read the entries."""
    out: dict[str, tuple[int, int]] = {}
    for name, pair in _map("entries", value, ENTRIES).items():
        count, total = _list("an entry", pair, 2)
        key = _text("an entry's name", name, 64)
        out[key] = _int("a count", count, 0, COUNT_MAX), _int("a total", total, -SUM_MAX, SUM_MAX)
    return out


def read_card(data: bytes) -> Card:
    """Read a card, and look that its bytes are those that it is written as."""
    if len(data) > CARD:
        raise TooLarge("a card of more than 8 KiB")
    items = _list("a card", cbor.decode(data), 8)
    _int("format", items[0], FORMAT, FORMAT)
    samples = _int("samples", items[1], 0, COUNT_MAX)
    labels, hours = read_run("labels", items[2], 0, CLASSES - 1), _hours(items[3])
    card = Card(samples, labels, hours, _tags(items[4]), _channels(items[5]), _loss(items[6]), _entries(items[7]))
    if card.encode() != data:
        raise Malformed("a card in another form than its own")
    return card


def merge(a: Card, b: Card) -> Card:
    """Give the card of both cards' samples."""
    hours = None if a.hours is None and b.hours is None else _add(a.hours or {}, b.hours or {})
    tags = {name: _add(a.tags.get(name, {}), b.tags.get(name, {})) for name in {**a.tags, **b.tags}}
    sketches = {sketch.name: sketch for sketch in a.channels}
    for sketch in b.channels:
        sketches[sketch.name] = sketches[sketch.name].plus(sketch) if sketch.name in sketches else sketch
    entries = dict(a.entries)
    for name, (count, total) in b.entries.items():
        before = entries.get(name, (0, 0))
        entries[name] = (before[0] + count, before[1] + total)
    loss = (a.loss[0] + b.loss[0], a.loss[1] + b.loss[1], a.loss[2] + b.loss[2])
    channels = tuple(sketches[name] for name in sorted(sketches))
    return Card(a.samples + b.samples, _add(a.labels, b.labels), hours, tags, channels, loss, entries)
