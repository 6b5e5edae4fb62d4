"""The newest data cards of a device, a few of them: enough for what its data looks like now, whatever the length of its history."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from edgecloud.registry import LineageRow, Status, Store, VersionRow
from edgecloud.versions.cards import Gathered, card_in
from modelwire.cards.card import Card
from modelwire.cards.facts import FACTS, completed, told_after
from modelwire.errors import WireError
from modelwire.wire import cbor

NEWEST = 8  # cards of a device
LOOKED_AT = 64  # versions of it, and as many from its beginning on, where facts are told that hold until another card tells others


def newest_cards(store: Store, lineage: LineageRow) -> Gathered:
    """Return the newest cards of a model merged, with the facts that its cards told before them."""
    out, told, held = Gathered(), dict[str, str](), list[tuple[VersionRow, Card]]()
    versions = store.versions.newest(lineage.id, LOOKED_AT)
    for version, card in _carded(versions):
        if len(held) < NEWEST:
            held.append((version, card))
        elif any(name in card.tags for name in FACTS):
            told = told_after(card, {})
            break
    else:
        if held and not any(name in held[-1][1].tags for name in FACTS):
            for version, card in _carded(islice(store.versions.each(lineage.id), LOOKED_AT)):
                if version.id >= held[-1][0].id:
                    break
                told = told_after(card, told)
    for _, card in reversed(held):
        out.add(lineage.device, completed(card, told))
        told = told_after(card, told)
    return out


def _carded(versions: Iterator[VersionRow] | list[VersionRow]) -> Iterator[tuple[VersionRow, Card]]:
    for version in versions:
        if version.status is Status.REFUSED or not version.extension:
            continue
        try:
            extension = cbor.decode(version.extension, "extension")
            card = card_in(extension if isinstance(extension, dict) else {})
        except WireError:
            continue
        if card is not None:
            yield version, card
