"""Plays many schedules, on all processors, and says what came of them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from .planted import BUGS
from .playing import Played, made, play
from .schedule import BOARDS, CENTRE, Schedule, Trouble, scheduled
from .shrinking import shrunk

TOLD = 5.0  # seconds between two lines of progress
BATCH = 32  # schedules that are handed out at once where nobody knows how many there are


@dataclass
class Total:
    """What came of many schedules."""

    schedules: int = 0
    failed: list[Played] = field(default_factory=list)
    lost: int = 0  # schedules that failed in any way but the next one: a version was lost, doubled, or never told to both sides
    diverged: int = 0  # schedules in which the two sides had other bytes
    versions: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def a_minute(self) -> float:
        return 60 * self.schedules / max(self.seconds, 1e-9)

    def add(self, one: Played) -> None:
        self.schedules += 1
        self.versions += one.versions
        self.ends += one.ends
        self.torn += one.torn
        self.messages += one.messages
        self.diverged += one.diverged > 0
        if one.failures:
            self.failed.append(one)
            self.lost += one.diverged == 0

    def lines(self) -> Iterator[str]:
        """Yield what a person reads of it."""
        yield f"{self.schedules} schedules, {self.versions} versions, {self.a_minute:.0f} schedules a minute"
        yield f"  lost in {self.lost}, diverged in {self.diverged}"
        yield f"  messages: {', '.join(f'{n} {what}' for what, n in self.messages.items())}"
        yield f"  ended {self.ends.total()} times at {', '.join(f'{n} x {what}' for what, n in self.ends.most_common(12))}"
        yield f"  power cuts took back or tore {self.torn} writes"


def played(schedules: Iterable[Schedule], *, bug: str = "", jobs: int = 0) -> Iterator[Played]:
    """Yield what comes of schedules, in their order. jobs: processes; 0 takes one for each processor."""
    made(BOARDS)  # once, for all processes
    jobs = jobs or len(os.sched_getaffinity(0))
    if jobs == 1:
        yield from (replayed(one, bug=bug) for one in schedules)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(partial(replayed, bug=bug), schedules, chunksize=2)


def total(first: int, count: int, *, bug: str = "", jobs: int = 0, progress: bool = False, enough: int = 0) -> Total:
    """Play the schedules of so many seeds and return what came of them. enough: end after so many that failed; 0: never."""
    return _added(Total(), map(scheduled, range(first, first + count)), count, bug, jobs, progress, enough)


def everywhere(rounds: int = 1, *, seed: int = 0, every: int = 1, jobs: int = 0, progress: bool = False) -> Total:
    """Cut the power of a centre, and then of a board, at every write of a life in which nothing else happens; return what came of it.

    rounds: of the one board. every: of so many writes one.
    """
    out = Total()
    for who in (CENTRE, 0):
        at = 1
        while True:
            before = out.ends.total()
            cuts = [Schedule(seed + step, 1, rounds, (Trouble("power", step, who),)) for step in range(at, at + BATCH * every, every)]
            _added(out, cuts, 0, "", jobs, progress, 0)
            if out.ends.total() < before + BATCH:  # the life has fewer writes
                break
            at += BATCH * every
    return out


def _added(out: Total, schedules: Iterable[Schedule], count: int, bug: str, jobs: int, progress: bool, enough: int) -> Total:
    """Play schedules, add what comes of them, and tell on stderr how far it is. count: of all of them, 0 where nobody knows."""
    before, began = out.seconds, time.monotonic()
    shown = began
    for one in played(schedules, bug=bug, jobs=jobs):
        out.add(one)
        out.seconds = before + time.monotonic() - began
        if progress and time.monotonic() - shown >= TOLD:
            shown = time.monotonic()
            of = f" of {count}" if count else ""
            print(f"{out.schedules}{of} schedules, {out.a_minute:.0f} a minute, {len(out.failed)} failed", file=sys.stderr)
        if enough and len(out.failed) >= enough:
            break
    return out


def replayed(schedule: Schedule, *, bug: str = "") -> Played:
    """Play a schedule. bug: the name of one that is planted."""
    return play(schedule, BUGS[bug] if bug else None)


def shortest(one: Played, *, bug: str = "") -> Played:
    """Return what comes of the shortest schedule that was found to fail as this one."""
    return replayed(shrunk(one.schedule, lambda s: bool(replayed(s, bug=bug).failures)), bug=bug)
