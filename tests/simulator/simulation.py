"""One run of a script: builds the fleet, lets it live until every update has its last word, and has all of it audited."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from edgecloud.registry import SqliteStore, open_registry
from modelwire.tflite.file import write_weights
from tests.edgecloud.device import Base
from tests.simulator import rot
from tests.simulator.audit import Remembered, Verdict, audit, wrong_in_log
from tests.simulator.boards import RealBoard
from tests.simulator.broker import CALM, Broker
from tests.simulator.centre import CentreCounts, SimulatedCentre, Work
from tests.simulator.crashes import Steps
from tests.simulator.light import LightDevice
from tests.simulator.script import MOST_WRITES, Fault, Script
from tests.simulator.timeline import Timeline, quiet, seeded
from tests.simulator.works import POLICIES, WORKS, erase, purge, set_policy

PATIENCE = 3 * 3600.0  # seconds of the simulated clock after the last update, in which all must have settled
AGAIN = 50  # one version of so many is recovered a second time, by itself


@dataclass
class Report:
    """What came of a run."""

    script: Script
    digest: str = ""
    events: int = 0
    simulated: float = 0.0  # seconds of the simulated clock
    took: float = 0.0  # seconds of this machine
    updates: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    centre: CentreCounts = field(default_factory=CentreCounts)
    board_crashes: Counter[str] = field(default_factory=Counter)
    messages: dict[str, int] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    looked: int = 0  # versions that were audited on the way
    unsettled: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # of the registry's file and its log
    rotten: list[str] = field(default_factory=list)  # what was damaged on purpose

    @property
    def failures(self) -> list[str]:
        """What may never be: silent divergence, a registry that is not whole, a fault of the program, a device without an answer."""
        stuck = [] if self.rotten else [f"{name} never settled" for name in self.unsettled]
        faults = [f"{self.centre.faults} messages met a fault of the program"] if self.centre.faults else []
        return self.verdict.diverged + self.problems + faults + stuck

    def lines(self) -> Iterator[str]:
        """Yield what a person reads of it."""
        yield f"{self.script}"
        yield f"  {self.updates} updates in {self.simulated / 3600:.1f} simulated hours, {self.events} events, {self.took:.0f} s here"
        yield f"  messages: {', '.join(f'{n} {what}' for what, n in self.messages.items() if n)}"
        yield f"  faults: {', '.join(f'{n} x {what}' for what, n in sorted(self.faults.items()))}"
        yield f"  centre: {self.centre.starts} starts, killed at {_counted(self.centre.crashes)}"
        yield f"  boards: killed at {_counted(self.board_crashes)}"
        yield f"  centre took: {_counted(self.centre.results)}; works: {_counted(self.centre.works)}"
        yield f"  on the way {self.looked} versions were audited"
        yield f"  versions: {self.verdict.versions}, exact {self.verdict.exact}, silently diverged {len(self.verdict.diverged)}"
        for name, count in sorted(self.verdict.named.items()):
            yield f"    {name}: {count}, such as {self.verdict.examples[name][:150]}"
        for one in self.failures[:20]:
            yield f"  FAILED: {one}"
        yield f"  digest {self.digest}"


class Simulation:
    """A fleet that lives by a script."""

    def __init__(self, script: Script, folder: Path, *, works: Sequence[Work] = WORKS, progress: bool = False) -> None:
        """folder: an empty one. progress: tell on stderr how far it is."""
        self.script, self.folder, self._progress = script, folder, progress
        self.time, self.steps = Timeline(), Steps()
        rng = Random(f"fleet {script.seed}")
        self.broker = Broker(self.time, Random(f"network {script.seed}"), script.weather)
        (folder / "centre").mkdir()
        self.centre = SimulatedCentre(
            self.time, self.broker, folder / "centre", Random(rng.random()), self.steps, bases(), works=works
        )
        # A round of a real board takes a hundred times what a light device's update takes.
        quota, light = min(script.updates // script.devices, 15 + script.updates // 1000), script.devices - script.boards
        left = script.updates - quota * script.boards if light else 0
        self.boards = [
            RealBoard(self.time, self.broker, Random(rng.random()), f"pi-{i}", folder / f"pi-{i}", self.steps, script.habits.every, quota)
            for i in range(script.boards)
        ]
        self.light = [
            LightDevice(
                self.time, self.broker, Random(rng.random()), f"light-{i}", bases(), script.habits, left // light + (i < left % light)
            )
            for i in range(light)
        ]
        self._faults = list(script.faults)
        self._rng = Random(f"faults {script.seed}")
        self._report = Report(script)

    @property
    def made(self) -> int:
        return sum(d.made for d in self.light) + sum(b.made for b in self.boards)

    def run(self) -> Report:
        """Live through the script and return what came of it."""
        began = time.monotonic()
        with seeded(self.script.seed, self.time), self.steps.installed(), quiet():
            self._start()
            self._live(began)
            self._settle(began)
            self._judge()
        self._report.took = time.monotonic() - began
        return self._report

    def _start(self) -> None:
        self.centre.start()
        for one in (*self.light, *self.boards):
            self.centre.admit(one.name, one.key)
            one.start()

    def _live(self, began: float) -> None:
        shown, looked, made, end = began, 0, 0, PATIENCE
        wanted = sum(one.quota for one in (*self.light, *self.boards))
        while self.time.step() and self.time.now < end and made < wanted:
            looked += 1
            if looked % 64:
                continue
            if self.made > made:
                made, end = self.made, self.time.now + PATIENCE
            while self._faults and self._faults[0].at <= made:
                self._befall(self._faults.pop(0))
            shown = self._tell(shown, began, f"{made} of {wanted} updates")
        self._report.updates = self.made

    def _settle(self, began: float) -> None:
        """Let the weather clear up and everybody say the rest."""
        self.broker.weather = CALM
        self.centre.crash_in(0)
        for board in self.boards:
            board.crash_in(0)
        end, looked, shown = self.time.now + PATIENCE, 0, time.monotonic()
        while self.time.now < end and self.time.step():
            looked += 1
            if not looked % 256:
                shown = self._tell(shown, began, "all updates are made, the rest is said")
            if not looked % 256 and self.centre.store is not None and all(one.settled() for one in (*self.light, *self.boards)):
                break
        while self.centre.store is None and self.time.step():
            pass

    def _tell(self, shown: float, began: float, what: str) -> float:
        now = time.monotonic()
        if not self._progress or now - shown < 5:
            return shown
        kills = sum(self.centre.counts.crashes.values())
        print(f"{now - began:5.0f} s  {what}, {self.centre.counts.verified} verified, centre killed {kills} times", file=sys.stderr)
        return now

    def _befall(self, fault: Fault) -> None:
        """Let a fault of the script happen now."""
        number, kind = fault.number, fault.kind
        anyone = (*self.light, *self.boards)
        self._report.faults[kind] += 1
        self.time.note(f"fault {kind} {number}")
        if kind in ("kill centre", "tear centre"):
            self.centre.crash_in(1 + number % MOST_WRITES, torn=kind.startswith("tear"))
        elif kind == "restart centre":
            if self.centre.store is not None:
                self.centre.stop()
                self.time.after(5.0, self.centre.start)
        elif kind == "kill board" and self.boards:
            self.boards[number % len(self.boards)].crash_in(1 + number % 120)
        elif kind == "cut centre":
            session = self.broker.sessions.get("edgecloud.orchard")
            if session is not None:
                self.broker.cut(session, 1.0 + number % 300)
        elif kind == "cut device":
            anyone[number % len(anyone)].cut(1.0 + number % 3600)
        elif kind == "restart broker":
            self.broker.restart(1.0 + number % 60)
        elif kind == "reflash" and self.light:
            self.light[number % len(self.light)].reflash()
        elif kind == "ask snapshot":
            self._ask(number)
        elif kind == "policy" and self.centre.store is not None:
            set_policy(self.centre.store, POLICIES[number % len(POLICIES)], self.time.seconds())
        elif kind == "audit" and self.centre.store is not None:
            found = self._audit(self.centre.store)
            self._report.problems += found.diverged
            self._report.looked += found.versions
        elif kind == "purge" and self.light:
            name = self.light[number % len(self.light)].name
            self.centre.do(lambda store: purge(store, name, self.time.seconds()))
        elif kind == "erase" and self.light and self.centre.store is not None:
            gone = self.light[number % len(self.light)]
            if erase(self.centre.store, gone.name, self.time.seconds()):
                left = gone.leave()
                heirs = [one for one in self.light if not one.left]
                if heirs:
                    heirs[number % len(heirs)].take_over(left)
        elif kind == "rot" and self.centre.store is not None:
            self._report.rotten.append(rot.flip_blob(self.centre.store, Random(number)))

    def _ask(self, number: int) -> None:
        anyone = (*self.light, *self.boards)
        one = anyone[number % len(anyone)]
        self.centre.ask_snapshot(one.name, "digits" if isinstance(one, LightDevice) else "tiny", self.time.seconds())

    def remembered(self) -> Remembered:
        """Return what the devices know of what they have made; boards that are down just now are not asked."""
        light = {f"{d.name}/digits": list(d.past()) for d in self.light}
        return light | {f"{b.name}/tiny": list(b.past()) for b in self.boards if b.device is not None}

    def _audit(self, store: SqliteStore, remembered: Remembered | None = None) -> Verdict:
        """Hold what the centre has now against what the devices remember."""
        keys = {one.name: one.key for one in (*self.light, *self.boards)}
        known = remembered if remembered is not None else self.remembered()
        return audit(store, known, keys, again=self.made // AGAIN, rng=Random(self.script.seed))

    def _judge(self) -> None:
        report, time = self._report, self.time
        report.unsettled = [one.name for one in (*self.light, *self.boards) if not one.settled()]
        remembered = self.remembered()
        self.centre.stop()
        for board in self.boards:
            board.stop()
        store = open_registry(self.centre.path, synchronous="OFF")
        try:
            report.verdict = self._audit(store, remembered)
            report.problems += [] if report.rotten else store.problems() + wrong_in_log(store)
        finally:
            store.close()
        report.digest, report.events, report.simulated = time.digest, time.noted, time.now
        report.centre = self.centre.counts
        report.messages = vars(self.broker.counts)
        for board in self.boards:
            report.board_crashes += board.crashes


@cache
def bases() -> tuple[Base, ...]:
    """Return the bases of all simulated fleets: a tiny net, and one with the same tensors and other weights."""
    first = Base.of()
    weights = first.manifest.schema.shaped([w * np.float32(1.5) for w in first.weights])
    return first, Base(write_weights(first.parsed, weights))


def simulate(script: Script, folder: Path, *, works: Sequence[Work] = WORKS, progress: bool = False) -> Report:
    """Run a script in `folder`, which is made for it and gone afterwards."""
    folder.mkdir(parents=True)
    try:
        return Simulation(script, folder, works=works, progress=progress).run()
    finally:
        shutil.rmtree(folder)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{n} x {what}" for what, n in counts.most_common(8)) or "nothing"
