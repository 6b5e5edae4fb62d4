"""Variants, rollouts, what devices are to run, and what they report."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from edgecloud.registry.rollout_rows import (
    AssignmentRow,
    DecisionRow,
    DesiredRow,
    FrozenRow,
    ReportRow,
    RolloutRow,
    RolloutTally,
    VariantRow,
)
from modelwire.deploying.plans import RolloutPlan
from modelwire.deploying.reports import DeviceFigures
from modelwire.wire.records import Report


class ReportTaken(str, Enum):
    """What became of a report."""

    APPLIED = "applied"  # it moved its assignment on
    REPEATED = "repeated"  # it is the one that is held
    LATE = "late"  # kept, and nothing moves: its rollout or its number has ended, or it is behind what was said since
    UNKNOWN = "unknown"  # no desired has this number; nothing is kept


class Rollouts(Protocol):
    """Deployments. What is sealed is write-once and entered in the log with its row; who calls has proven the seal before.

    All numbers rise: of variants for each model, of decisions within a rollout, of desireds for each device and model.
    """

    def add_variant(self, variant: VariantRow) -> None:
        """Keep a variant. Raises LineageError unless its base is registered and its number is above all of its model."""

    def variant(self, commit: bytes) -> VariantRow | None:
        """Return what was sealed last about a base."""

    def variants(self, model: str | None = None) -> list[VariantRow]:
        """Return all variants, of one model or of all, by model and number."""

    def add(self, plan: bytes, said: RolloutPlan, now: int) -> RolloutRow:
        """Keep a plan as a draft. said: what `plan` says. Raises LineageError where its id or its name is taken."""

    def get(self, rollout: bytes) -> RolloutRow | None:
        """Return the rollout with this id of 16 bytes."""

    def by_id(self, id: int) -> RolloutRow:
        """Return the rollout of a row that names it. Raises LineageError where there is none."""

    def named(self, text: str) -> RolloutRow | None:
        """Return the rollout with this name, or the only one whose id begins so: eight hex digits at least."""

    def all(self, *, ended: bool = True) -> list[RolloutRow]:
        """Return all rollouts, oldest first. ended: those too that are over."""

    def move(
        self, id: int, *, state: str | None = None, phase: int | None = None, reason: str | None = None, now: int
    ) -> RolloutRow:
        """Note how far a rollout has come; None: as it was. Its phase begins anew with another number or when it begins to run."""

    def decide(self, id: int, number: int, statement: bytes, now: int, *, beside: Iterable[int] = ()) -> None:
        """Keep a decision. Raises LineageError unless its number is above all of the rollout, and none that it has.

        beside: numbers of rows that are no decisions, as no key of the fleet sealed them: above these it need not be.
        """

    def decisions(self, id: int) -> list[DecisionRow]:
        """Return what was decided, oldest first."""

    def assign(self, id: int, lineages: Iterable[int], phase: int, now: int) -> int:
        """Take models into a phase; those that are in the rollout stay where they are. Return how many are new."""

    def assignments(self, id: int, phase: int | None = None, states: Iterable[str] = ()) -> list[AssignmentRow]:
        """Return the models of a rollout by phase and in the order in which they came. states: these alone; none: all."""

    def assignment(self, id: int, lineage: int) -> AssignmentRow | None: ...

    def assigned(self, lineage: int) -> list[AssignmentRow]:
        """Return in which rollouts a model is or was, oldest first."""

    def waiting(self, id: int, limit: int, phase: int | None = None) -> list[AssignmentRow]:
        """Return models that were not offered anything yet and are not frozen, at most so many. phase: up to this one."""

    def tallies(self, id: int) -> list[RolloutTally]:
        """Return how many of a rollout's models stand alike, by phase, state, code and whether on the way back."""

    def put_desired(self, row: DesiredRow) -> DesiredRow:
        """Keep what a model is to run; its assignment is offered. Raises LineageError unless the model is in the rollout and the number is
        above all of it.
        """

    def desired(self, lineage: int) -> list[DesiredRow]:
        """Return all that a model was ever to run, by number."""

    def newest_desired(self, lineage: int) -> DesiredRow | None: ...

    def open_desired(self, now: int, after: int, limit: int = 1000) -> list[DesiredRow]:
        """Return what is to be told, in the order in which it came: the newest of each model, neither ended nor expired, with an id above
        `after`.
        """

    def desired_for_hello(self, lineage: int, now: int) -> DesiredRow | None:
        """Return what a model is to be told that says hello: its newest desired, unless that ended, or expired before it reported on it."""

    def take_report(self, lineage: int, report: Report, figures: DeviceFigures | None, data: bytes, now: int) -> ReportTaken:
        """Keep a report, one a state of each desired, and move the assignment on. With a final state that desired and all before it end.

        data: the report as its device signed it, which was verified.
        """

    def reports(self, lineage: int, number: int | None = None) -> list[ReportRow]:
        """Return what was reported of a model, or of one of its desireds, in the order of numbers and times."""

    def freeze(self, frozen: FrozenRow) -> None:
        """Leave a device out; one that is left out already has the new reason."""

    def unfreeze(self, device: str, model: str = "") -> bool:
        """Take a device in again; return whether it was left out."""

    def frozen(self) -> list[FrozenRow]:
        """Return who is left out, by name."""

    def is_frozen(self, device: str, model: str) -> bool: ...

    def forget_plan(self, id: int) -> None:
        """Drop the plan of a rollout that names a device under erasure. Raises LineageError where none is erased."""
