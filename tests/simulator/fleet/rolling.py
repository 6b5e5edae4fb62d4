"""A rollout among a simulated fleet: who offers the variant to whom and when, and what a device does with it.

The statements are real, `modelwire.deploying`: a variant sealed by the root key, a plan by the command key, and each `desired` by the
director key. `RollingDirector` stands where `edgecloud director` does, by a script of its own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from modelwire.deploying import plans, states, terms, variants
from modelwire.deploying.reports import Code, DeviceFigures
from modelwire.deploying.states import FAILED, FINAL, State, Who
from modelwire.errors import ModelWireError
from modelwire.wire.records import Desired, Report, encode
from modelwire.wire.topics import down
from tests.edgecloud.device import FLEET, Base
from tests.keys import COMMAND, DIRECTOR, FLEET_ID, ROOT

from .links import DAY
from .script import FleetScript

if TYPE_CHECKING:
    from .device import FleetDevice

STEP = 900.0  # seconds between two looks of the director
BEGINS = 0.25  # of the run, before the rollout begins
LEAST, CANARIES = 5, 0.01  # devices of the first phase, or this share of a large fleet
SHARES = (CANARIES, 0.1, 0.5, 1.0)
SILENT = 6 * 3600  # seconds without a word, after which a device that has not come to an end is told again
PROBE = 60.0  # seconds that a device tries the variant on its own samples
ROWS = 200  # held-out samples that it does so on


def plan_of(script: FleetScript, names: Sequence[str], variant: Base) -> plans.RolloutPlan:
    """Return the plan as its operator sealed it: phases by number, gates as they are by default."""
    counts = [max(min(LEAST, len(names)), round(share * len(names))) for share in SHARES]
    plan = plans.RolloutPlan(
        FLEET, "digits", hashlib.sha256(f"rollout {script.seed}".encode()).digest()[:16], "digits-2", variant.manifest.commit,
        (), "", (), True, tuple(plans.RolloutPhase(count=count) for count in counts), plans.RolloutGates(), script.soak, 0, 0, (0, 0),
        terms.Learned.AUTO, False, (), int(30 * DAY), 0, "operator", 1,
    )  # fmt: skip
    return plans.read_plan(plans.seal_plan(plan, COMMAND, FLEET_ID), COMMAND.public, FLEET_ID)


def variant_statement(variant: Base, parent: Base) -> bytes:
    """Return the root key's word for a variant."""
    m = variant.manifest
    said = variants.Variant(
        FLEET, "digits", "digits-2", m.commit, m.file_sha256, m.file_size, m.file_tree, m.schema.id, False, "", 0,
        (parent.manifest.commit,), 1, 1,
    )  # fmt: skip
    return variants.statement(said, ROOT, FLEET_ID)


class RollingDirector:
    """A director by script: phase after phase, each when the one before is through; halted when too many have failed."""

    def __init__(
        self, script: FleetScript, names: Sequence[str], base: Base, variant: Base, say: Callable[[str, bytes], None],
        now: Callable[[], int],
    ) -> None:  # fmt: skip
        """say: sends bytes on a topic, from the centre."""
        self.plan = plan_of(script, names, variant)
        self._names, self._say, self._now = list(names), say, now
        self._terms = terms.DeployTerms(self.plan.rollout, variant_statement(variant, base), soak=self.plan.soak)
        self._size = len(variant.file)
        self._offered: dict[str, bytes] = {}
        self.states: dict[str, State] = {}  # of those that it was offered to, as they say it
        self._touched: dict[str, int] = {}  # Unix seconds when each was last told, or last heard
        self.phase, self.halted = 0, False
        self.curve: list[tuple[int, int, int]] = []  # Unix seconds, devices that were offered it, and that have confirmed it
        self.codes: Counter[str] = Counter()

    def begin(self) -> None:
        self._offer()

    @property
    def over(self) -> bool:
        """Whether all who were offered it have come to an end."""
        return bool(self._offered) and all(self.states.get(name) in FINAL for name in self._offered) and self._last

    @property
    def _last(self) -> bool:
        return self.halted or self.phase == len(self.plan.phases) - 1

    def step(self) -> None:
        """Look at what was reported, and go on to the next phase or halt."""
        counts = Counter(self.states.get(name, State.OFFERED) for name in self._offered)
        failed, confirmed, gates = sum(counts[s] for s in FAILED), counts[State.CONFIRMED], self.plan.gates
        self.curve.append((self._now(), len(self._offered), confirmed))
        tried = failed + confirmed + counts[State.SOAKING]
        if failed >= gates.error_least and failed * plans.WHOLE > gates.error * tried:
            self.halted = True
        late = self._now() - SILENT - self.plan.soak
        for name, at in list(self._touched.items()):
            if at < late and self.states.get(name) not in FINAL:
                self._send(name)
        if not self._last and confirmed * plans.WHOLE >= gates.success * len(self._offered):
            self.phase += 1
            self._offer()

    def greeted(self, device: str) -> None:
        """A device has said hello: what is desired goes in answer to it, until its report is final."""
        if device in self._offered and self.states.get(device) not in FINAL:
            self._send(device)

    def heard(self, report: Report) -> None:
        if report.device in self._offered and report.state in [s.value for s in State]:
            self.states[report.device], self._touched[report.device] = State(report.state), self._now()
            if report.reason:
                self.codes[report.reason] += 1

    def _offer(self) -> None:
        for name in self._names[: self.plan.phases[self.phase].count]:
            if name not in self._offered:
                said = Desired(
                    FLEET, name, self.plan.model, self._now(), 1, self._now() + self.plan.expiry, self.plan.variant, self._size, self.phase,
                    more=self._terms.as_map(),
                )  # fmt: skip
                self._offered[name] = encode(said, DIRECTOR, FLEET_ID)
                self._send(name)

    def _send(self, device: str) -> None:
        self._touched[device] = self._now()
        self._say(down(FLEET, device, self.plan.model, "desired"), self._offered[device])


