"""One fleet's ordeal, from its making to its books: by a number of rounds that each agent makes, or by the clock."""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from tests import broker
from tests.broker import Mosquitto
from tests.soak import books
from tests.soak.books import Books
from tests.soak.havoc import AGENTS, BROKER, INGESTER, Havoc
from tests.soak.slow_link import Weather
from tests.system.fleet import Fleet, Process
from tests.worlds import MODELS, world

REAL, SCRIPTED = "digits", "tiny"  # the model of agents with a TFLite runtime, and of those whose training is a script
FAST = {
    "link.resend": "1s", "link.resend_max": "4s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "link.window": "8",
    "train.epochs": "1", "train.margin": "1000", "train.min_samples": "8", "update.coalesce_after": "1000000", "store.history": "0",
}  # fmt: skip
OVER = "Outgoing messages are being dropped"  # what mosquitto logs when a queue is full
SAYS = 5.0  # seconds between two lines of progress
STUCK = 300.0  # seconds without one update more at the centre, and nobody done: then something hangs


class Fallen(Exception):
    """A process of the fleet ended that should not have, or nothing moves any more."""


@dataclass(frozen=True)
class Plan:
    """What the fleet is and what it goes through. rounds: of each agent; or `seconds` by the clock, and as many rounds as they hold."""

    agents: int
    kills: int = 0  # at the least, spread over all updates; by the clock: over the time
    rounds: int = 0
    seconds: float = 0.0
    seed: int = 0
    real: int = 0  # of the agents train by a TFLite runtime; with the others a script stands in for it
    slow: int = 0  # of the agents are behind a slow link
    weather: Weather = field(default_factory=Weather)
    queue: int = 100_000  # messages that the broker holds for a client
    freeze: float = 0.0  # seconds that the ingester is stopped once, half-way
    pause: float = 0.0  # seconds between two rounds of an agent, by the clock


@dataclass
class Outcome:
    """What came of it."""

    books: Books
    kills: dict[str, int]
    reconnects: int
    overflows: int  # times that the broker said it drops what its queue can't hold
    seconds: float

    def figures(self) -> dict[str, int | float]:
        """Return the counts by name, for the table and for JSON."""
        b = self.books
        return {
            "updates": b.made, "stored": b.stored, "verified": b.verified, "lost": len(b.lost), "doubled": len(b.doubled),
            "diverged": len(b.diverged), **{f"kills_{kind}": self.kills[kind] for kind in (BROKER, INGESTER, AGENTS)},
            "reconnects": self.reconnects, "queue_overflows": self.overflows, "seconds": round(self.seconds, 1),
        }  # fmt: skip


def endure(folder: Path, plan: Plan, say: Callable[[str], None] = lambda text: None) -> Outcome:
    """Make a fleet in `folder`, let it go through the plan, and close its books. Raises Fallen."""
    began = time.monotonic()
    with broker.mosquitto(folder, queue=plan.queue) as hub, _fleet(folder, plan, hub, say) as one:
        ordeal = Ordeal(one, hub, plan, say)
        ordeal.live()
        say("comparing the lists of both sides, each version rebuilt at the centre")
        closed = books.close(one, ordeal.models)
        reconnects = sum(p.ever_said("connected to") - p.starts for p in one.devices.values())
        return Outcome(closed, dict(ordeal.kills), max(0, reconnects), _overflows(hub), time.monotonic() - began)


