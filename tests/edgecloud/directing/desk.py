"""A registry, an operator who seals, a director who steps, and devices that do as they are told or do not: a rollout without a network."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgecloud.registry import AssignmentRow, Base, DesiredRow, ReportTaken, RolloutRow, SqliteStore, VariantRow, open_registry
from edgecloud.rollouts.stepping import StepDone, Stepper
from modelwire.deploying.plans import RolloutDecision, RolloutPhase, RolloutPlan, RolloutVerb, seal_decision, seal_plan
from modelwire.deploying.reports import DeviceFigures
from modelwire.deploying.states import FINAL, State
from modelwire.deploying.terms import DeployTerms, terms_of
from modelwire.deploying.variants import Variant, statement
from modelwire.tensors import Dtype, Schema, TensorClass, TensorSpec
from modelwire.update.manifest import Manifest
from modelwire.wire import records
from modelwire.wire.records import Desired, Report
from modelwire.wire.signing import PrivateKey, Signer
from tests.edgecloud import rollouts as words
from tests.edgecloud.centre import make_registry
from tests.keys import COMMAND, DIRECTOR, FLEET_ID, ROOT

MODEL, T0 = words.MODEL, 1_800_000_000
OLD, NEW = bytes([1]) * 32, bytes([2]) * 32
STRANGER = PrivateKey(bytes([0x77]) * 32)
WHOLE = (RolloutPhase(share=10_000),)
SCHEMA, ANOTHER = (Schema((TensorSpec("w", (n,), Dtype.FLOAT32),)) for n in (2, 3))
BY_STEPS = (RolloutPhase(count=2), RolloutPhase(share=5_000), RolloutPhase(share=10_000))


def new_variant(key: Signer = ROOT, **fields: Any) -> bytes:
    """Return the root key's statement of the base NEW."""
    said = Variant(words.FLEET, MODEL, "night", NEW, bytes(32), 1000, bytes(32), SCHEMA.id, False, "", 0, (OLD,), 5, 1)
    return statement(replace(said, **fields), key, FLEET_ID)


def base_of(commit: bytes, name: str, schema: Schema = SCHEMA) -> Base:
    """Return a base that goes by any commit."""
    manifest = Manifest(commit, 1000, schema, (TensorClass.LATTICE,), (-20,), bytes(32), bytes(32))
    return Base(commit, name, manifest.encode(), commit, 1000, 1)


