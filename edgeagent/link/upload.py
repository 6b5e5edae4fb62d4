"""One container on its way in parts: sends what the centre says is missing, a few at a time."""

from __future__ import annotations

from modelwire.wire import parts
from modelwire.wire.parts import Outgoing

from .transport import Transport

AT_ONCE = 8  # parts that the broker has not accepted yet; more would only fill this device's memory


class Upload:
    """The state of one transfer on one connection."""

    def __init__(self, topic: str, outgoing: Outgoing) -> None:
        self.transfer = outgoing.transfer
        self._topic, self._outgoing = topic, outgoing
        self._missing: list[int] = []  # nothing is sent before the centre has said what it lacks
        self._tickets: dict[int, int] = {}  # ticket -> part

    @property
    def busy(self) -> bool:
        """Whether parts that were asked for are still on their way: asking again would only have them sent twice."""
        return bool(self._missing or self._tickets)

    def wanted(self, have: bytes) -> None:
        """Take the centre's bitmap of the parts that it holds. Raises Malformed."""
        under_way = set(self._tickets.values())
        self._missing = [i for i in parts.missing(have, self._outgoing.count) if i not in under_way]

    def accepted(self, ticket: int) -> None:
        self._tickets.pop(ticket, None)

    def push(self, transport: Transport) -> None:
        """Send missing parts while few are on their way. Raises LinkError."""
        while self._missing and len(self._tickets) < AT_ONCE:
            index = self._missing[0]
            self._tickets[transport.send(self._topic, self._outgoing.cut(index))] = index
            del self._missing[0]
