"""One container on its way in parts: sends what the centre says is missing, a few at a time."""

from __future__ import annotations

import math

from modelwire.wire import parts
from modelwire.wire.parts import Outgoing

from .transport import Transport

AT_ONCE = 8  # parts that the broker has not accepted yet; more would only fill this device's memory
SOON = 2.0  # seconds after the broker has the last part: the centre has answered by then, or left parts out that came too fast for it


class Upload:
    """The state of one transfer on one connection."""

    def __init__(self, topic: str, outgoing: Outgoing) -> None:
        self.transfer = outgoing.transfer
        self._topic, self._outgoing = topic, outgoing
        self._missing: list[int] = []  # nothing is sent before the centre has said what it lacks
        self._tickets: dict[int, int] = {}  # ticket -> part
        self._lacked = outgoing.count + 1  # parts, by the centre's last answer
        self._goes_on = False  # it lacks fewer than by the answer before: what is still missing is worth a question before its time
        self.due = math.inf  # monotonic seconds, of that question

    @property
    def busy(self) -> bool:
        """Whether parts that were asked for are still on their way: asking again would only have them sent twice."""
        return bool(self._missing or self._tickets)

    def wanted(self, have: bytes) -> None:
        """Take the centre's bitmap of the parts that it holds. Raises Malformed."""
        under_way, missing = set(self._tickets.values()), parts.missing(have, self._outgoing.count)
        self._goes_on, self._lacked, self.due = len(missing) < self._lacked, len(missing), math.inf
        self._missing = [i for i in missing if i not in under_way]

    def accepted(self, ticket: int) -> None:
        self._tickets.pop(ticket, None)

    def push(self, transport: Transport, now: float) -> bool:
        """Send missing parts while few are on their way; return whether to ask now what came of them.

        now: monotonic seconds. Raises LinkError.
        """
        while self._missing and len(self._tickets) < AT_ONCE:
            index = self._missing[0]
            self._tickets[transport.send(self._topic, self._outgoing.cut(index))] = index
            del self._missing[0]
        if self.busy or not self._goes_on or not self._lacked:
            return False
        if self.due == math.inf:
            self.due = now + SOON
        if now < self.due:
            return False
        self._goes_on, self.due = False, math.inf
        return True
