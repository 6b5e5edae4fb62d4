"""A broker that drops, doubles, delays, replays and flips what it carries, between a real agent and a real centre in memory; by a seed.

What is compared at the end is what each side says of every version number of the device.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeagent.link.transport import Accepted, Arrived, Connected, Event, Will, Woken
from edgeagent.service.agent import Agent
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.state.folder import open_folder
from edgeagent.state.lineage import Lineage
from edgeagent.system.clock import Clock
from edgecloud.intake.decision import Bounds, Reply
from edgecloud.registry import LineageRow, SqliteStore, TrustRow, VersionRow, backup, create_registry, open_registry
from modelwire.errors import DigestMismatch
from modelwire.wire import records, topics
from tests import keys
from tests.edgeagent import boards
from tests.edgeagent.by_hand import train_on
from tests.edgeagent.centre import FakeClock
from tests.edgecloud.centre import Centre, add_base, admit
from tests.edgecloud.device import Base

FLEET, DEVICE, MODEL = "home", "pi-7", "tiny"
SETTINGS = {"link__resend": "5s", "link__resend_max": "40s"}
LONG = 3600.0  # seconds of the tests' clock in which both sides come to rest


@dataclass
class Faults:
    """What happens to a message, as shares of all of them; and whether the centre is heard at all."""

    drop: float = 0.25
    double: float = 0.1
    delay: float = 0.2
    replay: float = 0.1
    flip: float = 0.05
    muted: bool = False


HONEST = Faults(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass
class Compared:
    """What a comparison found."""

    versions: int = 0
    disagreements: list[str] = field(default_factory=list)
    states: dict[int, str] = field(default_factory=dict)  # as the device says


class LyingBroker:
    """The transport of one agent, with the centre behind it; what it does wrong comes from a seed."""

    largest = 96 * 1024

    def __init__(self, centre: Centre, clock: FakeClock, rng: random.Random, faults: Faults = HONEST) -> None:
        self.centre, self.clock, self.rng, self.faults = centre, clock, rng, faults
        self.carried = 0
        self.said_before: list[tuple[str, str, bytes]] = []  # way, topic, bytes
        self._at: list[tuple[float, int, str, str, bytes]] = []
        self._queue: list[Event] = []
        self.stood_aside: list[str] = []
        self._tickets = 0
        self._up = False

    # As a transport.

    def open(self, will: Will, listen: Sequence[str]) -> None:
        self._up = True
        self._queue = [Connected()]

    def poll(self, timeout: float) -> Event | None:
        end = self.clock.now + timeout
        while True:
            self._work()
            if self._queue:
                return self._queue.pop(0)
            if self.clock.now >= end:
                return None
            self.clock.now = min([end, *(max(at, self.clock.now) for at, *_ in self._at[:1])])

    def send(self, topic: str, data: bytes, *, retain: bool = False) -> int:
        self._tickets += 1
        self._queue.append(Accepted(self._tickets))  # a broker acknowledges what it then loses
        self._carry("up", topic, data)
        return self._tickets

    def acknowledge(self, message: Arrived) -> None:
        pass

    def stand_aside(self, why: str) -> None:
        self.stood_aside.append(why)

    def wake(self) -> None:
        self._queue.append(Woken())

    def close(self, farewell: Will | None = None) -> None:
        self._up = False
        self._queue.clear()

    # As a liar.

    def replay(self, way: str, leaf: str) -> None:
        """Say something of a leaf again that was said before."""
        old = [m for m in self.said_before if m[0] == way and topics.parse(m[1]).leaf == leaf]
        if old:
            self._later(0.0, *self.rng.choice(old))

    def _carry(self, way: str, topic: str, data: bytes) -> None:
        f, rng = self.faults, self.rng
        self.carried += 1
        self.said_before.append((way, topic, data))
        if f.muted and way == "down":
            self.replay("down", "cmd")
            return
        if rng.random() < f.drop:
            return
        if rng.random() < f.flip:
            at = rng.randrange(len(data))
            self._later(0.0, way, topic, data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
            return
        for _ in range(2 if rng.random() < f.double else 1):
            self._later(rng.uniform(0.5, 60.0) if rng.random() < f.delay else 0.0, way, topic, data)
        if rng.random() < f.replay:
            self._later(rng.uniform(0.0, 10.0), *rng.choice(self.said_before))

    def _later(self, seconds: float, way: str, topic: str, data: bytes) -> None:
        self._at.append((self.clock.now + seconds, self.carried, way, topic, data))
        self._at.sort(key=lambda one: one[:2])

    def _work(self) -> None:
        """Deliver what is due; the centre rebuilds after each message."""
        while self._at and self._at[0][0] <= self.clock.now:
            _, _, way, topic, data = self._at.pop(0)
            if way == "down":
                if self._up:
                    self._queue.append(Arrived(topic, data, 0))
                continue
            self.centre.now = int(self.clock.wall())
            self.centre.take((topic, data))
            self.centre.rebuild()
            replies = [*self.centre.replies]
            self.centre.replies.clear()
            for reply in replies:
                self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        self._carry("down", reply.topic, reply.encode(keys.RECEIPT, keys.FLEET_ID))


class World:
    """A board and a centre with a broker between them that may lie."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.db = folder, folder / "fleet.db"
        self.clock, self.rng = FakeClock(), random.Random(seed)
        self.ahead = 0.0  # seconds by which the board's own clock is
        self.refused: set[int] = set()  # versions that the centre finds wrong when it rebuilds them
        trust = TrustRow(1, records.encode(keys.trust(FLEET), keys.ROOT, keys.FLEET_ID))
        create_registry(self.db, fleet=FLEET, identity=keys.FLEET, trust=trust, now=1)
        store = open_registry(self.db, synchronous="OFF")
        add_base(store, Base.of())
        admit(store, DEVICE, boards.PUBLIC, 1)
        self.broker = LyingBroker(self._centre(store), self.clock, self.rng)
        boards.make(folder / "board", **SETTINGS)

    def _centre(self, store: SqliteStore) -> Centre:
        centre = Centre(store, Bounds(orphan_seconds=30))
        build = centre.rebuilder._build

        def judged(lineage: LineageRow, version: VersionRow) -> None:
            build(lineage, version)
            if version.version in self.refused:
                raise DigestMismatch(what=f"the root of @{version.version}", got="another", expected="this one")

        centre.rebuilder._build = judged  # type: ignore[method-assign]
        return centre

    @property
    def store(self) -> SqliteStore:
        return self.broker.centre.store

    def restore(self, copy: Path) -> None:
        """Put a copy in the place of the registry, and let a new ingester go on with it."""
        self.store.close()
        backup.restore(copy, self.db, progress=_quiet, replace=True)
        self.broker.centre = self._centre(open_registry(self.db, synchronous="OFF"))

    def serve(self, seconds: float, *, bursts: Sequence[int] = (), faults: Faults = HONEST) -> Compared:
        """Run the agent for so long, with bursts of so many rounds spread over it, and return what both sides say then."""
        self.broker.faults = faults
        loaded = reading.load(self.folder / "board" / reading.FILE, environment={}, flags={})
        with open_folder(loaded, alone=True) as device:
            agent = Agent(
                device, self.broker, boards.scripted, "test", clock=Clock(self.clock.monotonic, self.wall), rng=self.rng
            )
            if not device.spool.count(MODEL):
                boards.fill(device)
            for burst in (*bursts, 0):
                self._let(agent, seconds / (len(bursts) + 1))
                for _ in range(burst if device.lineages[MODEL].head().epoch else 0):
                    train_on(device, self.wall)
                if burst > 2:
                    device.lineages[MODEL].coalesce()
            return compare(device.lineages[MODEL], self.store)

    def wall(self) -> float:
        """Return the board's time, in Unix seconds."""
        return self.clock.wall() + self.ahead

    def _let(self, agent: Agent, seconds: float) -> None:
        end = self.clock.now + seconds
        agent.stopping = ""
        tick = agent.sessions[MODEL].tick

        def until(now: float) -> None:
            tick(now)
            if now >= end:
                agent.stop("test")

        agent.sessions[MODEL].tick = until  # type: ignore[method-assign]
        try:
            agent.run(Goal())
        finally:
            agent.sessions[MODEL].tick = tick  # type: ignore[method-assign]

    def close(self) -> None:
        self.store.close()


