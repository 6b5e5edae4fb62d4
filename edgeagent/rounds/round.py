"""One round: open it, train on what the device saw, settle: queue the update that the guard lets pass, or leave all as it was."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace

from edgeagent.board.budget import Cost
from edgeagent.features.by_recipe import Provenance
from edgeagent.planning.choosing import WeighedUpdate
from edgeagent.samples import cards
from edgeagent.state.history import Head
from edgeagent.state.lineage import Lineage
from edgeagent.state.outcome import Outcome, metrics, said
from edgeagent.system.clock import Clock
from edgeagent.training import guard
from edgeagent.training.guard import Verdict
from modelwire.errors import (
    BudgetExhausted,
    ModelWireError,
    NonFinite,
    NotEnoughSamples,
    OverBudget,
    RuntimeLost,
    TooLarge,
    TrainingDiverged,
)
from modelwire.lattice.snap import Snapped
from modelwire.update.container import Sealed
from modelwire.update.sections import Kind, changed
from modelwire.wire import cbor

from .fitting import CLOSINGS
from .opening import Progress, UnderWay, open_round
from .resuming import interrupted, keeping_samples, start_of
from .standing import Standing
from .starts import Start
from .weighing import note_outcome, sizes, weighed

_log = logging.getLogger("edgeagent")


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What a round came to. `version` is None when the guard rejected it, or when it was only tried."""

    model: str
    round: int
    accepted: bool
    reason: str
    version: int | None
    kind: str
    outcome: Outcome
    bytes: int  # of the container
    kept: int  # weights that the update changes
    weights: int  # of the whole model
    seconds: float
    error: ModelWireError | None = None
    why: str = ""  # why this mode and so many epochs; empty when nothing stood against what the settings ask for
    note: str = ""  # why the update is of another kind than the settings ask for
    forms: Mapping[str, int] = field(default_factory=dict)  # bytes of each kind of update that says this version
    decided: WeighedUpdate | None = None  # what was weighed; None where the settings say the kind


@dataclass(frozen=True, slots=True)
class Trained:
    """A round up to the guard's verdict; nothing is written yet, and the state has moved when there is an update."""

    outcome: Outcome
    snapped: Snapped | None
    verdict: Verdict
    error: ModelWireError | None = None
    recipe: Provenance | None = None  # what is sent in the place of the sections
    seconds: float = 0.0  # that its closing took


@dataclass(frozen=True, slots=True)
class JudgedRound:
    """What would be sent of a round, and whether its guard lets it."""

    forms: list[Sealed]  # the one to send first; none where nothing can be sent
    verdict: Verdict
    error: ModelWireError | None = None
    decided: WeighedUpdate | None = None
    seconds: float = 0.0  # that the sealing of all forms took

    @property
    def sealed(self) -> Sealed | None:
        return self.forms[0] if self.forms else None

    def keeper(self, lineage: Lineage, now: int) -> Callable[[int], None]:
        """Return what writes the decision down beside the version that it is about."""
        d = self.decided
        return (lambda version: None) if d is None else lambda version: lineage.plans.keep(version, d.choice, d.hold, d.document, now)


Round = Generator[Progress, None, RoundReport]


def check_due(standing: Standing, outbox_bytes: int) -> None:
    """Raise NotWelcome, NotEnoughSamples or OutboxFull when a round can't be done now."""
    lineage, spool, settings = standing.lineage, standing.spool, standing.settings
    lineage.check_welcome(lineage.head())
    have = spool.count(lineage.name)
    if have < settings.train.min_samples:
        raise NotEnoughSamples(model=lineage.name, have=have, need=settings.train.min_samples)
    if 0 in spool.sides(lineage.name, settings.train.held_out):
        raise NotEnoughSamples(model=lineage.name, have=have, need=have + 1)
    try:
        lineage.outbox.check_room(settings.update.max_bytes, outbox_bytes)
    except BudgetExhausted:
        _make_room(lineage, settings.update.max_bytes, outbox_bytes)
        lineage.outbox.check_room(settings.update.max_bytes, outbox_bytes)


