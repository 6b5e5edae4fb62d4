"""One run of a fleet: builds it, lets it live for its days, and has all of its versions audited."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from json import loads
from pathlib import Path
from random import Random
from typing import Any

from edgecloud.intake.routing import Ingest
from edgecloud.registry import SqliteStore, open_registry
from tests.edgecloud.device import Base
from tests.simulator.audit import audit
from tests.simulator.broker import Broker, Weather
from tests.simulator.timeline import Timeline, quiet, seeded

from .centre import FleetCentre
from .device import FleetDevice
from .links import DAY, Traffic
from .planner import FleetPlanner
from .recovering import Recovery, recovered
from .rolling import BEGINS, STEP, RollingDirector
from .script import FleetScript, first_base, variant_of

# A network that works, as most days: now and then a message comes twice or late, breaks its link, or is lost behind its PUBACK.
WEATHER = Weather(delay=0.05, late=0.002, lag=30.0, twice=0.002, breaks=0.0005, lost=0.0005, flipped=0.0, old=0.0, away=30.0, heard=0.0)
PATIENCE = 10 * DAY  # of the simulated clock, in which what is left must be said
REPORTS = 2 * DAY  # of it, in which reports of the rollout are waited for: a device that sleeps and has nothing to send says none


@dataclass(frozen=True, slots=True)
class DayEnd:
    """How the centre stood when a day was over."""

    day: int
    rounds: int  # that were made
    versions: int  # that were verified
    stored: int  # bytes of the registry
    up: int  # bytes that devices have sent until then
    down: int


@dataclass
class FleetReport:
    """What came of a run. Seconds and bytes."""

    script: FleetScript
    digest: str = ""
    events: int = 0
    simulated: float = 0.0  # of the simulated clock
    live_s: float = 0.0  # of this machine, while the fleet lived; and of its processor
    live_cpu_s: float = 0.0
    centre_cpu_s: float = 0.0  # of these, what the centre took
    judge_s: float = 0.0
    prove_s: float = 0.0  # of this processor, in which every version is rebuilt, proven, and its file hashed
    start_s: float = 0.0  # that a start of the ingester on this registry takes
    rounds: int = 0  # that devices made
    versions: int = 0  # that the centre holds
    decisions: int = 0  # that were asked of the planner, equal ones once
    up: Counter[str] = field(default_factory=Counter)  # bytes by what was sent
    down: Counter[str] = field(default_factory=Counter)
    air: float = 0.0
    messages: int = 0
    wakeups: int = 0
    joules: float = 0.0
    batches: int = 0  # transactions of the ingest
    took: list[float] = field(default_factory=list)  # from each round to the word that its version is verified, sorted
    days: list[DayEnd] = field(default_factory=list)
    empty: int = 0  # bytes of the registry before the first device
    stored: int = 0  # and at the end
    curve: list[tuple[float, int, int]] = field(default_factory=list)  # days since the rollout began, offered, confirmed
    failed: Counter[str] = field(default_factory=Counter)  # devices on which the variant failed, by code
    state: str = ""  # of the rollout, and why it is in it
    reason: str = ""
    recovery: Recovery | None = None
    exact: int = 0
    wrong: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    verify: dict[str, Any] = field(default_factory=dict)  # what `edgecloud verify --all --json` said
    peak: int = 0  # bytes of this process

    @property
    def simulated_days(self) -> float:
        """Days that devices trained in."""
        return float(self.script.days)

    @property
    def failures(self) -> list[str]:
        """What may never be."""
        out = [*self.wrong, *(f"{name} never settled" for name in self.unsettled)]
        said = self.verify
        if said["wrong"] or said["tampered"] or said["waiting"]:
            out.append(f"edgecloud verify --all: {len(said['wrong'])} wrong, {said['waiting']} wait, changed: {said['tampered']}")
        if said["exact"] != self.versions:
            out.append(f"edgecloud verify --all says that {said['exact']} of {self.versions} versions are exact")
        return out

    def percentile(self, share: float) -> float:
        """Return the seconds within which this share of the rounds was verified."""
        return self.took[min(len(self.took) - 1, int(share * len(self.took)))] if self.took else 0.0


class SimulatedFleet:
    """A fleet that lives by a script. folder: an empty one; the registry is `fleet.db` in it, and stays."""

    def __init__(self, script: FleetScript, folder: Path, *, progress: bool = False) -> None:
        self.script, self.folder, self._progress = script, folder, progress
        self.time = Timeline()
        rng = Random(f"fleet {script.seed}")
        base = first_base()
        self.bases: tuple[Base, ...] = (base, variant_of(base)) if script.rollout else (base,)
        self.broker = Broker(self.time, Random(f"network {script.seed}"), WEATHER)
        self.centre = FleetCentre(self.time, self.broker, folder, Random(rng.random()), self.bases)
        self.traffic = Traffic(script.scripted_link)
        self.took: list[float] = []
        self.planner = FleetPlanner(script.scripted_link, base.manifest.schema.size, script.density)
        width = len(str(script.devices - 1))
        self.devices = [
            FleetDevice(
                self.time, self.broker, Random(rng.random()), f"pi-{i:0{width}}", self.bases, script, self.planner, self.traffic, self.took
            )
            for i in range(script.devices)
        ]
        self.director: RollingDirector | None = None
        self.report = FleetReport(script)

    def run(self) -> FleetReport:
        """Live through the script, judge what is left, and return what came of it."""
        report, began, cpu = self.report, time.monotonic(), time.process_time()
        with seeded(self.script.seed, self.time), quiet():
            self._start()
            self._live(began)
            report.stored = self.centre.stored()
            self.centre.stop()
        report.live_s, report.live_cpu_s = time.monotonic() - began, time.process_time() - cpu
        self._sum_up()
        self._judge()
        report.peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return report

    # Its life.

    def _start(self) -> None:
        self.centre.start()
        assert self.centre.store is not None
        self.report.empty = self.centre.stored()
        for device in self.devices:
            self.centre.admit(device.name, device.key)
            device.start()
        for day in range(1, self.script.days + 1):
            self.time.after(day * DAY, lambda day=day: self._end_of(day))  # type: ignore[misc]
        if self.script.rollout:
            self.time.after(BEGINS * self.script.end, self._begin_rollout)

    def _begin_rollout(self) -> None:
        order = [device.name for device in self.devices]
        Random(f"canaries {self.script.seed}").shuffle(order)
        self.director = RollingDirector(self.script, order, self.bases[0], self.bases[1])
        self._direct()

    def _direct(self) -> None:
        assert self.director is not None
        self.centre.direct(self.director)
        if not self.director.over:
            self.time.after(STEP, self._direct)

    def _live(self, began: float) -> None:
        shown, steps, end = began, 0, self.script.end + PATIENCE
        while self.time.now < end and self.time.step():
            steps += 1
            if steps % 512:
                continue
            shown = self._tell(shown, began)
            if self.time.now > self.script.end and self._settled():
                break

    def _settled(self) -> bool:
        rolled = self.director is None or self.director.over or self.time.now > self.script.end + REPORTS
        return rolled and all(device.settled() for device in self.devices)

    def _tell(self, shown: float, began: float) -> float:
        now = time.monotonic()
        if not self._progress or now - shown < 5:
            return shown
        day, days = self.time.now / DAY, self.script.days
        left = (now - began) * max(0.0, days / max(day, 0.01) - 1) / 60
        made = sum(device.made for device in self.devices)
        print(f"{now - began:5.0f} s  day {min(day, days):.2f} of {days}: {made} of {self.script.updates} rounds made, "
              f"{self.centre.counts.verified} versions verified, about {left:.0f} min left", file=sys.stderr, flush=True)  # fmt: skip
        return now

    def _end_of(self, day: int) -> None:
        traffic = self.traffic
        self.report.days.append(
            DayEnd(day, sum(d.made for d in self.devices), self.centre.counts.verified, self.centre.stored(), sum(traffic.up.values()),
                   sum(traffic.down.values()))
        )  # fmt: skip

    # What came of it.

    def _sum_up(self) -> None:
        report, traffic = self.report, self.traffic
        report.digest, report.events, report.simulated = self.time.digest, self.time.noted, self.time.now
        report.up, report.down, report.air, report.messages = traffic.up, traffic.down, traffic.air, traffic.messages
        report.wakeups, report.joules = traffic.wakeups, traffic.joules
        report.rounds, report.decisions = sum(d.made for d in self.devices), self.planner.asked
        report.took = sorted(self.took)
        report.batches, report.centre_cpu_s = self.centre.batches, self.centre.seconds
        report.unsettled = [d.name for d in self.devices if not d.settled()]
        if self.director is not None:
            begun = self.director.curve[0][0]
            report.curve = [((at - begun) / DAY, offered, confirmed) for at, offered, confirmed in self.director.curve]
            report.failed, report.state, report.reason = self.director.codes, self.director.state, self.director.reason

    def _judge(self) -> None:
        """Hold what the centre has against what the devices remember, while the command does so against what they have signed."""
        began, report = time.monotonic(), self.report
        said = subprocess.Popen(
            [sys.executable, "-m", "edgecloud", "--db", str(self.centre.path), "verify", "--all", "--json"],
            stdout=subprocess.PIPE, stderr=None if self._progress else subprocess.DEVNULL,
        )  # fmt: skip
        store = open_registry(self.centre.path, readonly=True)
        try:
            try:
                self._audit(store)
            finally:
                out, _ = said.communicate()
            report.recovery = recovered(store, Random(f"recovery {self.script.seed}"))
            started = time.process_time()
            Ingest(store, secret=bytes(32)).catch_up()
            report.start_s = time.process_time() - started
        finally:
            store.close()
        report.verify = loads(out) if out else {"exact": 0, "waiting": 0, "wrong": ["it said nothing"], "tampered": [], "seconds": 0.0}
        report.judge_s = time.monotonic() - began

    def _audit(self, store: SqliteStore) -> None:
        report = self.report
        remembered = {f"{d.name}/digits": list(d.past()) for d in self.devices}
        report.versions = sum(len(made) for made in remembered.values())
        started = time.process_time()
        verdict = audit(store, remembered, {d.name: d.key for d in self.devices})
        report.prove_s = time.process_time() - started
        report.exact = verdict.exact
        report.wrong += verdict.diverged + [f"{name}: {verdict.examples[name]}" for name in verdict.named]


def simulated(script: FleetScript, folder: Path, *, progress: bool = False) -> FleetReport:
    """Run a script. folder: an empty one, for the registry, which stays."""
    return SimulatedFleet(script, folder, progress=progress).run()
