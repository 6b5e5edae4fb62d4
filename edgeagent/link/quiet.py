"""How long the centre wants nothing to be sent about one model: said in messages, kept over restarts, never for more than a day."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edgeagent.state.history import History, Quiet

LONGEST_WAIT = 86_400  # seconds: what the centre asks for beyond a day is taken for a day
_log = logging.getLogger("edgeagent.session")


class QuietTime:
    """Until when nothing is sent; a wait from before this start goes on."""

    def __init__(self, lineage: History, wall: Callable[[], float], *, begins: Callable[[], None] = lambda: None) -> None:
        """wall: Unix seconds. begins: called when a wait does: what is measured meanwhile is the wait."""
        self._lineage, self._wall, self._begins = lineage, wall, begins
        self._until: float | None = None  # monotonic seconds; None: what was noted before this start is still to be read

    def __call__(self, now: float) -> float:
        """Return until when nothing is sent. now, and what comes back: monotonic seconds."""
        if self._until is None:
            left = self._lineage.quiet().until - self._wall()
            self._until = now + min(left, LONGEST_WAIT) if left > 0 else 0.0
        return self._until

    @property
    def known(self) -> float:
        """The same, without a look at what was noted before this start."""
        return self._until or 0.0

    def keep(self, seconds: int, reason: str, now: float) -> None:
        """Send nothing for so long, at most a day; 0 ends it."""
        seconds, over = min(seconds, LONGEST_WAIT), self(now) <= now
        if not seconds and over:
            return
        if seconds:
            self._begins()
        self._until = now + seconds
        self._lineage.set_quiet(Quiet(int(self._wall()) + seconds, reason) if seconds else Quiet(0, ""))
        why = f": {reason}" if reason else ""
        _log.info("%s: %s", self._lineage.name, f"the centre wants nothing sent for {seconds} s{why}" if seconds else "the wait is over")
