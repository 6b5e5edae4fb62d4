"""A link whose bytes are counted against the month: what leaves it before it does, what comes, and what keeps it alive."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from edgeagent.settings.tree import LinkSettings
from edgeagent.spending.month import CONNECTING, PING, TLS, Month, cost
from edgeagent.state.outbox import Outbox, Waiting
from edgecommon.broker import redacted
from edgecommon.mqtt_packets import Oversize
from modelwire.errors import LinkError, MonthSpent

from .transport import Arrived, Connected, Event, Lost, Transport, Will


class HasLargest(Protocol):
    """Of a link: what it takes in one message."""

    @property
    def largest(self) -> int:
        """Bytes of the largest message."""
        ...


@dataclass(frozen=True, slots=True)
class Leaving:
    """Which of a model's updates may leave this month."""

    outbox: Outbox
    month: Month | None  # None: nothing is counted, and nothing held back
    topic: str
    link: HasLargest

    def cost(self, w: Waiting) -> int:
        """Return the bytes that an update takes on the link, in parts where it is too large for one message."""
        return cost(len(self.topic), w.size) + w.size // max(1, self.link.largest) * cost(len(self.topic), 64)

    def admits(self, w: Waiting) -> bool:
        return self.month is None or self.month.admits(self.cost(w))

    def counted(self, w: Waiting) -> AbstractContextManager[None]:
        """Count an update in one transaction with what the block writes, before its first byte leaves."""
        return nullcontext() if self.month is None else self.month.setting_apart(self.cost(w))

    def spent(self) -> MonthSpent | None:
        """Return the error of who waits for an update that may not leave this month; None where all may."""
        if self.month is None or not self.month.limit:
            return None
        first = next((w for w in self.outbox.waiting("queued", "offered") if not self.admits(w)), None)
        return None if first is None else self.month.error(self.cost(first))

    def silenced(self) -> MonthSpent | None:
        """Return the error of a board that may not even say hello this month, whether an update waits or not; mostly None."""
        return self.month.error(0) if self.month is not None and self.month.silent else None


class MeteredLink:
    """A Transport over another one."""

    def __init__(self, link: Transport, month: Month, settings: LinkSettings, monotonic: Callable[[], float]) -> None:
        self._link, self.month, self._settings, self._monotonic = link, month, settings, monotonic
        self._pinged = math.inf  # monotonic seconds up to which pings are counted; no end of them while the link is down

    @property
    def largest(self) -> int:
        return self._link.largest

    def open(self, will: Will, listen: Sequence[str]) -> None:
        self._link.open(will, listen)

    def poll(self, timeout: float) -> Event | None:
        event = self._link.poll(timeout)
        if isinstance(event, Connected):
            self._pinged = self._monotonic()
            self.month.sends(CONNECTING + (TLS if self._settings.broker.startswith("mqtts:") else 0))
        elif isinstance(event, Lost):
            self._pinged = math.inf
        elif isinstance(event, Arrived):
            self.month.receives(cost(len(event.topic), len(event.data)))
        elif isinstance(event, Oversize):
            self.month.receives(event.size)  # it was let go, and has crossed the link all the same
        self._count_pings()
        return event

    def _count_pings(self) -> None:
        """Count the pings of the time that has passed: as many as on a link on which nothing else is said."""
        waited, every = self._monotonic() - self._pinged, self._settings.keepalive
        if waited >= every:
            due = int(waited // every)
            self._pinged += due * every
            self.month.sends(due * PING)

    def send(self, topic: str, data: bytes, *, retain: bool = False) -> int:
        """Hand a message on. Raises LinkError, too, when the month's allowance for hellos and answers is spent: updates end before."""
        size = cost(len(topic), len(data))
        if not self.month.answers(size):
            raise LinkError(broker=redacted(self._settings.broker), reason=f"nothing more is said in {self.month.now}: its bytes are spent")
        self.month.sends(size)
        return self._link.send(topic, data, retain=retain)

    def acknowledge(self, message: Arrived) -> None:
        self._link.acknowledge(message)

    def stand_aside(self, why: str) -> None:
        self._link.stand_aside(why)

    def wake(self) -> None:
        self._link.wake()

    def close(self, farewell: Will | None = None) -> None:
        self._link.close(farewell)
