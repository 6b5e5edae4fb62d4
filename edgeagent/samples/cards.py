"""Data cards of this device: counted from samples as they come, cut to what may leave, and put beside an update."""

from __future__ import annotations

import math
import os
import platform
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeagent.settings.tree import PrivacySettings
from modelwire import limits
from modelwire.cards.card import (
    CARD_MAX,
    CLASSES_MAX,
    ENTRIES_MAX,
    ENTRY_NAME,
    TAG_LENGTH,
    TAGS_MAX,
    VALUES_MAX,
    Card,
    card_of,
    merge,
    parse_card,
)
from modelwire.cards.facts import FACTS, completed, told_after
from modelwire.cards.privacy import Privacy, leaving
from modelwire.cards.sketch import Channel
from modelwire.errors import WireError

from .context import context_of

OTHER = "other"  # stands for the rarest values of a tag that has more than a card may hold
LOSSES_ROOM = 16  # bytes that the sums of two losses may take beyond what they take at 0
_UNIT = 20  # sums of a card count in 2^-20
_BOARD = (Path("/proc/device-tree/model"), Path("/sys/class/dmi/id/product_name"))


@dataclass(frozen=True, slots=True)
class Seen:
    """What a card tells of one sample."""

    id: int
    cls: int  # -1 where it has none
    taken: int  # Unix seconds
    context: str  # as the spool keeps it
    values: tuple[float, ...]  # of each channel


@dataclass(frozen=True, slots=True)
class Beside:
    """The update that a card goes beside."""

    runtime: str  # its key
    told: Mapping[str, str]  # facts that the cards before it told
    judged: int  # held-out samples
    privacy: PrivacySettings
    room: int  # bytes that the card may take
    contexts: Sequence[Mapping[str, str]] = ()  # of the held-out samples, where they have classes


def counted(samples: Sequence[Seen], channels: Sequence[Channel] = ()) -> Card:
    """Return the card of samples."""
    if not samples:
        return Card()
    labels = np.array([one.cls for one in samples], np.int64)
    labelled = labels.min() >= 0 and labels.max() < CLASSES_MAX
    hours = np.array([time.localtime(one.taken).tm_hour for one in samples], np.int64)
    values = np.array([one.values for one in samples]).reshape(len(samples), len(channels)) if channels else None
    card = card_of(len(samples), labels=labels if labelled else None, hours=hours, channels=channels, values=values)
    tags: dict[str, dict[str, int]] = {}
    for one in samples:
        for name, value in context_of(one.context).items():
            of = tags.setdefault(name, {})
            of[value] = of.get(value, 0) + 1
    return replace(card, tags=_sorted(tags))  # `together` makes it fit


def together(cards: Sequence[Card]) -> Card:
    """Return the cards' sum. Of a channel whose axis was changed in the settings meanwhile, the newer sketches alone are kept."""
    return fitted(reduce(_joined, cards, Card()))


def read(data: bytes | None) -> Card:
    """Return a card that this device wrote; an empty one where there is none, or where an earlier release wrote it otherwise."""
    try:
        return parse_card(data) if data else Card()
    except WireError:
        return Card()


def fitted(card: Card, room: int = CARD_MAX) -> Card:
    """Return the card within the bounds of one that travels: rare values of a tag become `other`, then whole fields go. room: bytes."""
    if card.entries and not _fits(card, room):
        card = replace(card, entries={})
    total = {name: sum(values.values()) for name, values in card.tags.items()}
    kept = sorted(sorted(card.tags, key=lambda name: (-total[name], name))[: TAGS_MAX - len(FACTS)])
    kept = [name for name in card.tags if name in FACTS or name in kept]
    card = replace(card, tags={name: _most_frequent(card.tags[name], VALUES_MAX) for name in kept})
    for values in (16, 4, 0):
        if _fits(card, room):
            return card
        card = replace(card, tags={name: _most_frequent(of, values) for name, of in card.tags.items() if values})
    for without in (replace(card, sketches=()), replace(card, sketches=(), labels={}), replace(card, sketches=(), labels={}, hours=())):
        if _fits(card, room):
            break
        card = without
    return card


