"""The fleet's cards, read from the registry, and what is unlike in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecloud.registry import LineageRow, Store
from edgecloud.versions import cards
from modelwire.cards.card import Card
from modelwire.cards.sketch import Channel
from modelwire.errors import AmbiguousName, BadArgument, UnknownVersion

from .skew import FALSE_ALARMS, Judgement, judged
from .telling import Told, told_by


@dataclass(frozen=True, slots=True)
class FleetCards:
    """What the cards of all devices tell that run one model."""

    model: str
    told: tuple[Told, ...]  # of devices whose updates carried a card
    lineages: dict[str, LineageRow]  # by device
    silent: int  # devices without any card
    unreadable: int  # cards that could not be read

    @property
    def odd(self) -> tuple[str, ...]:
        """Channels that some devices measure on another axis than the first one did: theirs are left out."""
        return tuple(sorted(set().union(*(one.odd for one in self.told))))


def read_fleet(store: Store, model: str | None, progress: Callable[[int, int], None] | None = None) -> FleetCards:
    """Return what the cards tell of all devices with one model. Refused versions count for nothing.

    Raises AmbiguousName when there are several models and none is named, UnknownVersion for one that nobody sent, and BadArgument
    when no device has any.
    """
    every = store.lineages.all()
    models = sorted({one.model for one in every})
    if not models:
        raise BadArgument(reason="no device has a model yet", fix="edgecloud devices lists what devices have")
    if model is None and len(models) > 1:
        raise AmbiguousName(device="the fleet", models=", ".join(models), example=f"--model {models[0]}")
    if model is not None and model not in models:
        raise UnknownVersion(name=f"a model {model!r} of the fleet")
    of = [one for one in every if model in (None, one.model)]
    told: list[Told] = []
    axes: dict[str, Channel] = {}
    unreadable = 0
    for done, lineage in enumerate(of):
        read: list[Card] = []
        for _, card in cards.each(store, lineage):
            if card is None:
                unreadable += 1
            elif card.samples or card.labels or card.tags or card.sketches or card.hours:
                read.append(card)
        if read:
            told.append(told_by(lineage.device, read, axes))
        if progress is not None:
            progress(done + 1, len(of))
    return FleetCards(model or models[0], tuple(told), {one.device: one for one in of}, len(of) - len(told), unreadable)


def judge_fleet(fleet: FleetCards, fields: Sequence[str] = (), alarms: float = FALSE_ALARMS) -> Judgement:
    """Return which devices of the fleet are unlike it. fields: those alone; none: all that cards tell but the facts of a board.

    Raises BadArgument for a field that no card has, or that one device alone tells, and when fewer than two devices have sent a card.
    """
    if len(fleet.told) < 2:
        why = f"{len(fleet.told)} of {len(fleet.lineages)} devices sent a card: a world is skewed beside those of others"
        silent = "privacy.card = true in the devices' settings" if fleet.silent else "one device has no fleet to be held against"
        raise BadArgument(reason=why, fix=f"{silent}; edgecloud card DEVICE shows one alone")
    known = sorted({name for one in fleet.told for name in one.fields})
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise BadArgument(reason=f"no card of {fleet.model} tells of {unknown[0]}", fix=f"--field {' | '.join(known)}")
    axes: dict[str, Channel] = {}
    for one in fleet.told:
        axes |= one.axes
    found = judged(fleet.told, axes, fields, alarms)
    if fields and not found.findings:
        alone = ", ".join(found.alone)
        raise BadArgument(reason=f"one device alone tells of {alone}: there is nothing to hold it against", fix="edgecloud cards --biased")
    return found
