"""A board and a centre that come back from their folders in one process: the agent's own loop, the centre's decisions, a link in memory."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgeagent.link.transport import Accepted, Arrived, Connected, Event, Will
from edgeagent.service.agent import Agent
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.system.clock import Clock
from edgecloud.audit.signing import require_signed
from edgecloud.registry import SqliteStore, open_registry
from modelwire.wire.signing import PrivateKey
from tests.edgeagent.boards import scripted
from tests.edgeagent.centre import FakeClock
from tests.edgecloud.centre import Centre
from tests.keys import FLEET_ID, RECEIPT
from tests.simulator.audit import Verdict, audit, wrong_in_log
from tests.simulator.made import CARRIED, GIVEN_UP, VERIFIED, WAITING, Made

MODEL = "tiny"
SEED = bytes(range(64, 96))  # of the board's key, for tests only
PATIENCE = 3600.0  # simulated seconds
FATES = {"verified": VERIFIED, "queued": WAITING, "offered": WAITING, "stored": WAITING, "skipped": CARRIED}


class Link:
    """The agent's transport: what it sends is decided on at once, and the answers come back in order."""

    largest = 96 * 1024

    def __init__(self, centre: Centre, clock: FakeClock) -> None:
        self._centre, self._clock = centre, clock
        self._events: deque[Event] = deque()
        self._tickets = 0
        self._asked: set[tuple[int, int]] = set()

    def open(self, will: Will, listen: Sequence[str]) -> None:
        self._events = deque([Connected()])
        self._asked.clear()

    def poll(self, timeout: float) -> Event | None:
        if not self._events:
            self._clock.now += timeout
            self._centre.now = int(self._clock.wall())
            self._centre.tick()
            self._centre.rebuild()
            for request in self._centre.ingest.commands(now=self._centre.now):
                if (which := (request.lineage, request.number)) not in self._asked:
                    self._asked.add(which)
                    self._centre.replies += self._centre.ingest.said(request, self._centre.now)
            self._hear()
        return self._events.popleft() if self._events else None

    def send(self, topic: str, data: bytes, *, retain: bool = False) -> int:
        self._tickets += 1
        self._events.append(Accepted(self._tickets))
        self._centre.take((topic, data))
        self._hear()
        return self._tickets

    def _hear(self) -> None:
        for reply in self._centre.replies:
            self._events.append(Arrived(reply.topic, reply.encode(RECEIPT, FLEET_ID)))
        self._centre.replies.clear()

    def acknowledge(self, message: Arrived) -> None:
        pass

    def stand_aside(self, why: str) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self, farewell: Will | None = None) -> None:
        pass


class Meeting:
    """Both sides, started on what their disks held. Raises what either of them says of its state."""

    def __init__(self, board: Path, centre: Path) -> None:
        self._board, self._centre, self._open = board, centre, ExitStack()
        self._level = logging.root.manager.disable

    def __enter__(self) -> Meeting:
        logging.disable(logging.CRITICAL)
        try:
            self.store: SqliteStore = open_registry(self._centre / "fleet.db", synchronous="OFF")
            self._open.callback(self.store.close)
            self.store.files.sweep(before=float("inf"))
            self.centre, self.clock = Centre(self.store), FakeClock()
            self.centre.ingest.catch_up()
            require_signed(self.store, self.centre.ingest.admissions, self._centre)
            loaded = reading.load(self._board / reading.FILE, environment={}, flags={})
            self.device: DeviceFolder = self._open.enter_context(open_folder(loaded, alone=True))
            self.lineage = self.device.lineages[MODEL]
        except BaseException:
            self.__exit__()
            raise
        self._epoch = self.lineage.head().epoch
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        logging.disable(self._level)

    # What each of them has.

    def at_board(self) -> dict[int, bytes]:
        """Return the commit of each version that the board lists."""
        return {row["version"]: row["commit_id"] for row in self.lineage.versions() if row["version"] is not None}

    def at_centre(self) -> dict[bytes, str]:
        """Return what the centre calls each version, by commit."""
        lineage = self.store.lineages.get("pi-7", MODEL)
        return {} if lineage is None else {v.commit: v.status.value for v in self.store.versions.of(lineage.id)}

    # What they do.

    def agree(self) -> None:
        """Let the board start and say all that it has to say."""
        self._run(Goal(publish=True, timeout=PATIENCE))
        self._run(Goal(rounds=0, timeout=PATIENCE))

    def go_on(self) -> None:
        """Let the board make one more version, and have it verified."""
        self._run(Goal(rounds=self.lineage.head().rounds + 1, timeout=PATIENCE))

    def _run(self, goal: Goal) -> None:
        clock = Clock(self.clock.monotonic, self.clock.wall)
        Agent(self.device, Link(self.centre, self.clock), scripted, "after a cut", clock=clock, rng=random.Random(1)).run(goal)

    # What is to be said of it.

    def named(self) -> list[str]:
        """Return what either side says is amiss although it goes on."""
        out = [f"the board asks for {self.lineage.doubts.lost(confirmed=True)}"] if self.lineage.doubts.lost(confirmed=True) else []
        head, lineage = self.lineage.head(), self.store.lineages.get("pi-7", MODEL)
        if self._epoch and head.epoch != self._epoch:
            out.append(f"the board went on in epoch {head.epoch} after {self._epoch}")
        if lineage is not None:
            out += [f"the centre lists @{row.version} as lost" for row in self.store.losses.of(lineage.id)]
        return out + [f"the centre has an alarm: {row.text}" for row in self.store.losses.alarms(only_open=True)]

    def audited(self) -> Verdict:
        """Hold every version at the centre against what the board remembers of it."""
        made = [
            Made(row["version"], row["commit_id"], row["root"] or b"", row["file_sha256"] or b"", FATES.get(row["state"], GIVEN_UP))
            for row in self.lineage.versions()
            if row["version"] is not None
        ]
        return audit(self.store, {f"pi-7/{MODEL}": made}, {"pi-7": PrivateKey(SEED).public})

    def problems(self) -> list[str]:
        """Return what is wrong with the registry's file and its log."""
        return [*self.store.problems(), *wrong_in_log(self.store)]

    def apart(self) -> list[str]:
        """Return where the two disagree about the newest version."""
        lineage, head = self.store.lineages.get("pi-7", MODEL), self.lineage.head()
        theirs: Any = self.store.lineages.head(lineage.id, head.epoch) if lineage is not None else None
        if theirs is None or (theirs.version, theirs.commit) != (head.version, head.commit):
            return [f"the board is at @{head.version}, the centre at @{theirs and theirs.version}"]
        return []
