"""A real board: the agent's own session, state folder and rounds on a link of the simulator. Only what it learns is scripted.

It can be killed at any write of its own, as the centre can; the next start is on what its files held at that moment.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

from edgeagent.commands.train import finish
from edgeagent.link.transport import Accepted, Arrived, Connected, Event, Lost, Will
from edgeagent.rounds import round as rounds
from edgeagent.service.agent import Agent
from edgeagent.settings import reading
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from modelwire.errors import LinkError, ModelWireError, TooLarge
from modelwire.wire import topics
from modelwire.wire.signing import PrivateKey
from tests.edgeagent.boards import fill, make_with, scripted, standing
from tests.edgecloud.device import FLEET
from tests.simulator.broker import LARGEST, Broker, Session
from tests.simulator.crashes import Crash, Steps
from tests.simulator.made import CARRIED, GIVEN_UP, VERIFIED, WAITING, Made
from tests.simulator.timeline import Timeline
from tests.simulator.vfs import DiskSteps

MODEL = "tiny"
START = 5.0  # seconds that a start takes
LOOK = 60.0  # at the longest between two turns of its loop: what happens and what is due ask for one
MOST_WAITING = 8
FATES = {"verified": VERIFIED, "queued": WAITING, "offered": WAITING, "stored": WAITING, "skipped": CARRIED}
SETTINGS = {
    "device.fleet": FLEET, "link.window": "4", "link.resend_max": "5m", "train.epochs": "1", "store.history": "0",
    "update.coalesce_after": "6",
}  # fmt: skip


class BoardLink:
    """The agent's Transport over the broker in memory."""

    largest = LARGEST

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.events: deque[Event] = deque()
        self.session: Session | None = None
        self.turn: Callable[[], None] = lambda: None  # asks for a turn of the agent's loop

    # As a client of the broker.

    def up(self) -> None:
        self._happened(Connected())

    def down(self, why: str) -> None:
        # What came and was not dealt with comes again on the next connection.
        self.events = deque(e for e in self.events if not isinstance(e, (Arrived, Accepted)))
        self._happened(Lost(why))

    def accepted(self, ticket: int) -> None:
        self._happened(Accepted(ticket))

    def arrived(self, topic: str, data: bytes, mid: int) -> None:
        self._happened(Arrived(topic, data, mid))

    def _happened(self, event: Event) -> None:
        self.events.append(event)
        self.turn()

    # As the agent's Transport.

    def open(self, will: Will, listen: Sequence[str]) -> None:
        board = listen[0].split("/")[2]
        self.session = self._broker.connect(board, listen, self, will=(will.topic, will.data))

    def poll(self, timeout: float) -> Event | None:
        return self.events.popleft() if self.events else None

    def send(self, topic: str, data: bytes, *, retain: bool = False) -> int:
        if self.session is None or not self.session.online:
            raise LinkError(broker="memory", reason="the link is down")
        if len(data) > LARGEST:
            raise TooLarge(what="a message", size=len(data), limit=LARGEST)
        return self._broker.publish(self.session, topic, data)

    def acknowledge(self, message: Arrived) -> None:
        assert self.session is not None and isinstance(message.token, int)
        self._broker.acknowledge(self.session, message.token)

    def stand_aside(self, why: str) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self, farewell: Will | None = None) -> None:
        if self.session is not None:
            self._broker.leave(self.session)


