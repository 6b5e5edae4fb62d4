"""Closes a trained round: moves the state as its kind says, so that the whole update stays within its budget of bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from edgeagent.features.by_recipe import Provenance, RecipeCourse
from edgeagent.features.exact_course import RECIPE
from edgeagent.planning.choosing import RoundPlanner
from edgeagent.samples.cards import LOSSES_ROOM
from edgeagent.state.outcome import Outcome, metrics
from edgeagent.training import guard
from edgeagent.training.course import Course
from edgeagent.training.learner import Learner
from modelwire.errors import BudgetExhausted
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import Snapped, Step, exactly, snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import Weights
from modelwire.update.container import SMALLEST as FIXED_BYTES
from modelwire.update.sections import Kind
from modelwire.wire import cbor

EXACT, LATTICE = "exact", "lattice"  # closings by weights


@dataclass(frozen=True, slots=True)
class Parent:
    """What a round moves, and within what."""

    state: ModelState  # it has moved once the round is closed; `Snapped.undo` moves it back
    residual: Residual
    step: Step | None  # of the last adopted round
    widen: tuple[int, ...]
    density: float
    max_bytes: int  # of the whole update
    fixed: int  # bytes of the update that are the same whatever the round comes to
    planner: RoundPlanner | None = None  # decides by cost; None where the settings say how the update goes


@dataclass(frozen=True, slots=True)
class Closed:
    """A trained round on its state. The outcome is without its card where there was no room for one."""

    snapped: Snapped
    outcome: Outcome
    recipe: Provenance | None = None  # what is sent in the place of the sections


def close_by_recipe(course: Course, learner: Learner, parent: Parent, outcome: Outcome) -> Closed:
    """Let the recipe say what the round came to."""
    assert isinstance(course, RecipeCourse)  # as its closing says
    return Closed(course.snap(parent.state, parent.step), outcome, course.provenance())


def close_exactly(course: Course, learner: Learner, parent: Parent, outcome: Outcome) -> Closed:
    """Take every bit of what was trained."""
    weights = _trained(course, learner)
    return Closed(exactly(parent.state, parent.state.manifest.schema.flat(weights), parent.residual), outcome)


def close_on_lattice(course: Course, learner: Learner, parent: Parent, outcome: Outcome) -> Closed:
    """Snap what was trained to the lattice. Raises BudgetExhausted when even the smallest delta is too large."""
    trained = parent.state.manifest.schema.flat(_trained(course, learner))
    need, density, weighed = overhead(parent.fixed, outcome, ()), parent.density, parent.planner is None
    while True:  # which tensors are clamped is known only after the snap, and their list takes room: it rises, so this ends
        try:
            snapped = snap(
                parent.state, trained, parent.residual,
                density=density, max_bytes=parent.max_bytes, held=parent.step, widen=parent.widen, overhead=need,
            )  # fmt: skip
        except BudgetExhausted:
            if outcome.card is None:
                raise
            outcome = replace(outcome, card=None, untold=True)
            need = overhead(parent.fixed, outcome, ())
            continue
        taken = overhead(parent.fixed, outcome, snapped.clamped)
        if not weighed and parent.planner is not None:
            weighed, before, density = True, density, parent.planner.density(snapped, need + FIXED_BYTES)
            if density < before:
                snapped.undo()
                continue
        if taken <= need or snapped.kind is Kind.SNAPSHOT:
            return Closed(snapped, outcome)
        snapped.undo()
        need = taken


CLOSINGS: Mapping[str, Callable[[Course, Learner, Parent, Outcome], Closed]] = {
    RECIPE: close_by_recipe, EXACT: close_exactly, LATTICE: close_on_lattice
}  # fmt: skip


def overhead(fixed: int, outcome: Outcome, clamped: tuple[int, ...]) -> int:
    """Return the bytes of names and extension, as if there were both scores: a number takes the same room whatever it is."""
    score = guard.Score(0.0, outcome.before.accuracy if outcome.before is not None else None)
    extension = metrics(replace(outcome, before=score, after=score), clamped)
    return fixed + len(cbor.encode(extension)) + (LOSSES_ROOM if outcome.card is not None else 0)


def _trained(course: Course, learner: Learner) -> Weights:
    weights = course.trained()
    learner.rest()
    return weights