@contextmanager
def _fleet(folder: Path, plan: Plan, hub: Mosquitto, say: Callable[[str], None]) -> Iterator[Fleet]:
    """Make the fleet of a plan and start nothing but the slow link, which ends with the `with` block as all else does."""
    made = Fleet(folder / "fleet", hub.url, inside=True)
    link = None
    try:
        url = hub.url
        if plan.slow:
            port = broker.free_port()
            command = [sys.executable, "-m", "tests.soak.slow_link", str(port), str(hub.port), *plan.weather.words(), f"--seed={plan.seed}"]
            link = Process("slow link", command, folder / "slow_link.log")
            link.start()
            url = f"mqtt://127.0.0.1:{port}"
        for model in {REAL} if plan.real == plan.agents else {REAL, SCRIPTED} if plan.real else {SCRIPTED}:
            made.add_base(model)
        for n in range(plan.agents):
            _add(made, plan, n, url if n < plan.slow else hub.url)
            if n % 5 == 4:
                say(f"{n + 1} of {plan.agents} devices are made")
        yield made
    finally:
        made.ingester.resume()
        made.close()
        if link is not None:
            link.kill()


def _add(fleet: Fleet, plan: Plan, n: int, url: str) -> None:
    """Make one device and give it samples. The first ones have a slow link, the last ones a real runtime."""
    name, real = f"pi-{n}", n >= plan.agents - plan.real
    model = REAL if real else SCRIPTED
    until = ("--rounds", str(plan.rounds or 10**9), *(("--pause", f"{plan.pause}s") if plan.pause else ()))
    settings = {**FAST, "train.learning_rate": "0.02", "spool.max_samples": "200"}
    program = "edgeagent" if real else "tests.soak.scripted_agent"
    fleet.add_device(name, {model: MODELS / f"{model}.tflite"}, settings, *until, url=url, program=program)
    with fleet.spool(name) as spool:
        if real:
            x, y = world(model, n).stream(0, 96)
        else:
            x = np.random.default_rng(n).normal(size=(32, 4)).astype(np.float32)
            y = x[:, :3].argmax(1)
        spool.extend(model, x, y.tolist())