@dataclass
class Rolling:
    """One registry with some devices on the base OLD, and a variant NEW."""

    path: Path
    devices: int = 8
    now: int = T0
    key: Signer = DIRECTOR
    store: SqliteStore = field(init=False)
    stepper: Stepper = field(init=False)

    def __post_init__(self) -> None:
        self.store = make_registry(self.path, None)
        for name, commit in (("old", OLD), ("new", NEW)):
            self.store.bases.add(base_of(commit, name))
        with self.store.transaction():
            self.store.rollouts.add_variant(VariantRow(NEW, MODEL, 1, "night", new_variant(), 5))
            for n in range(1, self.devices + 1):
                self.join(n)
        self.stepper = Stepper(self.store, self.key)

    def join(self, n: int, base: bytes = OLD, runtime: str = "") -> int:
        """Let a device in that has said hello; return its lineage."""
        self.store.devices.add(name_of(n), hashlib.sha256(b"%d" % n).digest(), 10)
        lineage = self.store.lineages.ensure(name_of(n), MODEL).id
        self.store.lineages.grant(lineage, n.to_bytes(16, "big"), base, 10)
        self.store.lineages.greeted(lineage, runtime, "", 10)
        return lineage

    def plan(self, *, key: Signer = COMMAND, started: bool = True, **fields: Any) -> RolloutRow:
        """Seal a plan for all devices at once, and start it."""
        said: RolloutPlan = words.plan(variant=NEW, **{"soak": 60, "phases": WHOLE, **fields})
        row = self.store.rollouts.add(seal_plan(said, key, FLEET_ID), said, self.now)
        if started:
            self.decide(RolloutVerb.START, row=row)
        return row

    def decide(
        self, verb: RolloutVerb, number: int = 0, *, row: RolloutRow | None = None, key: Signer = COMMAND, by: str = "anna",
        reason: str = "",
    ) -> None:  # fmt: skip
        row = self.row if row is None else row
        number = number or max((one.number for one in self.store.rollouts.decisions(row.id)), default=0) + 1
        said = RolloutDecision(words.FLEET, row.rollout, number, verb, by, reason, self.now)
        self.store.rollouts.decide(row.id, number, seal_decision(said, key, FLEET_ID), self.now)

    def step(self, times: int = 1, *, after: int = 0) -> StepDone:
        """Step, some seconds later each time; return what the last step did."""
        done = StepDone()
        for _ in range(times):
            self.now += after
            done = self.stepper.step(self.now)
        return done

    def settle(self) -> StepDone:
        """Step until nothing is done."""
        for _ in range(100):
            if not (done := self.step()):
                return done
        raise AssertionError("it never comes to rest")

    def killed(self) -> None:
        """End the director and its connection, and begin anew."""
        self.store.close()
        self.store = open_registry(self.path, synchronous="OFF")
        self.stepper = Stepper(self.store, self.key)

    @property
    def row(self) -> RolloutRow:
        """The rollout that was planned last."""
        return self.store.rollouts.all()[-1]

    @property
    def standing(self) -> tuple[str, int]:
        return self.row.state, self.row.phase

    def states(self, row: RolloutRow | None = None) -> Counter[str]:
        """How many devices are in which state; on the way back that is said."""
        rows = self.store.rollouts.assignments((self.row if row is None else row).id)
        return Counter(one.state + " back" * one.back for one in rows)

    def assigned(self, phase: int | None = None) -> list[AssignmentRow]:
        return self.store.rollouts.assignments(self.row.id, phase)

    def desired(self, device: str) -> DesiredRow | None:
        lineage = self.store.lineages.get(device, MODEL)
        assert lineage is not None
        return self.store.rollouts.newest_desired(lineage.id)

    def terms(self, device: str) -> tuple[Desired, DeployTerms]:
        """What a device was told last, proven as a device does."""
        row = self.desired(device)
        assert row is not None
        signed = records.parse(row.record)
        said = records.expect(signed, Desired)
        signed.verify(self.key.public, FLEET_ID, "the director", signed.role)
        terms = terms_of(said)
        assert terms is not None and (said.number, said.variant, said.device) == (row.number, row.variant, device)
        return said, terms

    def say(self, device: str, state: State, figures: DeviceFigures | None = None, *, number: int = 0, **fields: Any) -> ReportTaken:
        """Let a device report on what it was told last."""
        lineage, newest = self.store.lineages.get(device, MODEL), self.desired(device)
        assert lineage is not None and newest is not None
        said: Report = words.report(state.value, newest.variant, number or newest.number, device=device, figures=figures, **fields)
        return self.store.rollouts.take_report(lineage.id, said, figures, words.signed(said, STRANGER), self.now)

    def all_say(self, state: State, figures: DeviceFigures | None = None, *, only: Sequence[str] = ()) -> None:
        """Let all devices report that are under way, or some of them."""
        for one in self.assigned():
            if one.number and one.state not in ("waiting", *(s.value for s in FINAL)) and (not only or one.device in only):
                self.say(one.device, state, figures)

    def serve(self, figures: DeviceFigures | None = None, *, only: Sequence[str] = ()) -> None:
        """Let devices serve it, soak it, and confirm it."""
        self.all_say(State.SOAKING, figures or EQUAL, only=only)
        self.step()
        self.now += 61
        self.all_say(State.CONFIRMED, figures or EQUAL, only=only)
        self.step()

    def through(self, phases: Iterable[int], figures: DeviceFigures | None = None) -> None:
        for phase in phases:
            self.settle()
            assert self.standing == ("running", phase), self.row
            self.serve(figures)


EQUAL = DeviceFigures(rows=200, better=1, worse=1, serves=NEW, passive=OLD)
WORSE = DeviceFigures(rows=200, better=2, worse=22, serves=NEW, passive=OLD)


def name_of(n: int) -> str:
    return f"pi-{n}"
