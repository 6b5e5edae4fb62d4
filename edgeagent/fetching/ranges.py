"""What gives ranges of a file: the seam between a download, which never waits, and who speaks HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RangeAsk:
    """Some bytes of a file."""

    url: str
    start: int
    stop: int  # behind the last byte
    size: int  # of the whole file
    whole: bool = False  # whether a server that gives no ranges may send the whole, of which these are taken


@dataclass(frozen=True, slots=True)
class Crossed:
    """Bytes that crossed the link for an answer, connections included."""

    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class Got:
    """The bytes that were asked for, unproven."""

    data: bytes | bytearray
    crossed: Crossed


class Miss(Enum):
    """What an answer without bytes means for its address."""

    AGAIN = "again"  # it may pass
    GONE = "gone"  # there is nothing, and asking again brings nothing
    WRONG = "wrong"  # what is there is not the file
    UNRANGED = "unranged"  # the server would send the whole; it waits for an ask that lets it


@dataclass(frozen=True, slots=True)
class Missed:
    """An answer without the bytes."""

    kind: Miss
    reason: str
    crossed: Crossed


class Source(Protocol):
    """Answers one ask after another. Nothing here waits."""

    @property
    def ready(self) -> bool:
        """Whether an answer is there."""
        ...

    def ask(self, ask: RangeAsk) -> None:
        """Ask for a range; the answer to the one before was taken."""
        ...

    def answer(self) -> Got | Missed | None:
        """Return the answer, None while there is none."""
        ...

    def close(self) -> None:
        """End at once, also in the middle of an answer."""
        ...