def measure(folder: Path, seed: int) -> Compared:
    """Return how far a board and a centre agree after all that a broker can do, versions that can't be rebuilt, and a restored backup.

    The backup is of the middle of the run; the centre is muted for a while after it, with old welcomes said again.
    """
    world, rng = World(folder, seed), random.Random(seed)
    try:
        world.serve(60)
        world.refused = {rng.randrange(2, 60) for _ in range(6)}
        world.serve(500, bursts=[rng.choice((1, 1, 2, 3, 5)) for _ in range(25)], faults=Faults(delay=0.4))
        backup.backup(world.db, folder / "middle.db", progress=_quiet)
        world.serve(120, bursts=(2, 2, 2), faults=Faults(muted=True))
        world.serve(60, bursts=(3, 3), faults=Faults(delay=0.4))
        world.restore(folder / "middle.db")
        world.serve(200, bursts=(1, 2, 1), faults=Faults(delay=0.4))
        return world.serve(LONG)
    finally:
        world.close()


def figures(folder: Path, seeds: Sequence[int] = range(1, 9)) -> dict[str, int]:
    """Return how many versions were compared over several seeds, and of how many the two sides said something else."""
    found = []
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir(parents=True)
        found.append(measure(place, seed))
    return {"versions_compared": sum(f.versions for f in found), "versions_disagreeing": sum(len(f.disagreements) for f in found)}


