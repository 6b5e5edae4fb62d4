"""The forms in which an update can go, each with its size and what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

from modelwire.errors import BadArgument

from .figures import in_range

UPDATES_MOST = 1 << 16  # that are coalesced into one

class Choice(IntEnum):
    """What can be done with an update. The first four are the kinds of update by their numbers on the wire; new ones are only added."""

    SNAPSHOT = 0
    DELTA = 1
    EXACT = 2
    RECIPE = 3
    WAIT = 4  # keep it, and send it as one with those that follow


class Bar(IntEnum):
    """Why something can't be chosen. Numbers travel in notes: new ones are only added."""

    NONE = 0
    WINDOW = 1  # it would not be through before the connection ends
    MEMORY = 2
    PROMISE = 3  # the centre could not recover it in the time that was promised
    RECIPES_OFF = 4  # features do not leave this board
    TRAINER = 5  # the centre does not know this board's version of the trainer
    TOO_LARGE = 6  # above update.max_bytes, or what a container holds
    ALWAYS_ON = 7  # nothing waits on a link that never sleeps
    WAITED = 8  # for as long as it may
    UNTOLD = 9  # nothing is known of when the next one comes
    SETTINGS = 10  # the settings ask for another kind
    NOTHING = 11  # it is not there: no such form was offered


@dataclass(frozen=True, slots=True)
class Candidate:
    """One form in which all that waits, this update included, could go now. Raises BadArgument for a number out of range.

    alone and full say how it grows when more updates are coalesced into it: `coalesced_bytes`.
    """

    choice: Choice
    bytes: float  # to send
    density: float = 1.0  # kept entries by all entries; tells deltas apart
    alone: float | None = None  # bytes that one further update would take by itself; None: it does not grow (a snapshot)
    full: float | None = None  # bytes that it can't outgrow; None: further updates overlap with nothing (recipes)
    stored: float | None = None  # bytes that the centre keeps of it; None: as many as are sent
    encoded: float = 0  # weights that are still to be encoded
    steps: float = 0  # of training that only this form takes
    memory: float = 0  # bytes of RAM
    recover_s: float = 0  # seconds in which the centre recovers the version, chain or replay included
    accuracy_lost: float = 0  # against the densest form, 0 to 1
    barred: Bar = Bar.NONE  # a reason against it that only the caller knows

    def __post_init__(self) -> None:
        if self.choice is Choice.WAIT:
            raise BadArgument(reason="waiting is no form of an update", fix="give a Forecast in the Conditions")
        for name in ("bytes", "density", "encoded", "steps", "memory", "recover_s", "accuracy_lost"):
            in_range(f"{name} of a {self.choice.name.lower()}", getattr(self, name))
        for name in ("alone", "full", "stored"):
            if getattr(self, name) is not None:
                in_range(f"{name} of a {self.choice.name.lower()}", getattr(self, name))

    @property
    def name(self) -> str:
        """The form in a word or two: `delta 0.3 %`."""
        kind = self.choice.name.lower()
        return f"{kind} {100 * self.density:.3g} %" if self.choice is Choice.DELTA else kind

    def sizes(self, count: int, *, fresh: bool) -> list[float]:
        """Return the bytes of it with 0 to count - 1 further updates coalesced into it; fresh: of 1 to `count` that come after it."""
        if self.alone is None:
            return [self.bytes] * count
        if fresh:
            return list(islice(_growing(0.0, self.alone, self.full), 1, count + 1))
        return list(islice(_growing(self.bytes, self.alone, self.full), count))


def coalesced_bytes(alone: float, full: float | None, updates: int) -> float:
    """Return the expected bytes of so many updates coalesced into one: each touches weights at random, and none twice costs more.

    alone: bytes of one by itself; full: bytes of one that touches every weight, None: there is no overlap. Real updates move the
    same weights again and again, so this says too much rather than too little.
    """
    in_range("the bytes of an update", alone)
    in_range("the bytes of a full update", full or 0.0)
    if not 0 <= updates <= UPDATES_MOST:
        raise BadArgument(reason=f"{updates} updates can't be coalesced", fix=f"give a number up to {UPDATES_MOST}")
    if full is None:
        return alone * updates
    return next(islice(_growing(0.0, alone, full), updates, None))


def _growing(size: float, alone: float, full: float | None) -> Iterator[float]:
    """Yield the bytes with 0, 1, 2, ... further updates in it."""
    while True:
        yield size
        if full is None:
            size += alone
        elif size < full:
            size = min(full, size + alone * (1.0 - size / full))