def run(standing: Standing, start: Start | None = None) -> Round:
    """Do one round, yielding after each step, and return its report; or take up the one that was interrupted.

    Closing the generator changes nothing of the model; the next round goes on after the last step.
    start: of which kind it is; None for one that is kept, as settings and journal say.
    """
    if start is None:
        start = start_of(standing, interrupted(standing))
    with keeping_samples(standing) if start.keep else contextlib.nullcontext():
        began = standing.clock.monotonic()
        under_way = yield from open_round(standing, start)
        with contextlib.closing(under_way.learner):
            trained = yield from train(under_way, standing.clock)
            return settle(standing, start, under_way, trained, began)


def train(under_way: UnderWay, clock: Clock) -> Generator[Progress, None, Trained]:
    """Take the steps that are left, close the course on the state, and score what it came to."""
    facts, course, journal, learner, watch = under_way.facts, under_way.course, under_way.journal, under_way.learner, under_way.watch
    if under_way.why:
        _log.info("%s: mode %s, %d epochs: %s", watch.model, facts.mode, facts.epochs, under_way.why)
    outcome = Outcome(facts.round, under_way.before, None, under_way.training, 0, facts.until, 0, mode=facts.mode, card=under_way.card)
    try:
        while course.done < course.steps and not (under_way.seconds and course.done and journal.spent >= under_way.seconds):
            began = clock.monotonic()
            watch.look(began)
            loss = course.step()
            journal.after_step(course, clock.monotonic() - began)
            yield Progress(course.mode, course.done, course.steps, loss, journal.spent)
        outcome, began = replace(outcome, steps=course.done), clock.monotonic()
        closed = CLOSINGS[under_way.closing](course, learner, under_way.parent, outcome)
    except (TrainingDiverged, NonFinite, BudgetExhausted) as e:
        return Trained(replace(outcome, steps=course.done), None, Verdict(False, e.message), e)
    except GeneratorExit:
        with contextlib.suppress(RuntimeLost):  # what was written before stands
            journal.write(course)
        journal.close()
        raise
    except RuntimeLost:
        journal.close()
        raise
    finally:
        if journal.trouble:
            _log.warning("%s: a kill would have cost the round under way: %s: %s", watch.model, journal.path, journal.trouble)
    outcome, snapped, took = closed.outcome, closed.snapped, clock.monotonic() - began
    if not snapped.sections and snapped.kind is not Kind.SNAPSHOT:
        return Trained(outcome, None, Verdict(False, "the round changed nothing that is worth a step of the lattice"))
    after = learner.score(snapped.state.named())
    snapped, threshold = learner.settled(snapped)
    learner.close()
    card = outcome.card and cards.with_accuracies(outcome.card, under_way.places, after.right)
    return Trained(replace(outcome, after=after, threshold=threshold, card=card), snapped, Verdict(True), None, closed.recipe, took)


def settle(standing: Standing, start: Start, under_way: UnderWay, trained: Trained, began: float) -> RoundReport:
    """Let the guard judge; then write the update down, or that there is none, and end the round's journal."""
    lineage, learner, snapped = standing.lineage, under_way.learner, trained.snapped
    outcome = replace(trained.outcome, ended=int(standing.clock.wall()))
    head = lineage.head()  # its number and commit may have moved while the round ran; its weights only move here
    if not start.keep and not head.epoch:
        head = replace(head, epoch=1)  # any number: the size is the same
    judged = _judged(standing, under_way, head, trained, outcome)
    sealed, verdict, error, before_at = judged.sealed, judged.verdict, judged.error, head.trained_at
    version = None
    if snapped is not None and sealed is not None:
        if verdict.accepted and start.keep:
            written = lineage.store.write(head.slot, snapped.state, snapped.residual)
            beside = judged.keeper(lineage, outcome.ended)
            version = lineage.adopt(head, snapped, written, sealed, outcome, note=learner.note, beside=beside)
            standing.spool.cards.carded(lineage.name, lineage.head().carded_id)
            lineage.serve()
        elif start.trial:
            lineage.store.contents(snapped.state, snapped.residual)  # takes its memory, as in a round that is kept
    if snapped is not None and not verdict.accepted:
        snapped.undo()
    if not verdict.accepted and start.keep:
        # A snapshot with larger units that is too large now will be so again: the next round stays within the units that there are.
        lineage.reject(head, outcome, verdict.reason, widen=() if isinstance(error, TooLarge) else head.widen)
    under_way.journal.drop()
    if start.keep:
        memory = under_way.watch.most - under_way.idle
        _note_cost(lineage, under_way, memory, outcome, error)
        if version is not None:
            took = trained.seconds + judged.seconds
            note_outcome(lineage, under_way, outcome, memory=memory, encode_s=took, before_at=before_at)
    size, kept, kind = 0, 0, ""
    if snapped is not None and sealed is not None:
        size, kept, kind = len(sealed.data), changed(snapped.sections), sealed.header.kind.name.lower()
    return RoundReport(
        lineage.name, outcome.round, verdict.accepted, verdict.reason, version, kind, outcome, size, kept,
        lineage.manifest.schema.size, standing.clock.monotonic() - began, error, under_way.why, learner.note,
        sizes(judged.forms), judged.decided,
    )  # fmt: skip


