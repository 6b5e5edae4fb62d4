"""A file by HTTP: which address is asked for which part, what a fault costs, when it is given up. Never waits, speaks no HTTP itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgeagent.spending.month import cost
from edgeagent.system.backoff import Backoff
from modelwire.deploying.reports import Code
from modelwire.errors import DigestMismatch

from .addresses import filled, leaves_beside
from .incoming import Incoming
from .ranges import Got, Miss, Missed, RangeAsk, Source
from .tasks import FetchFailure, FetchTask

_log = logging.getLogger("edgeagent.fetching")
HEADERS = 2048  # bytes that are counted for a request and the head of its answer, before they are known
DISK = 5.0  # seconds until an answer that the disk did not take is tried again
NEXT_LOOK = 60.0  # seconds until it is seen whether the month has bytes again
OFFLINE = "the link"
_LEAVES = -1  # the "part" that is the file of leaves


class CountsMonth(Protocol):
    """What counts the bytes of a month, as edgeagent.spending.month.Month does."""

    def admits(self, size: int) -> bool: ...

    def sends(self, size: int) -> None: ...

    def receives(self, size: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    address: int
    index: int  # of the part, or _LEAVES
    charge: int  # bytes that were counted for it


class OverHttp:
    """The course of one file over HTTP, within one run of the agent."""

    def __init__(
        self, incoming: Incoming, task: FetchTask, source: Callable[[], Source], backoff: Backoff, month: CountsMonth | None
    ) -> None:
        self._incoming, self._task, self._make, self._backoff, self._month = incoming, task, source, backoff, month
        self._source: Source | None = None
        self._asked: _Asked | None = None
        self._answer: Got | Missed | None = None  # that is not dealt with yet: a disk that takes nothing more costs nothing twice
        self._due, self._at = -math.inf, 0
        self._linked = False  # the centre hears this board: where it does not, no server's silence counts against the file
        self._whole: dict[int, int] = {}  # addresses that give the whole alone, and may: how many bytes of it have come
        self._no_leaves: set[int] = set()  # addresses without leaves beside the file
        self._late: set[int] = set()  # addresses whose leaves did not come when they were asked for
        self._givers: set[int] = set()  # addresses that have given what is not proven yet
        self._brought = False  # since the last failure
        self._last = ""  # what went wrong last
        self._code = Code.BUDGET  # of that, when it was the last straw
        self.waits = OFFLINE

    def connected(self, now: float) -> None:
        """Begin, or go on: the link is up."""
        self._linked, self.waits = True, ""
        self._due = min(self._due, now)

    def lost(self) -> None:
        """Ask for nothing more until the link is up again; what was asked for may still come."""
        self._linked, self.waits = False, OFFLINE

    @property
    def due(self) -> float:
        """Monotonic seconds at which `tick` has something to do."""
        if self._asked is not None and self._answer is None:
            return -math.inf if self._source is not None and self._source.ready else math.inf
        return self._due if self._linked or self._answer is not None else math.inf

    def tick(self, now: float) -> FetchFailure | None:
        """Take an answer, and ask for more. Returns the failure that ends it. Raises DiskUnwritable."""
        if self._asked is not None:
            if self._answer is None and not self._take_answer(self._asked):
                return None
            asked, answer = self._asked, self._answer
            assert answer is not None
            self._due = now + DISK
            failure = self._got(asked, answer, now) if isinstance(answer, Got) else self._missed(asked, answer, now)
            self._asked = self._answer = None
            if failure is not None:
                return failure
        if now < self._due or not self._linked:
            return None
        return self._ask_next(now)

    def wrong(self, now: float) -> FetchFailure | None:
        """Take note that the whole, of parts that nothing proved, is another file: none of it is here any more."""
        givers, self._givers = self._givers, set()
        strike = givers.pop() if len(givers) == 1 else None
        return self._failed("what it gave is another file", now, code=Code.FILE, strike=strike)

    def close(self) -> None:
        """End it at once. What was counted for an answer that is not here stays counted."""
        if self._source is not None:
            self._source.close()
            self._source = None
        self._asked = self._answer = None

    def _ask_next(self, now: float) -> FetchFailure | None:
        inc, task = self._incoming, self._task
        index, address = inc.next_missing(), self._address()
        if index is None:
            return None
        if address is None:
            return self._ended(self._code if self._last else Code.GONE)
        url = filled(task.urls[address], task)
        if not inc.proven and inc.count > 1 and address not in self._no_leaves:
            ask, index = RangeAsk(leaves_beside(url), 0, 32 * inc.count, 32 * inc.count, whole=True), _LEAVES
        else:
            start, stop = inc.span(index)
            whole = address in self._whole or (start, stop) == (0, task.size)
            ask = RangeAsk(url, start, stop, task.size, whole)
        streams = index != _LEAVES and address in self._whole
        again = ask.start - self._whole[address] if streams else 0  # bytes of the whole that are here already, and come all the same
        charge = ask.stop - ask.start + HEADERS + again
        lacking = task.size - inc.here
        if inc.spent + max(charge, lacking + again) > task.allowed:
            self._last = self._last or f"{lacking} bytes are missing, and {max(0, task.allowed - inc.spent)} may still be fetched"
            return self._ended(Code.FILE if self._code == Code.FILE else Code.BUDGET)
        if self._month is not None and not self._month.admits(cost(0, charge)):
            self.waits, self._due = "the next month: this one's bytes are spent", now + NEXT_LOOK
            return None
        if streams:
            self._whole[address] = ask.stop
        inc.charge(charge)
        if self._source is None:
            self._source = self._make()
        self.waits, self._asked, self._due = "", _Asked(address, index, charge), now
        self._source.ask(ask)
        return None

    def _take_answer(self, asked: _Asked) -> bool:
        """Take the answer to what was asked, and count it; return whether there is one."""
        self._answer = answer = self._source.answer() if self._source is not None else None
        if answer is None:
            return False
        self._incoming.charge(answer.crossed.sent + answer.crossed.received - asked.charge)
        if self._month is not None:
            self._month.sends(cost(0, answer.crossed.sent))
            self._month.receives(cost(0, answer.crossed.received))
        return True

    def _got(self, asked: _Asked, answer: Got, now: float) -> FetchFailure | None:
        inc = self._incoming
        try:
            if asked.index == _LEAVES:
                inc.take_leaves(answer.data)
            else:
                inc.keep(asked.index, answer.data)
        except DigestMismatch as e:
            if asked.index != _LEAVES:
                return self._failed(e.message, now, code=Code.FILE)
            self._no_leaves.add(asked.address)  # the file beside them may be right all the same: it is proven at its end
        self._due = now
        if asked.index == _LEAVES:
            return None
        if not inc.proven:
            self._givers.add(asked.address)
        self._brought = True
        self._backoff.reset()
        return None

    def _missed(self, asked: _Asked, answer: Missed, now: float) -> FetchFailure | None:
        self._due = now
        if asked.index == _LEAVES:
            if answer.kind is not Miss.AGAIN or asked.address in self._late:
                self._no_leaves.add(asked.address)
            self._late.add(asked.address)
            if answer.kind is not Miss.AGAIN:
                return None
        if answer.kind is Miss.UNRANGED:
            if self._incoming.spent + self._task.size + HEADERS <= self._task.allowed:
                self._whole[asked.address] = 0
                return None
            reason = f"{answer.reason}, and that is more than may still be fetched"
            return self._failed(reason, now, code=Code.BUDGET, strike=asked.address)
        if answer.kind is Miss.AGAIN:
            return self._failed(answer.reason, now, code=Code.BUDGET)
        code = Code.GONE if answer.kind is Miss.GONE else Code.FILE
        return self._failed(answer.reason, now, code=code, strike=asked.address)

    def _failed(self, reason: str, now: float, *, code: str, strike: int | None = None) -> FetchFailure | None:
        """Count a failed attempt, and return the failure that ends it when it was the last one."""
        told = reason if self._at >= len(self._task.urls) else f"{self._task.urls[self._at].partition('?')[0]}: {reason}"
        _log.warning("the file %s does not come: %s", self._task.file.hex()[:12], told)
        self._last, self._code, brought, self._brought = told, code, self._brought, False
        self._whole.pop(self._at, None)  # what it has sent so far it would send again: to be weighed anew
        if strike is not None:
            self._incoming.fails(strike=strike)
            self._due = now  # the next address has done nothing yet
            return self._ended(code) if self._address() is None else None
        if (self._linked and not brought) or code == Code.FILE:
            self._incoming.fails()
        if self._incoming.failed >= self._task.tries:
            return self._ended(code)
        self._at = (self._at + 1) % len(self._task.urls)
        self._due = now + self._backoff.next()
        self.waits = f"the next attempt: {told}" if self._linked else OFFLINE
        return None

    def _ended(self, code: str) -> FetchFailure:
        self.close()
        self._incoming.ends(code)
        how = {Code.GONE: "it is nowhere", Code.FILE: "what is there is another file"}.get(code, "its budget is spent")
        return FetchFailure(code, f"{how}; the last word: {self._last or 'none'}")

    def _address(self) -> int | None:
        """Return the address whose turn it is; None when none is left."""
        for step in range(len(self._task.urls)):
            one = (self._at + step) % len(self._task.urls)
            if not self._incoming.struck(one):
                self._at = one
                return one
        return None
