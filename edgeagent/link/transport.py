"""What the agent needs of a link to the centre, so that its logic runs over MQTT and, in tests, over a centre in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgecommon.mqtt_packets import Oversize


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for the device when the link is lost without a word."""

    topic: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Connected:
    """The link is up and the device's answers are subscribed to."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The link went down, or an attempt to bring it up failed. The transport tries again by itself."""

    reason: str  # and what to do, in a person's words
    step: str = ""  # of edgecommon.reaching, at which it failed
    refused: bool = False  # the broker answers, and does not let this client in or do what it needs
    ousted: str = ""  # why it steps back for another client of its name, for a while that grows; empty while it does not


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message from the centre. It comes again until it is acknowledged."""

    topic: str
    data: bytes
    token: object = None  # the transport's own


@dataclass(frozen=True, slots=True)
class Accepted:
    """The broker took a message. It proves nothing about the centre: only a receipt does."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Woken:
    """Nothing happened, but somebody called `wake`."""


# An Oversize is a message that was let go unread, and acknowledged.
Event = Connected | Lost | Arrived | Oversize | Accepted | Woken


class Transport(Protocol):
    """A link that comes and goes. Used from one thread, but for `wake`."""

    @property
    def largest(self) -> int:
        """Bytes of the largest message that may be sent now."""
        ...

    def open(self, will: Will, listen: Sequence[str]) -> None:
        """Start to connect, listening to these topic filters; `poll` tells how it goes."""
        ...

    def poll(self, timeout: float) -> Event | None:
        """Return the next event, or None after `timeout` seconds."""
        ...

    def send(self, topic: str, data: bytes, *, retain: bool = False) -> int:
        """Hand a message to the link and return its ticket. Raises LinkError while the link is down, TooLarge."""
        ...

    def acknowledge(self, message: Arrived) -> None:
        """Say that a message was dealt with, durably."""
        ...

    def stand_aside(self, why: str) -> None:
        """Leave the broker to another client of this name, and try again after a while that grows."""
        ...

    def wake(self) -> None:
        """Make `poll` return now; may be called from a signal handler."""
        ...

    def close(self, farewell: Will | None = None) -> None:
        """Say farewell if the link is up, and close it."""
        ...