def _quiet(done: int, total: int) -> None:
    pass


def compare(lineage: Lineage, store: SqliteStore) -> Compared:
    """Return what the device and the registry say of each version number of the device."""
    out = Compared()
    row = store.lineages.get(DEVICE, MODEL)
    assert row is not None
    held = {v.version: v for v in store.versions.of(row.id)}
    lost = {one.version for one in store.losses.of(row.id)}
    carried = {n: v.version for v in held.values() for first, last in store.versions.skipped(v.id) for n in range(first, last + 1)}
    mine = {int(r["version"]): r for r in lineage.versions() if r["version"] is not None}
    for n in sorted({*mine, *held, *lost}):
        device = mine.get(n)
        ours = _device_says(device)
        refused = {r.commit: r.reason for r in store.refusals.numbered(DEVICE, MODEL, device["epoch"], n)} if device is not None else {}
        if device is not None and n in held and held[n].commit == device["commit_id"]:
            v = held[n]
            theirs = v.status.value + (f": {v.reason}" if v.reason else "")
        elif device is not None and device["commit_id"] in refused:
            theirs = f"refused: {refused[device['commit_id']]}"
        elif n in lost:
            theirs = "lost"
        elif n in held:  # another update under this number
            theirs = "lost" if device is not None else f"{held[n].status.value}, of which the board knows nothing"
        elif n in carried:
            theirs = f"carried by @{carried[n]}"
        elif device is not None and device["state"] == "skipped" and _gone(mine, device, held):
            theirs = ours  # so is what carries it
        else:
            theirs = "nothing"
        out.versions += 1
        out.states[n] = ours
        if ours != theirs:
            out.disagreements.append(f"@{n}: the device says {ours!r}, the centre {theirs!r}")
    return out


def _device_says(row: object) -> str:
    if row is None:
        return "nothing"
    state, reason, by = row["state"], row["reason"], row["carried_by"]  # type: ignore[index]
    if state == "skipped":
        return f"carried by @{by}"
    return f"refused: {reason}" if state == "refused" else str(state)


def _gone(mine: dict[int, object], row: object, held: dict[int, object]) -> bool:
    """Return whether what carries a number was refused or lost itself: the comparison of that one counts."""
    by = mine.get(row["carried_by"])  # type: ignore[index]
    return by is not None and row["carried_by"] not in held  # type: ignore[index]
