"""Plays one schedule: real boards and a real centre over the broker in memory, on a disk whose power can be cut; then holds both sides
against each other.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from random import Random

from tests.conftest import MEMORY, in_memory
from tests.simulator.boards import MODEL, RealBoard
from tests.simulator.broker import CALM, Broker, Chance
from tests.simulator.centre import NAME, SimulatedCentre
from tests.simulator.crashes import Steps
from tests.simulator.simulation import bases
from tests.simulator.timeline import Timeline, quiet, seeded
from tests.simulator.vfs import Disk, DiskSteps, power_vfs

from .checks import Witness, compared
from .schedule import BOARDS, CENTRE, ENDS, MESSAGES, Schedule, Trouble
from .shared import parsed_once

EVERY = 20.0  # seconds on the mean between two rounds of a board
PATIENCE = 3 * 3600.0  # seconds of the simulated clock, in which all must have settled
FILES_FROM = 400  # bytes from which on a container is a file of its own: some are here, and some are not
MOST_EVENTS = 50_000

Planted = Callable[["Play"], AbstractContextManager[None]]


@dataclass
class Played:
    """What came of a schedule."""

    schedule: Schedule
    failures: list[str] = field(default_factory=list)
    digest: str = ""
    events: int = 0
    simulated: float = 0.0
    versions: int = 0
    lost: int = 0  # versions that a board believed the centre to hold, and that it did not
    diverged: int = 0
    ends: Counter[str] = field(default_factory=Counter)  # how who was ended, and at what
    torn: int = 0  # writes that power cuts took back or tore
    messages: Counter[str] = field(default_factory=Counter)


class PlannedChance(Chance):
    """Strikes the messages that a schedule names, by their number among all that were sent."""

    def __init__(self, troubles: tuple[Trouble, ...], rng: Random) -> None:
        super().__init__(rng)
        self._counts: Counter[str] = Counter()
        self._plans = {kind: {t.at: t.much for t in troubles if t.kind == kind} for kind in MESSAGES}

    def befalls(self, what: str, share: float) -> bool:
        self._counts[what] += 1
        return self._counts[what] in self._plans.get(what, ())

    def lag(self, most: float) -> float:
        return self._plans["late"][self._counts["late"]]

    def calm(self) -> None:
        """Strike none any more."""
        self._plans = {}


class Play:
    """One schedule under way."""

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        """folder: holds copies of what `made` has made."""
        self.schedule, self.played = schedule, Played(schedule)
        self.time, self.disk = Timeline(), Disk(folder)
        self.steps = DiskSteps(power_vfs(), self.disk)
        rng = Random(f"fleet {schedule.seed}")
        self.chance = PlannedChance(schedule.troubles, Random(f"chance {schedule.seed}"))
        self.broker = Broker(self.time, Random(f"network {schedule.seed}"), replace(CALM, heard=1.0), self.chance)
        self.centre = SimulatedCentre(
            self.time, self.broker, folder / "centre", Random(rng.random()), self.steps, bases()[:1], files_from=FILES_FROM
        )
        self.boards = [
            RealBoard(self.time, self.broker, Random(rng.random()), f"pi-{i}", folder / f"pi-{i}", self.steps, EVERY, schedule.rounds)
            for i in range(schedule.boards)
        ]
        self.witness = Witness(self.centre, self.boards, self.played.failures)
        self._ends = {who: [t for t in schedule.troubles if t.kind in ENDS and t.who == who] for who in range(-1, schedule.boards)}

    def run(self) -> Played:
        """Live through it, and return what came of it."""
        try:
            self._begin()
            self._live()
            if not self.played.failures:
                self._compare()
        except Exception as error:  # noqa: BLE001 - what nobody caught is the program's fault, and ends the schedule
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.played.failures.append(f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})")
        finally:
            self.centre.stop()
            for board in self.boards:
                board.stop()
        out = self.played
        out.digest, out.events, out.simulated = self.time.digest, self.time.noted, self.time.now
        out.ends = sum((board.crashes for board in self.boards), Counter(self.centre.counts.crashes))
        out.torn = self.steps.lost
        out.messages = Counter({what: n for what, n in vars(self.broker.counts).items() if n})
        return out

    def _begin(self) -> None:
        for who, one in ((CENTRE, self.centre), *enumerate(self.boards)):
            one.died = lambda who=who: self._arm(who)  # type: ignore[misc]
            self._arm(who)
            one.start()
        does = {"broker": lambda t: self.broker.restart(t.much), "partition": self._partition, "ask": self._ask}
        for trouble in self.schedule.troubles:
            if trouble.kind in does:
                self.time.after(trouble.at, partial(does[trouble.kind], trouble))

    def _arm(self, who: int) -> None:
        """Plan the next end of somebody."""
        if self._ends[who]:
            trouble = self._ends[who].pop(0)
            (self.centre if who == CENTRE else self.boards[who]).crash_in(
                trouble.at, power=trouble.kind != "kill", files=trouble.kind == "power-file"
            )

    def _partition(self, trouble: Trouble) -> None:
        session = self.broker.sessions.get(NAME if trouble.who == CENTRE else self.boards[trouble.who].name)
        if session is not None and session.wanted:
            self.broker.cut(session, trouble.much)

    def _ask(self, trouble: Trouble) -> None:
        """Let an operator ask a board for a snapshot."""
        self.centre.ask_snapshot(self.boards[trouble.who].name, MODEL, self.time.seconds())

    def _live(self) -> None:
        calm, count = False, 0
        while self.time.step() and not self.played.failures:
            count += 1
            if not calm and self.time.now > PATIENCE / 2:  # what has not happened by now happens no more
                calm = True
                self.chance.calm()
                self.centre.crash_in(0)
                for board in self.boards:
                    board.crash_in(0)
            if not count % 16 and self.centre.store is not None and all(board.settled() for board in self.boards):
                return
            if self.time.now > PATIENCE or count > MOST_EVENTS:
                stuck = [board.name for board in self.boards if not board.settled()]
                self.played.failures.append(f"{', '.join(stuck) or 'the centre'} never settled")

    def _compare(self) -> None:
        found = compared(self.centre, self.boards)
        self.played.versions, self.played.lost, self.played.diverged = found.versions, found.lost, found.diverged
        self.played.failures += found.failures


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of all that is played in this process and those that it starts; gone with this one."""
    return tempfile.TemporaryDirectory(prefix="schedules-", dir=MEMORY if in_memory() else None)