class Ordeal:
    """The fleet while it goes through its plan."""

    def __init__(self, fleet: Fleet, hub: Mosquitto, plan: Plan, say: Callable[[str], None]) -> None:
        self.fleet, self.hub, self.plan, self.say = fleet, hub, plan, say
        self.models = {name: REAL if n >= plan.agents - plan.real else SCRIPTED for n, name in enumerate(fleet.devices)}
        self._rng = random.Random(plan.seed)
        self._havoc = Havoc(fleet, hub, self._rng)
        self._said = self._moved = time.monotonic()
        self._last: tuple[int, int] = (0, 0)
        self._frozen = not plan.freeze
        self._began = time.monotonic()

    @property
    def kills(self) -> dict[str, int]:
        return {kind: self._havoc.kills[kind] for kind in (BROKER, INGESTER, AGENTS)}

    def live(self) -> None:
        """Go through it all: afterwards no process runs, and whatever was made has had its last word. Raises Fallen."""
        self.fleet.ingester.start()
        for process in self.fleet.devices.values():
            process.start()
        if self.plan.rounds:
            self._by_rounds()
        else:
            for process in (self.fleet.ingester, *self.fleet.devices.values()):
                self._until(partial(process.said, "connected to"))
            self._began = time.monotonic()
            self._by_the_clock()
        if (code := self._stopped(self.fleet.ingester)) != 0:
            raise Fallen(f"the ingester ended with {code}:\n{self.fleet.ingester.tail()}")

    def stored(self) -> int:
        """Return how many versions the registry holds now."""
        database = sqlite3.connect(f"file:{self.fleet.db}?mode=ro", uri=True, timeout=30)
        try:
            return int(database.execute("SELECT count(*) FROM version").fetchone()[0])
        finally:
            database.close()

    def _by_rounds(self) -> None:
        """Strike each time that so many updates more are at the centre, until all rounds are made and verified."""
        total = self.plan.agents * self.plan.rounds
        # By what is done, not by the clock: a busy machine would come to nothing. The end is the harder part, so they go on into it.
        marks = sorted((self._rng.uniform(0.0, 0.98) * total for _ in range(self.plan.kills)), reverse=True)
        while not self._all_done():
            stored = self._look(total)
            if not self._frozen and stored >= 0.4 * total:
                self._freeze(total)
            if marks and stored >= marks[-1]:
                marks.pop()
                self._havoc.strike()
            else:
                time.sleep(self._rng.uniform(0.05, 0.2))

    def _by_the_clock(self) -> None:
        """Strike at random moments until the time is over; then let all that was made arrive."""
        plan, end = self.plan, self._began + self.plan.seconds
        every = plan.seconds / max(1, plan.kills)
        while (now := time.monotonic()) < end:
            next_one = min(end, now + self._rng.expovariate(1 / every))
            while time.monotonic() < next_one:
                self._look()
                time.sleep(min(0.2, max(0.0, next_one - time.monotonic())))
            if not self._frozen and time.monotonic() - self._began > plan.seconds / 3:
                self._freeze()
            if time.monotonic() < end:
                self._havoc.strike()
        self.say("the time is over: nothing more is made, what waits is sent")
        for name, process in self.fleet.devices.items():
            if (code := self._stopped(process)) != 0:
                raise Fallen(f"{name} ended with {code} when it was asked to stop:\n{process.tail()}")
            rounds = process.command.index("--rounds") + 1
            process.command[rounds] = "1"  # they have been made: it ends when all it has is verified
            process.start()
        while not self._all_done():
            self._look()
            time.sleep(0.2)

    def _stopped(self, process: Process) -> int:
        """Return the exit code of who was asked to end, once it could hear that: a start may have been a moment ago."""
        self._until(lambda: not process.running or process.said("connected to") > 0)
        return process.stop()

    def _freeze(self, total: int = 0) -> None:
        """Stop the ingester for a while; boards die meanwhile, and the broker lives, so that its queue fills."""
        self._frozen = True
        self.say(f"the ingester is stopped for {self.plan.freeze:g} s")
        strikes = [self.plan.freeze * self._rng.random() for _ in range(2)]
        began = time.monotonic()

        def meanwhile() -> None:
            self._moved = time.monotonic()
            self._look(total)
            if strikes and time.monotonic() - began > min(strikes):
                strikes.remove(min(strikes))
                self._havoc.strike_agent()
            time.sleep(0.1)

        self._havoc.pause_ingester(self.plan.freeze, meanwhile)
        self.say(f"the ingester goes on; the broker has said {_overflows(self.hub)} times that it drops messages")

    def _all_done(self) -> bool:
        return all(process.code == 0 for process in self.fleet.devices.values())

    def _look(self, total: int = 0) -> int:
        """Say how far all is from time to time, and return how many versions are stored. Raises Fallen."""
        for name, process in self.fleet.devices.items():
            if process.code not in (None, 0):  # whoever was killed has been started again by now
                raise Fallen(f"{name} ended with {process.code}:\n{process.tail()}")
        if not self.fleet.ingester.running:
            raise Fallen(f"the ingester ended with {self.fleet.ingester.code}:\n{self.fleet.ingester.tail()}")
        stored, now = self.stored(), time.monotonic()
        done = sum(process.code == 0 for process in self.fleet.devices.values())
        if (stored, done) != self._last:
            self._last, self._moved = (stored, done), now
        if now - self._moved > STUCK:
            raise Fallen(f"nothing moved for {STUCK:g} s: {stored} versions are stored, {done} devices are done")
        if now - self._said >= SAYS:
            self._said = now
            killed = ", ".join(f"{kind} {count}" for kind, count in self.kills.items())
            self.say(f"{stored} updates stored{f' of {total}' if total else ''}, {done} devices done; kills: {killed}")
        return stored

    def _until(self, reached: Callable[[], object]) -> None:
        end = time.monotonic() + STUCK
        while not reached():
            if time.monotonic() > end:
                raise Fallen(f"nothing moved for {STUCK:g} s")
            time.sleep(0.1)


def _overflows(hub: Mosquitto) -> int:
    return hub.log.read_bytes().count(OVER.encode())
