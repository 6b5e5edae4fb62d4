"""A board in memory for the machine: what is on its disk outlives the machine, each write of it may be the last, and time is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from edgeagent.deploying.desired_store import TakenDesired
from edgeagent.deploying.hosts import HostWord
from edgeagent.deploying.machine import DeployMachine
from edgeagent.deploying.means import BasePlace, BoardFacts, DeployTarget, Fetched, Probed, Stop
from edgeagent.settings.tree import ModelSettings, TrainSettings, UpdateSettings
from modelwire.deploying import variants
from modelwire.deploying.reports import DeviceFigures
from modelwire.deploying.states import State
from modelwire.deploying.terms import DeployTerms
from modelwire.deploying.variants import Variant
from modelwire.errors import ModelWireError
from modelwire.wire import records, signing
from modelwire.wire.parts import Part
from modelwire.wire.records import Desired, Report, Transfer
from tests import keys

A, B, C = b"A" * 32, b"B" * 32, b"C" * 32
NOW = 1_900_000_000
SETTINGS = ModelSettings("tiny", TrainSettings(), UpdateSettings())
OF_B = Variant("home", "tiny", "night", B, b"f" * 32, 9000, b"t" * 32, b"s" * 32, False, "litert", 1 << 20, (A,), NOW, 3)


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Disk:
    """What a kill leaves: the row, the places, and what the host said."""

    row: TakenDesired | None = None
    number: int = 0  # the newest that was taken or passed by
    staged: bytes = b""
    soaking: bytes = b""
    served: bytes = A  # the head's base
    passive: bytes = b""
    fetched: int = 0
    host: dict[int, HostWord] = field(default_factory=dict)
    snapshots: list[bytes] = field(default_factory=list)  # bases that updates named
    learned: str = ""
    writes: int = 0
    dies_at: int = 0  # before this write, counted from 1; 0: it does not

    def write(self) -> None:
        """Note a write that is about to be made."""
        self.writes += 1
        if self.writes == self.dies_at:
            raise Killed

    @property
    def seen(self) -> bytes:
        """The base that the application is served."""
        return self.soaking or self.served


class FakeMemory:
    """The row of a model."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def current(self) -> TakenDesired | None:
        return self._disk.row

    def newest(self) -> int:
        return self._disk.number

    def pass_by(self, number: int) -> None:
        self._disk.write()
        self._disk.number = number

    def take(self, number: int, record: bytes, *, now: int, time: int) -> None:
        self._disk.write()
        self._disk.row, self._disk.number = TakenDesired(number, record, State.OFFERED, now, time), number

    def move(self, state: State, now: int, *, code: str = "", reason: str = "") -> None:
        self._change(state=state, since=now, reported=False, **{k: v for k, v in (("code", code), ("reason", reason)) if v})

    def blame(self, code: str, reason: str) -> None:
        self._change(code=code, reason=reason)

    def fetched(self, tries: int, size: int) -> None:
        self._change(tries=tries, size=size)

    def probes(self, count: int) -> None:
        self._change(probes=count)

    def measured(self, learned: str, before: float | None, after: float | None, figures: DeviceFigures) -> None:
        self._change(learned=learned, before=before, after=after, figures=figures)

    def soaked(self, seconds: float) -> None:
        self._change(soaked=seconds)

    def reported(self, number: int, state: State) -> None:
        row = self._disk.row
        if row is not None and (row.number, row.state) == (number, state):
            self._change(reported=True)

    def _change(self, **what: Any) -> None:
        assert self._disk.row is not None
        self._disk.write()
        self._disk.row = replace(self._disk.row, **what)


FACTS = BoardFacts("ai-edge-litert 2.0.2 x86_64/64 xnnpack threads=1", 1 << 30, 1 << 34)