@cache
def made(boards: int) -> Path:
    """Return a folder with a registry and boards that nobody has started yet: each schedule begins with a copy."""
    folder = Path(_kept().name).resolve() / f"made-{boards}-{os.getpid()}"
    folder.mkdir()
    time, steps = Timeline(), Steps()
    broker = Broker(time, Random(0), CALM)
    with seeded(0, time), quiet(), parsed_once():
        (folder / "centre").mkdir()
        centre = SimulatedCentre(time, broker, folder / "centre", Random(0), steps, bases()[:1], files_from=FILES_FROM)
        centre.start()
        for i in range(boards):
            board = RealBoard(time, broker, Random(0), f"pi-{i}", folder / f"pi-{i}", steps, EVERY, 0)
            board.make()
            centre.admit(board.name, board.key)
        centre.stop()
    return folder


def _absent(names: list[str], boards: int) -> set[str]:
    """Return which of these names are folders of boards that a schedule does not have."""
    return {name for name in names if name.startswith("pi-") and int(name[3:]) >= boards}


def play(schedule: Schedule, planted: Planted | None = None) -> Played:
    """Play a schedule, and return what came of it. planted: a bug that is there meanwhile."""
    source = made(max(BOARDS, schedule.boards))
    with tempfile.TemporaryDirectory(dir=source.parent) as place, ExitStack() as stack:
        folder = Path(place) / "fleet"
        shutil.copytree(source, folder, symlinks=True, ignore=lambda _, names: _absent(names, schedule.boards))
        one = Play(schedule, folder)
        stack.enter_context(parsed_once())
        stack.enter_context(seeded(schedule.seed, one.time))
        stack.enter_context(quiet())
        stack.enter_context(power_vfs().watching(folder, schedule.seed + 1))
        stack.enter_context(one.steps.installed())
        stack.enter_context(one.witness.watching())
        stack.enter_context(planted(one) if planted is not None else nullcontext())
        return one.run()
