"""The Transport seam: how messages of the fleet reach the ingester and its answers go back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edgecommon.reaching import Trouble


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message that came, and what its transport needs to acknowledge it."""

    topic: str
    data: bytes
    token: object = None
    unread: int = 0  # bytes of a message that was too large to be read, and has no data here


@runtime_checkable
class ScreeningTransport(Protocol):
    """A transport that can leave messages out before it has spent its time on them."""

    def screen_with(self, turns: Callable[[Sequence[tuple[str, int]]], Sequence[bool]]) -> None:
        """Leave out what has no turn, acknowledged. turns: says of messages, by topic and bytes, whether each has one."""


class IntakeTransport(Protocol):
    """At least once, in any order, never lost between two acknowledgements of a living broker; all else is the receipts' work.

    tests/edgecloud/conformance/test_transport.py is what every implementation passes.
    """

    @property
    def name(self) -> str:
        """Where it listens, as an error says it."""

    @property
    def client_id(self) -> str:
        """The name that it has at the broker."""

    @property
    def connected(self) -> bool: ...

    @property
    def takeovers(self) -> int:
        """How often another client of its name has taken its place; it takes it back by itself."""

    @property
    def ousted(self) -> str:
        """Why it has stepped back for another client of its name and connects no more; empty while it has not."""

    @property
    def trouble(self) -> Trouble | None:
        """Why there is no link, or why its broker passes nothing on that is said there; None while all is well, and before the first
        attempt has ended.
        """

    def start(self, receive: Callable[[Delivery], None]) -> None:
        """Begin to listen and return at once; connecting goes on in the background, for ever.

        receive: called on another thread, one message after the other; it may block to hold the flow back.
        """

    def publish(self, topic: str, data: bytes) -> None:
        """Send, or queue while there is no link. What is lost is asked for again by those who miss it."""

    def acknowledge(self, delivery: Delivery) -> None:
        """Say that a message is safe: it never comes again. Of an older connection it means nothing, and it comes again."""

    def drain(self, seconds: float) -> bool:
        """Return whether everything published has left within this time."""

    def stop(self) -> None:
        """Leave in peace. What was not acknowledged comes again after the next start."""