class RealBoard:
    """One board, through all its starts. It makes `quota` updates and sends each until there is a last word on it."""

    def __init__(
        self, time: Timeline, broker: Broker, rng: Random, name: str, folder: Path, steps: Steps, every: float, quota: int
    ) -> None:
        """folder: for its state, one within for each of its lives, or one for all where `steps` are those of a disk. What is there is
        a board that was made before. every: seconds on the mean between two rounds.
        """
        self.time, self.broker, self.rng, self.name, self.steps, self.every, self.quota = time, broker, rng, name, steps, every, quota
        self.starts = self.made = 0
        self.crashes: Counter[str] = Counter()
        self._seed = hashlib.sha256(f"board {name}".encode()).digest()
        self._folder = folder
        self._crash_in, self._power, self._files = 0, False, False
        self._planned = False  # a turn
        self.died: Callable[[], None] = lambda: None  # called when it was ended, before it starts again
        self._open = ExitStack()
        self._link = BoardLink(broker)
        self.place = folder / "life-0"
        self.device: DeviceFolder | None = None

    @property
    def key(self) -> bytes:
        return PrivateKey(self._seed).public

    def make(self) -> None:
        """Make its folder, with samples."""
        loaded = make_with(self.place, {**SETTINGS, "device.name": self.name}, seed=self._seed)
        with open_folder(loaded, alone=True) as device:
            fill(device, model=MODEL)

    def start(self) -> None:
        """Start on what its folder holds. Raises what keeps that from being opened."""
        if not self.starts and not self.place.exists():
            self.make()
        self.starts += 1
        self._guarded(self._start)

    def _start(self) -> None:
        loaded = reading.load(self.place / reading.FILE, environment={}, flags={})
        self.device = self._open.enter_context(open_folder(loaded, alone=True))
        self._link = BoardLink(self.broker)
        self._link.turn = lambda: self._turn_soon(0.0)
        clock = Clock(self.time.monotonic, self.time.wall, self.time.sleep)
        self.agent = Agent(self.device, self._link, scripted, "simulated", clock=clock, rng=Random(self.rng.random()))
        self._boot = self.device.count_boot()
        board, life = self.device.board, self.starts
        listen = (topics.all_down(board.fleet, board.device), topics.trust_of_all(board.fleet))
        self._link.open(self.agent._presence(self._boot, False), listen)
        self._turn_soon(0.0)
        self.time.after(self.rng.expovariate(1 / self.every), lambda: self._train(life))

    def crash_in(self, writes: int, *, power: bool = False, files: bool = False) -> None:
        """Let it be killed at that write from now. power: by a power cut; files: SQLite's writes don't count. On a disk alone, these."""
        self._crash_in, self._power, self._files = writes, power, files

    def cut(self, seconds: float) -> None:
        if self.device is not None and self._link.session is not None:
            self.broker.cut(self._link.session, seconds)

    def stop(self) -> None:
        self._crash_in = 0
        if self.device is not None:
            self._close()
            self._link.close()

    def settled(self) -> bool:
        """Return whether there is nothing that it still has to make or to send."""
        return self.made >= self.quota and self.device is not None and not self.lineage.outbox.waiting()

    def past(self) -> Iterator[Made]:
        """Yield all that it ever made, from its own database."""
        for row in self.lineage.versions():
            if row["version"] is not None:
                fate = FATES.get(row["state"], GIVEN_UP)
                yield Made(row["version"], row["commit_id"], row["root"] or b"", row["file_sha256"] or b"", fate)

    # Its life.

    @property
    def lineage(self) -> Lineage:
        assert self.device is not None
        return self.device.lineages[MODEL]

    def _guarded(self, do: Callable[[], object]) -> None:
        if not self._crash_in:
            do()
            return
        try:
            with self.steps.crash_at(self._crash_in, self._keep, power=self._power, files=self._files):
                do()
        except Crash:
            self._die()
        else:
            self._crash_in = max(1, self._crash_in - self.steps.taken)

    def _keep(self) -> None:
        if isinstance(self.steps, DiskSteps):
            return  # it knows what is left
        self._next = self._folder / f"life-{self.starts}"
        shutil.copytree(self.place, self._next, symlinks=True, ignore=shutil.ignore_patterns("*-shm"))

    def _die(self) -> None:
        kind = " ".join(self.steps.names[-1].split()[:3])
        self.crashes[f"{kind}, power" if self._power else kind] += 1
        self.time.note(f"{self.name} {'without power' if self._power else 'killed'} at {kind}")
        if (session := self._link.session) is not None and session.wanted:
            self.broker.leave(session, quietly=True)
        self._close()
        self._crash_in = 0
        if isinstance(self.steps, DiskSteps):
            self.steps.ended(self._folder, self.rng)
        else:
            shutil.rmtree(self.place)
            self.place = self._next
        self.died()
        self.time.after(START, self.start)

    def _close(self) -> None:
        self.device = None
        self._open.close()
        self._open = ExitStack()

    def _turn_soon(self, seconds: float) -> None:
        if not self._planned:
            self._planned = True
            life = self.starts
            self.time.after(seconds, lambda: self._turn(life))

    def _turn(self, life: int) -> None:
        self._planned = False
        if life == self.starts and self.device is not None:
            self._guarded(self._loop)
        if self.device is not None:
            due = min(s.next_due() for s in self.agent.sessions.values()) - self.time.now
            self._turn_soon(min(LOOK, max(0.05, due)))

    def _loop(self) -> None:
        """One turn of `Agent.run`."""
        self.agent._listen(self._boot)
        for session in self.agent.sessions.values():
            session.tick(self.time.now)

    def _train(self, life: int) -> None:
        if life != self.starts or self.device is None:
            return
        head = self.lineage.head()
        if head.epoch and not head.blocked and self.made < self.quota and len(self.lineage.outbox.waiting()) < MOST_WAITING:
            self._guarded(self._round)
        self.time.after(self.rng.expovariate(1 / self.every), lambda: self._train(life))

    def _round(self) -> None:
        assert self.device is not None
        try:
            finish(rounds.run(standing(self.device, model=MODEL, clock=self.agent.clock)))
        except ModelWireError as error:
            self.time.note(f"no round of {self.name}: {error.message}")
            return
        self.made += 1
        self.time.note(f"round of {self.name} @{self.lineage.head().version}")
        self._turn_soon(0.0)
