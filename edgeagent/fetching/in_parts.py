"""A file in parts over the link: asks for those that are missing, again when none come. Knows no record and no MQTT client."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

from edgeagent.spending.month import cost
from edgeagent.system.backoff import Backoff
from modelwire.deploying.reports import Code
from modelwire.errors import Malformed
from modelwire.wire import parts
from modelwire.wire.parts import BASES_AT_ONCE, Part
from modelwire.wire.records import Transfer

from .incoming import Incoming
from .over_http import NEXT_LOOK, OFFLINE, CountsMonth
from .tasks import FetchFailure, FetchTask

TOOK_MAX = 1800.0  # seconds that a part may take and be waited for in peace
AROUND = 512  # bytes of a part's message beside what it carries
Ask = Callable[[bytes], None]


class InParts:
    """The course of one file over the link, over connections that come and go."""

    def __init__(self, incoming: Incoming, task: FetchTask, ask: Ask, backoff: Backoff, month: CountsMonth | None) -> None:
        """ask: sends a `wanted` with this bitmap of what is here; may raise LinkError."""
        self._incoming, self._task, self._ask, self._backoff, self._month = incoming, task, ask, backoff, month
        self.due = math.inf  # until there is a connection
        self._awaited: set[int] = set()  # parts that were asked for last, and have not come
        self._since, self._took = 0.0, 0.0  # monotonic seconds when they were asked for first; seconds that the last ones took
        self.waits = OFFLINE

    def connected(self, now: float) -> None:
        """Start anew: what was asked for may be lost."""
        self._backoff.reset()
        self._awaited, self.due, self.waits = set(), now, ""

    def lost(self) -> None:
        self.due, self.waits = math.inf, OFFLINE

    def described(self, transfer: Transfer, now: float) -> bool:
        """Take the word on how the file is cut; return whether it is this one's. Raises WireError for what it can't be."""
        if transfer.id != self._task.file:
            return False
        if transfer.what != "base" or transfer.size != self._task.size:
            raise Malformed(what="transfer", reason="it is not of the base that is desired")
        parts.count(transfer)
        if transfer.part_size == parts.PART_MAX and transfer.tree != self._task.tree:
            raise Malformed(what="transfer", reason="its tree is not the one that the variant names")
        before = self._incoming.part
        self._incoming.cut(transfer.part_size, transfer.tree)
        if not self._awaited or self._incoming.part != before:
            self._awaited = set()
            self.due = min(self.due, now) if self.due < math.inf else self.due
        return True

    def arrived(self, part: Part, message: int, now: float) -> bool:
        """Keep a part, and return whether it is news. message: bytes that it came in. Raises WireError for one that is not proven."""
        inc = self._incoming
        if part.id != self._task.file:
            return False
        inc.charge(message)
        if part.index in inc.held:
            return False
        tree = inc.tree
        parts.check(Transfer("", "", "", 0, self._task.file, self._task.size, inc.part, "base", tree, b""), part)
        inc.keep(part.index, part.data)
        self._backoff.reset()
        if part.index in self._awaited and self.due < math.inf:  # others were on their way from before
            self._awaited.remove(part.index)
            self.due = now if not self._awaited else self._again(now)
            self._took = min(TOOK_MAX, now - self._since)
        return True

    def tick(self, now: float) -> FetchFailure | None:
        """Ask for what is missing when it is due. Returns the failure that ends it. Raises LinkError, DiskUnwritable."""
        inc, task = self._incoming, self._task
        if now < self.due or inc.next_missing() is None:
            return None
        lacking = task.size - inc.here
        if inc.spent + lacking > task.allowed:
            inc.ends(Code.BUDGET)
            may = max(0, task.allowed - inc.spent)
            return FetchFailure(Code.BUDGET, f"its budget is spent: {lacking} bytes are missing, and {may} may still come")
        if self._month is not None and not self._month.admits(BASES_AT_ONCE * cost(0, inc.part + AROUND)):
            self.waits, self.due = "the next month: this one's bytes are spent", now + NEXT_LOOK
            return None
        awaited = set(islice((i for i in range(inc.count) if i not in inc.held), BASES_AT_ONCE))
        if awaited != self._awaited:
            self._since = now
        self._awaited, self.waits = awaited, ""
        self.due = self._again(now)
        self._ask(inc.have)
        return None

    def _again(self, now: float) -> float:
        """Return when to ask again for what has not come: a slow link must not carry a part twice."""
        return now + max(self._backoff.next(), 2 * self._took)
