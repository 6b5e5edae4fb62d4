"""A rollout among a simulated fleet: the director's steps, and what a device does with them.

The statements are real, `modelwire.deploying`: a variant sealed by the root key, a plan by the command key, and each `desired` by the
director key. They lie in the registry: the real director steps over it, the real ingest tells devices, and keeps what these report.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgecloud.registry import RolloutRow, SqliteStore, VariantRow
from edgecloud.registry.rollout_rows import ENDED, HALTED, PAUSED, WAITING
from edgecloud.rollouts import moves, stepping
from modelwire.deploying import plans, states, terms, variants
from modelwire.deploying.reports import Code, DeviceFigures
from modelwire.deploying.states import FINAL, State, Who
from modelwire.errors import ModelWireError
from modelwire.wire.records import Desired, Report
from tests.edgecloud.device import FLEET, Base
from tests.keys import COMMAND, DIRECTOR, FLEET_ID, ROOT

from .links import DAY
from .script import FleetScript

if TYPE_CHECKING:
    from .device import FleetDevice

STEP = 60.0  # seconds between two looks of the director
SPREAD = 60  # minutes in which the whole fleet may be offered it, by the plan's rate
BEGINS = 0.25  # of the run, before the rollout begins
LEAST, CANARIES = 5, 0.01  # devices of the first phase, or this share of a large fleet
SHARES = (CANARIES, 0.1, 0.5, 1.0)
PROBE = 60.0  # seconds that a device tries the variant on its own samples
ROWS = 200  # held-out samples that it does so on


def plan_of(script: FleetScript, names: Sequence[str], variant: Base) -> plans.RolloutPlan:
    """Return the plan as its operator sealed it: phases by number, gates as they are by default."""
    counts = [max(min(LEAST, len(names)), round(share * len(names))) for share in SHARES]
    plan = plans.RolloutPlan(
        FLEET, "digits", hashlib.sha256(f"rollout {script.seed}".encode()).digest()[:16], "digits-2", variant.manifest.commit,
        (), "", (), True, tuple(plans.RolloutPhase(count=count) for count in counts), plans.RolloutGates(), script.soak,
        max(LEAST, -(-len(names) // SPREAD)), 0, (0, 0), terms.Learned.AUTO, False, (), int(30 * DAY), 0, "operator", 1,
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
    """The real director's steps, beside what its operator seals, and how far the fleet has come."""

    def __init__(self, script: FleetScript, names: Sequence[str], base: Base, variant: Base) -> None:
        """names: of all devices, those first that are to have it first."""
        self.plan = plan_of(script, names, variant)
        self._statement = variant_statement(variant, base)
        self._stepper: stepping.Stepper | None = None
        self._row: RolloutRow | None = None
        self.waiting = self.offered = self.confirmed = self.ended = 0  # devices
        self.curve: list[tuple[int, int, int]] = []  # Unix seconds, devices that were offered it, and that have confirmed it
        self.codes: Counter[str] = Counter()  # devices on which it failed, by code

    @property
    def state(self) -> str:
        return self._row.state if self._row is not None else ""

    @property
    def reason(self) -> str:
        return moves.why(self._row) if self._row is not None else ""

    @property
    def over(self) -> bool:
        """Whether all who were offered it have come to an end, and nobody else is."""
        row = self._row
        follows = row is not None and moves.word(row) == moves.FOLLOWS and not self.waiting
        return self.offered > 0 and self.ended == self.offered and (follows or self.state in (*ENDED, HALTED, PAUSED))

    def step(self, store: SqliteStore, now: int) -> None:
        """Let the director do what is due, once, and see how far the fleet is."""
        if self._stepper is None:
            self._begin(store, now)
            self._stepper = stepping.Stepper(store, DIRECTOR)
        self._stepper.step(now)
        self._look(store, now)

    def _begin(self, store: SqliteStore, now: int) -> None:
        """Keep what the operator has sealed."""
        plan, rollouts = self.plan, store.rollouts
        begun = plans.RolloutDecision(plan.fleet, plan.rollout, 1, plans.RolloutVerb.START, plan.made_by, "", now)
        with store.transaction():
            rollouts.add_variant(VariantRow(plan.variant, plan.model, 1, plan.name, self._statement, now))
            row = rollouts.add(plans.seal_plan(plan, COMMAND, FLEET_ID), plan, now)
            rollouts.decide(row.id, 1, plans.seal_decision(begun, COMMAND, FLEET_ID), now)

    def _look(self, store: SqliteStore, now: int) -> None:
        self._row = store.rollouts.get(self.plan.rollout)
        assert self._row is not None
        counts: Counter[State] = Counter()
        self.codes.clear()
        self.waiting = 0
        for tally in store.rollouts.tallies(self._row.id):
            if tally.state == WAITING:
                self.waiting += tally.devices
                continue
            counts[State(tally.state)] += tally.devices
            if tally.code:
                self.codes[tally.code] += tally.devices
        self.offered, self.confirmed, self.ended = sum(counts.values()), counts[State.CONFIRMED], sum(counts[s] for s in FINAL)
        if not self.curve or self.curve[-1][1:] != (self.offered, self.confirmed):
            self.curve.append((now, self.offered, self.confirmed))


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
        self._device.traffic.heard("variant", int(self._left))
        self._left, self._began = 0.0, None
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


