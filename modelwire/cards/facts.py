"""Facts of a device in its data cards: told when they change, and counted for the samples of every card that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .card import Card

FACTS = ("board", "runtime", "isa")  # tags that the agent knows itself


def facts_in(card: Card) -> dict[str, str]:
    """Return the facts that a card tells; without those that it counts under several values."""
    return {name: next(iter(card.tags[name])) for name in FACTS if len(card.tags.get(name, ())) == 1}


def several(card: Card) -> bool:
    """Return whether a card counts a fact under several values, so that none of them is known to be the last."""
    return any(len(card.tags.get(name, ())) > 1 for name in FACTS)


def completed(card: Card, told: Mapping[str, str]) -> Card:
    """Return the card with the samples that it counts under no fact counted under those that were told last before it."""
    tags = dict(card.tags)
    for name, value in told.items():
        here = dict(tags.get(name, {}))
        left = card.samples - sum(here.values())
        if left > 0:
            here[value] = here.get(value, 0) + left
            tags[name] = dict(sorted(here.items()))
    return replace(card, tags=dict(sorted(tags.items())))


def told_after(card: Card, told: Mapping[str, str]) -> dict[str, str]:
    """Return the facts that hold after a card. told: those that held before it."""
    return {name: value for name, value in told.items() if name not in card.tags} | facts_in(card)