@dataclass
class FakeMeans:
    """What can be done: fetching takes three looks, probing two."""

    disk: Disk
    facts_: BoardFacts = FACTS
    fails: Stop | None = None  # of fetching
    refuses: ModelWireError | None = None  # when it is laid down
    found: Probed = field(default_factory=lambda: Probed("kept", 0.8, 0.9, DeviceFigures(rows=50, better=6, worse=1, learned="kept")))
    cannot: ModelWireError | None = None  # when it is confirmed
    no_room: ModelWireError | None = None  # when it is served
    looks: int = 0
    probing: int = 0

    def where(self, commit: bytes) -> BasePlace:
        d = self.disk
        places = (
            (d.soaking, BasePlace.SOAKING), (d.served, BasePlace.SERVED), (d.staged, BasePlace.STAGED), (d.passive, BasePlace.PASSIVE),
        )  # fmt: skip
        return next((place for held, place in places if held == commit), BasePlace.NOWHERE)

    def serves(self) -> bytes:
        return self.disk.seen

    def passive(self) -> bytes:
        return self.disk.passive

    def facts(self) -> BoardFacts:
        return self.facts_

    def fetch(self, desired: Desired, terms: DeployTerms, variant: Variant, now: float) -> Fetched:
        if self.fails is not None:
            return Fetched(stop=self.fails, tries=terms.tries)
        self.disk.write()
        self.disk.fetched = min(variant.size, self.disk.fetched + 4000)
        return Fetched(self.disk.fetched == variant.size, self.disk.fetched)

    def linked(self, now: float) -> None:
        pass

    def unlinked(self) -> None:
        pass

    def described(self, transfer: Transfer, now: float) -> bool:
        return False

    def arrived(self, part: Part, size: int, now: float) -> bool:
        return False

    def due(self) -> float:
        return 0.0

    def stage(self, desired: Desired, variant: Variant) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.disk.write()
        self.disk.staged = variant.commit

    def probe(self, commit: bytes, terms: DeployTerms) -> None:
        self.probing = 2

    def probed(self) -> Probed | None:
        self.probing -= 1
        return None if self.probing > 0 else self.found

    def cease(self) -> None:
        self.probing = 0

    def forget_file(self) -> None:
        if self.disk.fetched:
            self.disk.write()
            self.disk.fetched = 0

    def drop(self) -> None:
        if self.disk.staged or self.disk.fetched:
            self.disk.write()
            self.disk.staged, self.disk.fetched = b"", 0

    def soak(self, commit: bytes, learned: str) -> None:
        assert commit in (self.disk.staged, self.disk.passive) and not self.disk.soaking, "what is not staged can't be served"
        if self.no_room is not None:
            raise self.no_room
        self.disk.write()
        self.disk.soaking, self.disk.staged, self.disk.learned = commit, b"", learned

    def revert(self, reason: str) -> None:
        self.disk.write()
        self.disk.staged, self.disk.soaking = self.disk.soaking if self.disk.soaking != self.disk.passive else b"", b""

    def confirm(self, now: int) -> None:
        if self.cannot is not None:
            raise self.cannot
        self.disk.write()
        d = self.disk
        d.passive, d.served, d.soaking = d.served, d.soaking, b""
        d.snapshots.append(d.served)


class World:
    """A machine over a disk, as a process holds it; `again` starts another one."""

    def __init__(self, settings: ModelSettings = SETTINGS, **means: Any) -> None:
        self.disk, self.settings, self.more = Disk(), settings, means
        self.newest, self.idle, self.now, self.root = NOW, True, 100.0, keys.ROOT.public
        self.reports: list[Report] = []
        self.again()

    def again(self) -> None:
        """Start anew on the same disk."""
        self.means = FakeMeans(self.disk, **self.more)
        target = DeployTarget("home", "pi-7", "tiny", keys.FLEET_ID, lambda: self.root, lambda: self.newest, lambda: 50.0)
        self.machine = DeployMachine(
            target, FakeMemory(self.disk), self.means, self.settings, idle=lambda: self.idle, host=lambda n: self.disk.host.get(n)
        )

    def take(self, desired: Desired) -> None:
        self.machine.take(desired, records.encode(desired, keys.DIRECTOR, keys.FLEET_ID))

    def run(self, seconds: int = 200, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, a second at a time, and send what there is to say."""
        for _ in range(seconds):
            if until():
                return
            self.machine.tick(self.now)
            self.hear()
            self.now += 1.0

    def hear(self) -> None:
        for record in self.machine.news:
            if isinstance(record, Report):
                self.reports.append(record)
            self.machine.sent(record)

    @property
    def state(self) -> State | None:
        return self.disk.row.state if self.disk.row is not None else None

    def stands(self, state: State) -> bool:
        """Return whether it stands in this state."""
        return self.disk.row is not None and self.disk.row.state is state

    @property
    def states(self) -> list[str]:
        return [r.state for r in self.reports]


def terms(variant: Variant | None = OF_B, key: signing.PrivateKey = keys.ROOT, fleet: bytes = keys.FLEET_ID, **said: Any) -> DeployTerms:
    """Return terms that bring a variant, sealed by the root."""
    statement = variants.statement(variant, key, fleet) if variant is not None else b""
    return DeployTerms(b"r" * 16, statement, **{"urls": ("http://10.0.0.1/x",), "soak": 30, **said})


def desired(number: int = 1, of: DeployTerms | None = None, **said: Any) -> Desired:
    """Return a desired for B, or for what is said."""
    of = of if of is not None else terms()
    fields: dict[str, Any] = {"expiry": NOW + 86_400, "variant": B, "bytes": 9000, "phase": 2, **said}
    return Desired("home", "pi-7", "tiny", NOW, number, **fields, more=of.as_map())