class DeviceRollout:
    """One device with what is desired of it: fetched over its link, tried, served for a while, taken over."""

    __slots__ = ("_began", "_desired", "_device", "_left", "_soak", "_variant", "state")

    def __init__(self, device: FleetDevice) -> None:
        self._device = device
        self.state: State | None = None
        self._desired: Desired | None = None
        self._variant: variants.Variant | None = None
        self._left = self._soak = 0.0  # bytes that are still to be fetched; seconds
        self._began: float | None = None  # when this piece of it was begun

    @property
    def under_way(self) -> bool:
        return self.state is not None and self.state not in FINAL

    @property
    def fetching(self) -> bool:
        return self.state is State.FETCHING

    @property
    def soaking(self) -> bool:
        return self.state is State.SOAKING

    def take(self, desired: Desired) -> None:
        """Hear what is desired. A number that is not new is answered by the same report; what is not to be believed, by nothing."""
        if self._desired is not None and desired.number <= self._desired.number:
            self._report()
            return
        try:
            said = terms.terms_of(desired)
            variant = variants.read(said.variant, ROOT.public, FLEET_ID) if said is not None else None
        except ModelWireError:
            return
        if said is None or variant is None or variant.commit != desired.variant or desired.expiry < self._device.time.seconds():
            return
        self._desired, self._variant, self._left, self._soak = desired, variant, float(variant.size), float(said.soak)
        self.state = State.OFFERED
        self._report()
        self._go(State.FETCHING)
        self.on_line()

    def on_line(self) -> None:
        """Go on fetching, now that there is a connection; say again how far it is."""
        if self.fetching and self._began is None and self._device.talking:
            d = self._device
            self._began, life = d.time.now, d._life
            d.time.after(self._left / d.link.rate, lambda: self._fetched(life))
        elif self.state in FINAL:
            self._report()

    def cut(self) -> None:
        """Keep what was fetched before the connection went."""
        if self._began is not None:
            d = self._device
            came = min(self._left, (d.time.now - self._began) * d.link.rate)
            d.traffic.heard("variant", int(came))
            self._left, self._began = self._left - int(came), None

    def _fetched(self, life: int) -> None:
        if self._began is None or life != self._device._life:
            return
        self.cut()
        self._left = 0
        self._go(State.STAGED)
        self._go(State.PROBING)
        self._device.time.after(PROBE, self._probed)

    def _probed(self) -> None:
        d = self._device
        if d.rng.random() < d.script.failing:
            self._go(State.REVERTED, Code.SLOW)
            return
        self._go(State.SOAKING)
        d.time.after(self._soak, self._soaked)

    def _soaked(self) -> None:
        d = self._device
        d.note_made(d.device.take_over(d.bases[1]))
        self._go(State.CONFIRMED)
        d.wake()
        d._fill()

    def _go(self, state: State, code: str = "") -> None:
        assert self.state is not None and states.allowed(self.state, state, Who.DEVICE)
        self.state = state
        self._device.time.note(f"{self._device.name} {state.value} {code}")
        self._report(code)

    def _report(self, code: str = "") -> None:
        """Say how far it is; off line nothing is said, and the next desired or welcome asks again."""
        d, desired, variant, state = self._device, self._desired, self._variant, self.state
        if desired is None or variant is None or state is None or not d.talking:
            return
        figures = DeviceFigures(serves=d.device.base.manifest.commit, code=code)
        if state in (State.SOAKING, State.CONFIRMED):
            figures = replace(figures, rows=ROWS, better=2, worse=1, learned="kept")
        said = Report(
            FLEET, d.name, d.device.model, d.time.seconds(), desired.number, desired.variant, state.value, desired.phase,
            "active" if state in (State.SOAKING, State.CONFIRMED) else "passive", variant.size - int(self._left), 0.9, 0.9, code,
            more=figures.as_map(),
        )  # fmt: skip
        d._say(*d.device.say("report", said))


