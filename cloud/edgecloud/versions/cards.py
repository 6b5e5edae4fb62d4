"""Data cards at the centre: read from the updates that carried them, and merged over a lineage or a fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from edgecloud.registry import LineageRow, Status, Store, VersionRow
from modelwire.cards.card import Card, merge, parse_card
from modelwire.cards.facts import FACTS, completed, told_after
from modelwire.errors import Malformed, WireError
from modelwire.wire import cbor

KEY = "card"  # of an update's extension


@dataclass
class Gathered:
    """Cards as they are merged."""

    card: Card = field(default_factory=Card)
    updates: int = 0  # that carried one
    devices: set[str] = field(default_factory=set)
    unreadable: int = 0
    left_out: set[str] = field(default_factory=set)  # channels that two devices measure on different axes

    def add(self, device: str, card: Card) -> None:
        """Merge another card in. Of a channel whose axis differs from the first one's, that card's sketch is left out."""
        axes = {sketch.channel.name: sketch.channel for sketch in self.card.sketches}
        odd = {s.channel.name for s in card.sketches if axes.get(s.channel.name, s.channel) != s.channel}
        self.left_out |= odd
        self.card = merge(self.card, replace(card, sketches=tuple(s for s in card.sketches if s.channel.name not in odd)))
        self.updates += 1
        self.devices.add(device)


def card_in(extension: Mapping[str, cbor.Value]) -> Card | None:
    """Return the card that an update carries, None when it carries none. Raises WireError unless it is one, byte for byte."""
    data = extension.get(KEY)
    if data is None:
        return None
    if not isinstance(data, bytes):
        raise Malformed(what="data card", reason=f"it is a {type(data).__name__}, not bytes")
    return parse_card(data)


def card_of(store: Store, version: VersionRow) -> Card | None:
    """Return the card of a stored version, None when it carries none. Raises WireError.

    Facts that it does not tell are those that the epoch's cards before it told.
    """
    card = _read(version)
    if card is None or all(name in card.tags for name in FACTS):
        return card
    told: dict[str, str] = {}
    for before in store.versions.of(version.lineage):
        if before.id >= version.id:
            break
        if before.epoch == version.epoch and before.status is not Status.REFUSED:
            told = _told_after(before, told)
    return completed(card, told)


def gather(store: Store, lineages: Iterable[LineageRow], progress: Callable[[int, int], None] | None = None) -> Gathered:
    """Return the cards of all versions of these models that were not refused, merged. progress: told models done and in all."""
    of, out = list(lineages), Gathered()
    for done, lineage in enumerate(of):
        for _, card in each(store, lineage):
            if card is None:
                out.unreadable += 1
            else:
                out.add(lineage.device, card)
        if progress is not None:
            progress(done + 1, len(of))
    return out


def each(store: Store, lineage: LineageRow) -> Iterator[tuple[VersionRow, Card | None]]:
    """Yield the versions of a model that carry a card and were not refused, each with its card; None for one that can't be read."""
    epoch, told = 0, dict[str, str]()
    for version in store.versions.of(lineage.id):
        if version.status is Status.REFUSED:
            continue
        if version.epoch != epoch:
            epoch, told = version.epoch, {}
        try:
            card = _read(version)
        except WireError:
            yield version, None
            continue
        if card is not None:
            yield version, completed(card, told)
            told = told_after(card, told)


def gather_one(store: Store, lineage: LineageRow, version: VersionRow) -> Gathered:
    """Return the card of one version, if it was not refused and has one."""
    out = Gathered()
    if version.status is Status.REFUSED:
        return out
    try:
        card = card_of(store, version)
    except WireError:
        out.unreadable += 1
        return out
    if card is not None:
        out.add(lineage.device, card)
    return out


def _read(version: VersionRow) -> Card | None:
    extension = cbor.decode(version.extension, "extension") if version.extension else {}
    return card_in(extension if isinstance(extension, dict) else {})


def _told_after(version: VersionRow, told: dict[str, str]) -> dict[str, str]:
    try:
        card = _read(version)
    except WireError:
        return told
    return told if card is None else told_after(card, told)