def _judged(standing: Standing, under_way: UnderWay, head: Head, trained: Trained, outcome: Outcome) -> JudgedRound:
    """Return the sealed updates that would say a round's version, the one to send first, with the guard's verdict."""
    lineage, update, snapped = standing.lineage, standing.settings.update, trained.snapped
    if snapped is None:
        return JudgedRound([], trained.verdict, trained.error)
    began = standing.clock.monotonic()
    try:
        forms = _forms(lineage, head, snapped, trained.recipe, metrics(outcome, snapped.clamped), update.recipe_always)
    except TooLarge as e:
        return JudgedRound([], Verdict(False, e.message), e)
    took = standing.clock.monotonic() - began
    forms, decided = weighed(lineage, under_way.parent.planner, forms, outcome.ended)
    size, kind = len(forms[0].data), forms[0].header.kind
    most = update.max_bytes if kind in (Kind.DELTA, Kind.RECIPE) else None
    assert outcome.before is not None and outcome.after is not None
    verdict = guard.judge(outcome.before, outcome.after, margin=standing.settings.train.margin, size=size, budget=most)
    return JudgedRound(forms, verdict, trained.error, decided, took)


def _forms(
    lineage: Lineage, head: Head, snapped: Snapped, recipe: Provenance | None, extension: Mapping[str, cbor.Value], recipe_always: bool
) -> list[Sealed]:
    """Return each kind of update that says this version, the smallest first; a recipe before all, where one is always wanted.

    Raises TooLarge when no container holds it.
    """
    forms = {snapped.kind: snapped.sections}
    if snapped.kind is not Kind.SNAPSHOT:
        forms[Kind.SNAPSHOT] = snapped.state.snapshot()
    if recipe is None:
        return lineage.seal_smallest(head, forms, snapped.state, extension)
    own = lineage.seal(head, Kind.RECIPE, (), snapped.state, {**extension, **recipe.extension}, recipe=recipe.body)
    try:
        others = lineage.seal_smallest(head, forms, snapped.state, extension)
    except TooLarge:
        others = []
    if recipe_always or not others or len(own.data) < len(others[0].data):
        return [own, *others]
    return [*others, own]


def _make_room(lineage: Lineage, need: int, outbox_bytes: int) -> None:
    """Let one update take the place of those that were never offered; recipes are given up only when that is not enough."""
    with contextlib.suppress(TooLarge):  # then they stay apart, and the outbox is full
        lineage.coalesce()
        recipes = lineage.recipes_queued()
        try:
            lineage.outbox.check_room(need, outbox_bytes)
        except BudgetExhausted:
            if recipes:
                lineage.coalesce(give_up_recipes=True)
            if recipes and not lineage.recipes_queued():
                _log.warning("%s: the outbox is full: a snapshot takes the place of the recipes of %s", lineage.name, said(recipes))


def _note_cost(lineage: Lineage, under_way: UnderWay, memory: int, outcome: Outcome, error: ModelWireError | None) -> None:
    """Remember what a real round took: a mode that was too large is not planned again, and steps are as slow as they are."""
    facts, done = under_way.facts, under_way.course.done
    known = lineage.costs.of(facts.runtime).get(facts.mode)
    if not done or (known is None and not isinstance(error, OverBudget)):
        return  # only `edgeagent measure` sees the peaks between steps
    step = under_way.journal.spent / done
    if known is None or memory > known.memory + 2 * (under_way.loaded - known.samples):
        known = Cost(step, memory, under_way.loaded)
    lineage.costs.note(facts.runtime, facts.mode, replace(known, seconds=step), outcome.ended)
