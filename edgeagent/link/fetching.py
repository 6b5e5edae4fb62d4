"""The update of a command `take` on its way here: asks for the parts that are missing, again when none come, and says how far it is."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edgeagent.state.answers import Answered
from edgeagent.state.lineage import Lineage
from edgeagent.system.backoff import Backoff
from modelwire.wire.parts import WANTED_AT_ONCE, Part
from modelwire.wire.records import Transfer, Wanted

_log = logging.getLogger("edgeagent.session")
Ask = Callable[[Wanted], None]
Proceed = Callable[[], Answered | None]
TOLD = 4  # lines about one update on its way, at most


class Fetch:
    """The talk about one model's update, over connections that come and go; what is here already stands in the database."""

    def __init__(
        self, lineage: Lineage, backoff: Backoff, *, names: Callable[[], tuple[str, str, str, int]], ask: Ask, proceed: Proceed
    ) -> None:
        """names: what every record starts with; ask: sends what is wanted; proceed: what comes of the command by now."""
        self._lineage, self._backoff = lineage, backoff
        self._names, self._ask, self._proceed = names, ask, proceed
        self._due: float | None = None  # monotonic seconds of the next word; None: nothing is on its way that was described
        self._awaited = 0  # parts that were asked for last, and have not come
        self._told = -1
        self._begun()

    @property
    def due(self) -> float:
        """When `tick` has something to do by the clock alone."""
        return float("inf") if self._due is None else self._due

    def connected(self, now: float) -> None:
        """Start anew: what was asked for may be lost."""
        self._backoff.reset()
        self._awaited = 0
        self._begun()
        if self._due is not None:
            self._due = now

    def described(self, transfer: Transfer, record: bytes, now: float) -> None:
        """Take the word on how an update is cut. Raises WireError for one that can't be the one that is awaited."""
        if not self._lineage.takings.describe(transfer, record):
            _log.debug("%s: a %s was offered that no command has named", self._lineage.name, transfer.what)
        elif not self._awaited:  # said again at each welcome, and while parts come
            self._due = now

    def arrived(self, part: Part, now: float) -> Answered | None:
        """Keep a part, and return the command's answer when it was the last one. Raises WireError for one that is not proven."""
        if not self._lineage.takings.keep(part):
            return None
        self._awaited = max(0, self._awaited - 1)
        self._backoff.reset()
        self._due = now if not self._awaited else now + self._backoff.next()
        taking = self._lineage.takings.current()
        assert taking is not None  # a part of it was kept
        if TOLD * len(taking.held) // taking.count != self._told:
            self._told = TOLD * len(taking.held) // taking.count
            _log.info("%s: %d of %d parts are here", self._lineage.name, len(taking.held), taking.count)
        return self._proceed() if taking.whole else None

    def tick(self, now: float) -> Answered | None:
        """Ask for what is missing, when it is due; return the answer to a command that holds no more. Raises LinkError."""
        if self._due is None or now < self._due:
            return None
        answered, taking = self._proceed(), self._lineage.takings.current()
        if taking is None or taking.transfer is None:
            self._due = None  # answered, or to be described anew
            return answered
        self._awaited = min(WANTED_AT_ONCE, taking.count - len(taking.held))
        self._due = now + self._backoff.next()
        self._ask(Wanted(*self._names(), taking.task.id, taking.have))
        return answered

    def _begun(self) -> None:
        taking = self._lineage.takings.current()
        self._due = 0.0 if taking is not None and taking.transfer is not None else None