def faded(card: Card) -> Card:
    """Return the card with every count halved: what was long ago weighs less than what was lately."""
    def half(counts: Mapping[int, int]) -> dict[int, int]:
        return {key: n // 2 for key, n in counts.items() if n > 1}

    sketches = tuple(
        replace(s, count=s.count // 2, missing=s.missing // 2, total=_half(s.total, s.count), squares=_half(s.squares, s.count),
                buckets=half(s.buckets))
        for s in card.sketches if s.count > 1
    )  # fmt: skip
    tags = {name: {value: n // 2 for value, n in values.items() if n > 1} for name, values in card.tags.items()}
    hours = tuple(n // 2 for n in card.hours)
    return Card(card.samples // 2, half(card.labels), hours, {name: values for name, values in tags.items() if values}, sketches)


def facts(runtime: str) -> dict[str, str]:
    """Return what the agent itself knows of this board, as tags. runtime: its replay class: package, version, ISA, kernels, threads."""
    words = runtime.split()
    isa = words[2] if len(words) > 2 and "/" in words[2] else f"{platform.machine()}/{8 * struct.calcsize('P')}"  # not all hang on it
    said = {"board": _board(), "runtime": " ".join(words[:2]), "isa": isa}
    return {name: _word(value) for name, value in said.items() if _word(value)}


def beside(card: Card, update: Beside) -> Card | None:
    """Return the card that goes beside the update of a round on these samples; None where the settings say so, or none has come."""
    if not update.privacy.card or not card.samples:
        return None
    rules = update.privacy.rules()
    said = {name: value for name, value in facts(update.runtime).items() if rules.lets("tags", name)}
    told = {name: (len(places), len(places) << _UNIT) for name, places in judged_in(update.contexts, update.privacy).items()}
    return to_leave(card, {} if said == update.told else said, rules, update.judged, update.room, told)


def judged_in(contexts: Sequence[Mapping[str, str]], privacy: PrivacySettings) -> dict[str, NDArray[np.int64]]:
    """Return the places of the held-out samples of each context whose accuracy may leave, by the name of its entry: accuracy/day=A.

    It leaves where the tag and the loss do, for the least count or more; with noise on the card it stays: it has none of its own.
    """
    rules, at = privacy.rules(), dict[str, list[int]]()
    if not privacy.card or "loss" not in rules.leave or rules.epsilon is not None:
        return {}
    for place, context in enumerate(contexts):
        for name, value in context.items():
            entry = f"accuracy/{name}={value}"
            if rules.lets("tags", name) and len(entry) <= ENTRY_NAME:
                at.setdefault(entry, []).append(place)
    kept = sorted((name for name, places in at.items() if len(places) >= rules.least), key=lambda name: (-len(at[name]), name))
    return {name: np.array(at[name], np.int64) for name in sorted(kept[:ENTRIES_MAX])}


def with_accuracies(card: Card, places: Mapping[str, NDArray[np.int64]], right: NDArray[np.bool_] | None) -> Card:
    """Return the card with the accuracy in each context that `beside` made room for. right: which held-out samples are answered right."""
    if right is None:
        return replace(card, entries={})
    return replace(card, entries={name: (len(at), int(right[at].sum()) << _UNIT) for name, at in places.items() if name in card.entries})


def to_leave(
    card: Card, about: Mapping[str, str], privacy: Privacy, judged: int, room: int = CARD_MAX,
    entries: Mapping[str, tuple[int, int]] | None = None,
) -> Card:  # fmt: skip
    """Return what of the card leaves beside an update, without its losses yet: `judged` is 0 where they stay.

    room: bytes that it may take. about: facts. Each is counted once a sample, so that the least count holds for it as for all.
    entries: that may leave, with the largest sums that they can come to.
    """
    tagged = replace(card, tags=_sorted({**card.tags, **{name: {value: card.samples} for name, value in about.items() if card.samples}}))
    left = leaving(replace(tagged, judged=judged), privacy, int.from_bytes(os.urandom(8), "big"))
    return fitted(replace(left, entries=dict(entries or {})), room)


def sealed(card: Card, before: float | None, after: float | None) -> bytes:
    """Return the bytes of a card that `to_leave` gave, with the mean losses of the samples that judged."""
    sums = [_loss_sum(loss, card.judged) for loss in (before, after)]
    if not card.judged or None in sums:
        return replace(card, judged=0, loss_before=0, loss_after=0).encode()
    first, last = (total for total in sums if total is not None)
    return replace(card, loss_before=first, loss_after=last).encode()


def merged_bytes(cards: Sequence[bytes]) -> bytes:
    """Return the bytes of one card for several, in their order, that were beside updates which are one now."""
    out, told = [], dict[str, str]()
    for card in map(read, cards):
        out.append(completed(card, told))
        told = told_after(card, told)
    return together(out).encode()


def _joined(a: Card, b: Card) -> Card:
    now = {sketch.channel.name: sketch.channel for sketch in b.sketches}
    same = tuple(s for s in a.sketches if now.get(s.channel.name, s.channel) == s.channel)
    return merge(replace(a, sketches=same), b)


def _loss_sum(loss: float | None, judged: int) -> int | None:
    """Return a card's sum for a mean loss over `judged` samples; None where a card can't say it."""
    if loss is None or not math.isfinite(loss) or abs(loss) * judged >= 1 << 40:
        return None
    return round(math.ldexp(loss * judged, _UNIT))


def _fits(card: Card, room: int) -> bool:
    """Return whether it is read back, with its losses in place: within its bytes, and its number of things."""
    try:
        data = card.encode()
        if len(data) + LOSSES_ROOM > room:
            return False
        return len(data) <= limits.DEFAULT.cbor_items or bool(parse_card(data))  # each item takes a byte at least
    except WireError:
        return False


def _most_frequent(values: Mapping[str, int], most: int) -> dict[str, int]:
    if len(values) <= most:
        return dict(values)
    order = sorted(values, key=lambda value: (value == OTHER, -values[value], value))
    out = {value: values[value] for value in order[: most - 1] if value != OTHER}
    out[OTHER] = sum(n for value, n in values.items() if value not in out)
    return dict(sorted(out.items()))


def _sorted(tags: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {name: dict(sorted(tags[name].items())) for name in sorted(tags)}


def _half(total: int, count: int) -> int:
    """Return the sum of half as many values with the same mean; rounded towards zero, so that no bound is passed."""
    size = abs(total) * (count // 2) // count
    return size if total >= 0 else -size


@lru_cache(maxsize=1)
def _board() -> str:
    for path in _BOARD:
        try:
            text = path.read_bytes()[:200].decode("utf-8", "replace").strip("\0\n ")
        except OSError:  # no such board, or not for us to read
            continue
        if text:
            return text
    return ""


def _word(text: str) -> str:
    """Return text as a tag's value: short, printable, without spaces at its ends."""
    return "".join(c if c.isprintable() else " " for c in text)[:TAG_LENGTH].strip()

