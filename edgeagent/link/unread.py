"""What was let go unread since it was too large: said once a minute of each topic, counted for `status` and `doctor`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from edgecommon.mqtt_packets import INBOUND, Minutely, Oversize
from edgecommon.sqlite import Database
from modelwire.errors import ModelWireError

WRITTEN = 60.0  # seconds between two writings of the counts: who sends such messages must not wear out a board's flash
REMEDY = "have the broker keep them off (max_packet_size), and strangers too: docs/broker.md"
_log = logging.getLogger("edgeagent.link")


@dataclass(frozen=True, slots=True)
class UnreadMessages:
    """How many messages were too large to be read since the state folder was made, of how many bytes together, and the last of them."""

    count: int = 0
    bytes: int = 0
    topic: str = ""
    at: int = 0  # Unix seconds

    def said(self, when: str) -> str:
        """Return it in a person's words. when: the time of the last."""
        many = f"{self.count} message{'s' if self.count != 1 else ''} above {INBOUND} bytes"
        return f"{many} {'were' if self.count != 1 else 'was'} let go unread, {self.bytes} bytes, the last {when} on {self.topic}"


class UnreadTally:
    """Counts what one agent's link lets go."""

    def __init__(self, database: Database, wall: Callable[[], float]) -> None:
        """wall: Unix seconds."""
        self._database, self._wall = database, wall
        self._counts = noted(database) or UnreadMessages()
        self._news, self._unwritten, self._written = Minutely(), False, float("-inf")

    def add(self, one: Oversize, now: float) -> None:
        """Count a message. now: monotonic seconds."""
        before = self._counts
        self._counts = UnreadMessages(before.count + 1, before.bytes + one.size, one.topic, int(self._wall()))
        self._unwritten = True
        if self._news.is_news(one.topic, now):
            _log.warning("a message of %d bytes on %s was let go unread: at most %d are taken in", one.size, one.topic, INBOUND)
        if now - self._written >= WRITTEN:
            self.write(now)

    def write(self, now: float = 0.0) -> None:
        """Keep the counts. What can't be written, on a disk that is full, is done without: nothing stands on it."""
        if not self._unwritten:
            return
        self._written, self._unwritten = now, False
        try:
            with self._database.transaction():
                self._database.run("INSERT OR REPLACE INTO meta (key, value) VALUES ('unread', ?)", json.dumps(asdict(self._counts)))
        except ModelWireError:
            pass


def noted(database: Database) -> UnreadMessages | None:
    """Return what was counted; None where nothing was."""
    row = database.maybe("SELECT value FROM meta WHERE key='unread'")
    try:
        return replace(UnreadMessages(), **json.loads(row[0])) if row is not None else None
    except (ValueError, TypeError):  # of another release
        return None
