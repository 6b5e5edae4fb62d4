"""One file on its way to this board: looked at, fetched, proven. Never waits, and is cancelled at once; a kill costs one part at most.

Where addresses are given it comes from them alone, and where none is it comes in parts over the link: neither takes the other's place,
since what a link costs was planned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from edgeagent.system.backoff import Backoff
from modelwire.deploying.reports import Code
from modelwire.wire.parts import Part
from modelwire.wire.records import Transfer

from .in_parts import InParts
from .incoming import Incoming, discard
from .over_http import CountsMonth, OverHttp
from .ranges import Source
from .tasks import FetchFailure, FetchProgress, FetchTask, failure_before

WRONG = "what came is another file than the one that is desired"


class Download:
    """One file, from the first byte to a proven whole, over any number of starts of the agent.

    Of one thread, the agent's: say `connected` when the link is up, and call `tick` whenever `due` has come, and when `wake` of its source
    was called.
    """

    def __init__(
        self, folder: Path, task: FetchTask, *, source: Callable[[], Source], ask: Callable[[bytes], None], backoff: Backoff,
        month: CountsMonth | None = None,
    ) -> None:  # fmt: skip
        """folder: its own, where it lies until it is whole; made where it is missing. source: as sources.over_http makes it.

        ask: sends a `wanted` with this bitmap over the link; may raise LinkError. month: counts what crosses the link beside MQTT, and is
        asked first. Raises DiskUnwritable.
        """
        self.task, self._folder = task, folder
        self._incoming = Incoming(folder, task)
        self._http = OverHttp(self._incoming, task, source, backoff, month) if task.urls else None
        self._parts = None if task.urls else InParts(self._incoming, task, ask, backoff, month)
        self._seen = self._closed = False  # what lies here was looked at
        self.failure = failure_before(code) if (code := self._incoming.code) else None  # final, and written down
        self.file: Path | None = None  # the whole, proven and on the disk

    @property
    def settled(self) -> bool:
        """Whether it has come to its end: `file` or `failure` says which."""
        return self.file is not None or self.failure is not None or self._closed

    @property
    def due(self) -> float:
        """Monotonic seconds at which `tick` has something to do; infinite while it waits for what comes from outside."""
        if self.settled:
            return math.inf
        if not self._seen or self._incoming.next_missing() is None:
            return -math.inf
        return self._course.due

    @property
    def progress(self) -> FetchProgress:
        inc, task = self._incoming, self.task
        waits = "" if self.settled else self._course.waits
        return FetchProgress(inc.here, task.size, inc.spent, task.allowed, inc.failed, task.tries, waits)

    def tick(self, now: float) -> None:
        """Do what is due, a little at a time. now: monotonic seconds. Raises DiskUnwritable; LinkError where a word can't be sent."""
        if self.settled:
            return
        if not self._seen:
            self._seen = self._incoming.look()
            return
        if self._incoming.next_missing() is not None:
            self.failure = self._course.tick(now)
        elif (proven := self._incoming.prove()) is not None:
            self._finish(proven, now)

    def _finish(self, proven: bool, now: float) -> None:
        if proven:
            self._stop()
            self.file = self._incoming.file
            return
        self._incoming.drop()
        if self._http is not None:
            self.failure = self._http.wrong(now)
        else:  # each part was proven by a tree that the centre has signed, and the whole is another file: asking again brings no other
            self._incoming.ends(Code.FILE)
            self.failure = FetchFailure(Code.FILE, WRONG)

    # The link.

    def connected(self, now: float) -> None:
        """Take note that the link is up, and the centre has welcomed this model. Nothing is fetched before, by HTTP either: a board that is
        off line spends no tries."""
        self._course.connected(now)

    def lost(self) -> None:
        self._course.lost()

    # Of a file that comes in parts.

    def described(self, transfer: Transfer, now: float) -> bool:
        """Take the centre's word on how a file is cut; return whether it is this one's, and awaited. Raises WireError, DiskUnwritable."""
        return self._parts is not None and not self.settled and self._seen and self._parts.described(transfer, now)

    def arrived(self, part: Part, message: int, now: float) -> bool:
        """Keep a part that came in a message of so many bytes; return whether it is news. Raises WireError for one that is not proven."""
        return self._parts is not None and not self.settled and self._seen and self._parts.arrived(part, message, now)

    # Its end.

    def cancel(self) -> None:
        """End it at once, whatever is under way; what is here stays for the next one of the same file."""
        if not self._closed:
            self._stop()
            self._closed = True
            self._incoming.close()

    def discard(self) -> None:
        """End it, and remove what is here and what was counted."""
        self.cancel()
        discard(self._folder)

    def _stop(self) -> None:
        if self._http is not None:
            self._http.close()

    @property
    def _course(self) -> OverHttp | InParts:
        course = self._http or self._parts
        assert course is not None
        return course
