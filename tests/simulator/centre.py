"""The centre of a simulated fleet: the real ingest, rebuild and log over a real registry, and whatever works beside them.

What `edgecloud.intake.service` does on three threads, one event after the other: commit first, acknowledge and answer after, rebuild
beside it. A crash at any write ends it; it starts again on what was on the disk at that moment.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from edgecloud.audit.signing import require_signed
from edgecloud.intake.decision import Bounds, Reply
from edgecloud.intake.rebuilding import Rebuilder
from edgecloud.intake.routing import Ingest
from edgecloud.registry import SqliteStore, open_registry
from modelwire.wire.topics import all_up
from tests.edgecloud.centre import add_base, admit, ask, make_registry, sign
from tests.edgecloud.device import FLEET, Base
from tests.keys import FLEET_ID, RECEIPT
from tests.simulator.broker import Broker, Session
from tests.simulator.crashes import Crash, Steps, copy_registry
from tests.simulator.timeline import Timeline
from tests.simulator.vfs import DiskSteps

NAME = f"edgecloud.{FLEET}"
BATCH = 100  # messages of a commit
PAUSES = (0.05, 0.5, 3.0)  # seconds that they are waited for: an idle centre, a busy one, and one that has fallen behind
TICK = 30.0  # seconds between two looks at what an operator did
RESEND = 30.0  # seconds after which a command without an answer goes out again
START = 3.0  # seconds that a start takes


@dataclass(frozen=True)
class Work:
    """Something that is done beside the ingest, now and then: compaction, thinning, a backup. It may be ended at any of its writes.

    begin: called at each start of the centre, with its registry and a clock of Unix seconds; what it returns is called again and again.
    """

    name: str
    every: float  # seconds
    begin: Callable[[SqliteStore, Callable[[], float]], Callable[[], object]]


@dataclass
class CentreCounts:
    """What a centre did and what befell it."""

    results: Counter[str] = field(default_factory=Counter)
    verified: int = 0
    refused: int = 0
    starts: int = 0
    crashes: Counter[str] = field(default_factory=Counter)  # by the kind of write that never was
    works: Counter[str] = field(default_factory=Counter)  # by name, each time that one came to its end
    faults: int = 0  # messages that met a fault of the program


class SimulatedCentre:
    """One centre, through all its starts."""

    TICK = TICK
    BATCH = BATCH
    KEPT = 512 * 1024 * 1024  # bytes of states that the rebuild keeps in memory

    def __init__(
        self, time: Timeline, broker: Broker, folder: Path, rng: Random, steps: Steps, bases: Sequence[Base], *, works: Sequence[Work] = (),
        files_from: int = 4096, bounds: Bounds | None = None,
    ) -> None:  # fmt: skip
        """folder: an empty one, for the registry. files_from: bytes from which on a container is a file of its own."""
        self.time, self.broker, self.steps, self.works, self.counts = time, broker, steps, tuple(works), CentreCounts()
        self._folder, self._rng, self._life = folder, rng, 0
        self._bases, self._files_from = bases, files_from
        self._bounds = bounds if bounds is not None else Bounds()
        self.path = folder / "life-0" / "fleet.db"
        self.store: SqliteStore | None = None
        self._session: Session | None = None
        self._batch: list[tuple[str, bytes, int]] = []
        self._batching = self._rebuilding = False
        self.died: Callable[[], None] = lambda: None  # called when it was ended, before it starts again
        self._crash_in = 0  # writes until the next crash; 0: none is planned
        self._torn = self._power = self._files = False
        self.set_aside: set[str] = set()

    # What tests and scripts do with it.

    def start(self) -> None:
        """Start on what the registry's files hold. Raises what the registry's damage raises."""
        if not self.counts.starts and not self.path.exists():
            self.make()
        self._life += 1
        self.counts.starts += 1
        life = self._life
        if not self._guarded(self._start):
            return
        self._tick(life)
        if life != self._life:  # it has died in its first look
            return
        for work in self.works:
            assert self.store is not None
            again = work.begin(self.store, self.time.wall)
            self.time.after(work.every * (0.5 + self._rng.random()), partial(self._work, work, again, life))
        self._rebuild_soon()

    def _start(self) -> None:
        # Only a disk of the simulator loses what was not flushed.
        self.store = open_registry(self.path, synchronous="FULL" if isinstance(self.steps, DiskSteps) else "OFF")
        self.store.files.sweep(before=float("inf"))
        self._ingest = Ingest(self.store, self._bounds, secret=self._rng.randbytes(32))
        self._ingest.catch_up()
        require_signed(self.store, self._ingest.admissions, self.path)
        # No seconds of a real clock: how far a batch comes is not to hang on how fast this machine is.
        self._rebuilder = Rebuilder(self.store, kept_bytes=self.KEPT, bounds=self._bounds, seconds=float("inf"), sign=sign)
        self._batch.clear()
        self._batching = self._rebuilding = False
        self._session = self.broker.connect(NAME, (all_up(FLEET),), self)

    def make(self) -> None:
        """Make its registry, which is there from then on."""
        self.path.parent.mkdir()
        store = make_registry(self.path, self._bases[0], files_from=self._files_from)
        for i, base in enumerate(self._bases[1:]):
            add_base(store, base, f"digits-{i + 2}")
        store.close()

    def crash_in(self, writes: int, *, torn: bool = False, power: bool = False, files: bool = False) -> None:
        """Let it be killed at that write from now. torn: in the middle of it, where it is one to a file.

        power: by a power cut; files: SQLite's writes don't count. On a disk alone, these two.
        """
        self._crash_in, self._torn, self._power, self._files = writes, torn, power, files

    def stop(self) -> None:
        """End in peace."""
        self._crash_in = 0
        if self.store is not None:
            self.store.close()
            self.store = None
            self._life += 1
            assert self._session is not None
            self.broker.leave(self._session)

    def admit(self, name: str, key: bytes) -> None:
        """Let a device in, as the operator does."""
        assert self.store is not None
        admit(self.store, name, key, self.time.seconds())

    def ask_snapshot(self, device: str, model: str, number: int) -> bool:
        """Keep an operator's command for a device; return whether it is known."""
        lineage = self.store.lineages.get(device, model) if self.store is not None else None
        if self.store is None or lineage is None:
            return False
        ask(self.store, lineage, number=number, at=self.time.seconds())
        return True

    def do(self, piece: Callable[[SqliteStore], object]) -> None:
        """Let the operator do something with the registry, who may be killed as the ingester is."""
        store = self.store
        if store is not None:
            self._guarded(lambda: piece(store))

    # As a client of the broker.

    def up(self) -> None:
        pass

    def down(self, why: str) -> None:
        self._batch.clear()  # none was acknowledged, so they come again

    def accepted(self, ticket: int) -> None:
        pass

    def arrived(self, topic: str, data: bytes, mid: int) -> None:
        self._batch.append((topic, data, mid))
        if not self._batching:
            self._batching = True
            life = self._life
            self.time.after(self._pause(), lambda: self._commit(life))

    # Its life.

    def _guarded(self, do: Callable[[], object]) -> bool:
        """Do a piece of work, and die where that is planned; return whether it lives."""
        if not self._crash_in:
            do()
            return True
        try:
            with self.steps.crash_at(self._crash_in, self._keep, torn=self._torn, power=self._power, files=self._files):
                do()
        except Crash:
            self._die()
            return False
        self._crash_in = max(1, self._crash_in - self.steps.taken)
        return True

    def _keep(self) -> None:
        if isinstance(self.steps, DiskSteps):
            return  # it knows what is left
        self._next = self._folder / f"life-{self._life}" / "fleet.db"
        copy_registry(self.path, self._next)

    def _die(self) -> None:
        kind = self.steps.names[-1].split("(")[0].strip()
        self.counts.crashes[" ".join(kind.split()[:3]) + (", power" if self._power else "")] += 1
        self.time.note(f"centre {'without power' if self._power else 'killed'} at {kind}")
        if self.store is not None:  # else it ended while it was opened
            self.store.close()
            self.store = None
        self._crash_in = 0
        self._life += 1
        if self._session is not None:
            self.broker.leave(self._session, quietly=True)
        if isinstance(self.steps, DiskSteps):
            self.steps.ended(self._folder, self._rng)
        else:
            shutil.rmtree(self.path.parent)
            self.path = self._next
        self.died()
        self.time.after(START, self.start)

    def _commit(self, life: int) -> None:
        if life != self._life:
            return
        self._batching = False
        batch, self._batch = self._batch[: self.BATCH], self._batch[self.BATCH :]
        if batch:
            self._guarded(lambda: self._take(batch))
        if self._batch and life == self._life:
            self._batching = True
            self.time.after(self._pause(), lambda: self._commit(life))

    def _take(self, batch: Sequence[tuple[str, bytes, int]]) -> None:
        assert self.store is not None and self._session is not None
        now = self.time.seconds()
        with self.store.transaction():
            self._ingest.catch_up()
            outcomes = [self._ingest.take(topic, data, now) for topic, data, _ in batch]
            sign(self.store)
        for _, _, mid in batch:
            self.steps.step("acknowledge")
            self.broker.acknowledge(self._session, mid)
        for one in outcomes:
            self.counts.results[one.result.value] += 1
            self.counts.faults += one.reason.startswith("Fault")
            self.time.note(f"{one.result.value} {one.device}@{one.version} {one.reason}")
            self._say(one.replies)
            if one.result.value == "stored":
                self._rebuild_soon()

    def _pause(self) -> float:
        return self._rng.choice(PAUSES)

    def _rebuild_soon(self) -> None:
        if not self._rebuilding:
            self._rebuilding = True
            life = self._life
            self.time.after(self._pause(), lambda: self._rebuild(life))

    def _rebuild(self, life: int) -> None:
        if life != self._life:
            return
        self._rebuilding = False
        self._guarded(self._judge)

    def _judge(self) -> None:
        judged = self._rebuilder.run(self.time.seconds())
        for one in judged:
            self.counts.verified += one.ok
            self.counts.refused += not one.ok
            self.time.note(f"judged {one.name} {one.ok} {one.reason}")
            self._say(one.replies)
        if judged:
            self._rebuild_soon()

    def _tick(self, life: int) -> None:
        if life != self._life:
            return
        if self._guarded(self._look):
            self.time.after(self.TICK, lambda: self._tick(life))

    def _look(self) -> None:
        assert self.store is not None
        now = self.time.seconds()
        with self.store.transaction():
            self._ingest.catch_up()
            outcomes = self._ingest.released(now)
            sign(self.store)
        for one in outcomes:
            self._say(one.replies)
        for replies in self._ingest.due(now, self.time.now, RESEND):
            self._say(replies)

    def _work(self, work: Work, again: Callable[[], object], life: int) -> None:
        if life != self._life:
            return

        def do() -> None:
            again()
            self.counts.works[work.name] += 1
            self.time.note(f"work {work.name}")

        if self._guarded(do):
            self.time.after(work.every, lambda: self._work(work, again, life))

    def _say(self, replies: Sequence[Reply]) -> None:
        assert self._session is not None
        for reply in replies:
            self.steps.step("publish")
            if self._session.online:  # else it is lost, and asked for again by who misses it
                self.broker.publish(self._session, reply.topic, reply.encode(RECEIPT, FLEET_ID))
