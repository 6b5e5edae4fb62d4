"""Opens a round: what it learns with, its plan, and its course, which begins or goes on where a kill or a stop interrupted it."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TypeVar

from edgeagent.board import budget
from edgeagent.board.budget import AUTO, Plan, Work
from edgeagent.features.exact_course import MODE as FEATURES
from edgeagent.features.gathering import Extractors
from edgeagent.features.head_file import modes_of
from edgeagent.features.rows_learner import RowsLearner
from edgeagent.samples.spool import Samples
from edgeagent.state.outcome import Outcome
from edgeagent.state.slots import StoredModel
from edgeagent.training.batches import seed_of, steps_of
from edgeagent.training.course import Course, Lesson
from edgeagent.training.guard import Score
from edgeagent.training.learner import Learner, ModelLearner
from edgecommon.memory import give_back
from modelwire.cards.card import CARD_MAX, Card
from modelwire.errors import NotEnoughSamples, NotTrainable
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import training_start

from . import fitting, resuming
from .journal import Journal, RoundFacts
from .standing import Standing
from .starts import Start

CARD_SHARE = 4  # a data card takes a quarter of an update's bytes at most
NO_RECIPE = "no recipe: only mode features trains what a recipe can say"
Gathered = TypeVar("Gathered")
_log = logging.getLogger("edgeagent")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a round stands after a step; before the first, while features are computed, with no steps at all."""

    mode: str
    done: int  # steps, those before it was taken up included
    steps: int
    loss: float
    seconds: float  # of training so far


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A round whose course has begun."""

    facts: RoundFacts
    course: Course
    journal: Journal
    learner: Learner
    stored: StoredModel  # the model as it was; its state moves with the round
    residual: Residual  # to give to the snap
    card: Card | None
    idle: int  # bytes that the process held before
    training: int  # samples
    loaded: int  # bytes of all samples
    why: str = ""  # why this mode and so many epochs

    @property
    def before(self) -> Score:
        """The score of the model as it was."""
        return Score(float("nan") if self.facts.loss is None else self.facts.loss, self.facts.accuracy)


@dataclass(frozen=True, slots=True)
class _Source:
    """What a round's learner is made of."""

    stored: StoredModel
    idle: int
    learner: Callable[[int], Learner]  # on the samples up to an id
    until: int  # to hold when it is made once more; 0: all that have come
    card: Card | None = None  # where the learner had to know of it


def open_round(standing: Standing, start: Start) -> Generator[Progress, None, UnderWay]:
    """Return a round that has begun, or goes on. Raises NotEnoughSamples, NoModeFits or NotTrainable."""
    name, spool, left = standing.name, standing.spool, start.left
    if left and (why := resuming.too_large(standing, left.facts)):
        resuming.give_up(standing, left, why)
        left = None
    until = spool.hold(name, left.facts.until if left else 0) if start.keep else spool.last_id(name)
    source = yield from _source(standing, start, left.facts.mode if left else start.mode, until)
    learner = source.learner(until)
    if start.keep:
        standing.lineage.set_runtime(learner.runtime_key)
    if left:
        lesson, residual = _lesson(standing, source.stored, learner, left.facts)
        resumed = resuming.resumed(left, learner, lesson)
        if not isinstance(resumed, str):
            return _under_way(standing, start, source, learner, left.facts, resumed, residual)
        resuming.give_up(standing, left, resumed)
        until = spool.hold(name, source.until)
        learner = source.learner(until)
    if not len(learner.training) or not len(learner.judging):
        have = len(learner.training) + len(learner.judging)
        raise NotEnoughSamples(model=name, have=have, need=standing.settings.train.min_samples)
    plan = start.trial.plan if start.trial else _plan(standing, learner, source.idle)
    facts = _facts(standing, plan, learner, source.stored, until)
    lesson, residual = _lesson(standing, source.stored, learner, facts)
    return _under_way(standing, start, source, learner, facts, (learner.begin(plan.mode, lesson), 0.0), residual, plan.why)


def on_features(standing: Standing, mode: str) -> bool:
    """Return whether a round would be in mode features, as far as that can be told before anything is opened. mode: one, or auto.

    Raises NoModeFits, which tells of mode features too.
    """
    return mode == FEATURES or (mode == AUTO and _ahead(standing) == FEATURES)


def preparing(gathering: Generator[None, None, Gathered]) -> Generator[Progress, None, Gathered]:
    """Let the link be served while features are computed."""
    with contextlib.closing(gathering):  # ends the process that computes them
        while True:
            try:
                next(gathering)
            except StopIteration as end:
                gathered: Gathered = end.value
                return gathered
            yield Progress(FEATURES, 0, 0, float("nan"), 0.0)


def loaded(training: Samples, judging: Samples) -> int:
    """Return the bytes that the samples take in memory."""
    return sum(s.x.nbytes + s.y.nbytes for s in (training, judging))


def _ahead(standing: Standing) -> str:
    """Return the mode that `auto` comes to by what was measured, before anything is opened; empty when that can't be told."""
    name, settings = standing.name, standing.settings
    costs = standing.lineage.costs.of(standing.lineage.head().runtime)
    if not budget.limited(settings.budget) or FEATURES not in costs:
        return ""
    modes, batch = modes_of(standing.lineage.store.base_file, name)
    training, judging = standing.spool.sides(name, settings.train.held_out)
    shape = standing.spool.shape(name)
    size = (training + judging) * 4 * (math.prod(shape.x) + math.prod(shape.y))
    costs[FEATURES] = replace(costs[FEATURES], samples=size)  # it loads none of them
    work = Work(settings.train.epochs, steps_of(training, batch, 1), size, standing.memory.idle(name))
    return budget.plan(modes, costs, model=name, wish=AUTO, budget=settings.budget, work=work).mode


def _source(standing: Standing, start: Start, mode: str, until: int) -> Generator[Progress, None, _Source]:
    """Gather the samples as features, or open the model."""
    if standing.extractors is not None and on_features(standing, mode):
        try:
            return (yield from _rows(standing, standing.extractors, start, until))
        except NotTrainable as e:  # then another mode may fit
            if mode == FEATURES:
                raise
            _log.info("%s", e.message)
    name, settings = standing.name, standing.settings
    stored = standing.lineage.load()
    model = standing.open_model(stored.file, name)
    give_back()

    def learner(until: int) -> Learner:
        samples = (start.trial and start.trial.samples) or standing.spool.split(name, settings.train.held_out, until=until)
        note = NO_RECIPE if start.recipe else ""
        return ModelLearner(model, stored.file, *samples, name=name, anomaly=settings.anomaly, note=note)

    return _Source(stored, standing.memory.idle(name), learner, 0)


def _rows(standing: Standing, extractors: Extractors, start: Start, until: int) -> Generator[Progress, None, _Source]:
    name, settings, lineage = standing.name, standing.settings, standing.lineage
    give_back()
    idle = standing.memory.idle(name)
    gathered = yield from preparing(
        extractors.gather(standing.base, standing.spool, held_out=settings.train.held_out, until=until, share=settings.budget.max_cpu)
    )
    stored = lineage.load()
    card = _card(standing, gathered.known.runtime_key, until, len(gathered.judging), keep=start.keep)
    blank = Outcome(0, Score(0.0, 0.0), None, len(gathered.training), 1 << 31, until, 0, mode=FEATURES, card=card)
    names = fitting.names_of(lineage.board.device, name, lineage.manifest)
    room = settings.update.max_bytes - fitting.overhead(names, blank, ())
    rows = RowsLearner(gathered, stored.state, optimizer=settings.train.optimizer, recipe_room=room if start.recipe else None)
    return _Source(stored, idle, lambda _: rows, until, card)


def _card(standing: Standing, runtime: str, until: int, judged: int, *, keep: bool) -> Card | None:
    settings = standing.settings
    room = min(CARD_MAX, settings.update.max_bytes // CARD_SHARE)
    return standing.spool.cards.beside(
        standing.name, until, runtime=runtime, told=standing.lineage.told(), judged=judged, privacy=settings.privacy, room=room, keep=keep
    )


def _plan(standing: Standing, learner: Learner, idle: int) -> Plan:
    settings = standing.settings
    work = Work(settings.train.epochs, steps_of(len(learner.training), learner.batch, 1), loaded(learner.training, learner.judging), idle)
    costs = standing.lineage.costs.of(learner.runtime_key)
    return budget.plan(learner.modes, costs, model=standing.name, wish=settings.train.mode, budget=settings.budget, work=work)


def _facts(standing: Standing, plan: Plan, learner: Learner, stored: StoredModel, until: int) -> RoundFacts:
    lineage, head = standing.lineage, standing.lineage.head()
    before = learner.score(stored.state.named())
    seed = seed_of(lineage.board.device, lineage.name, head.next_version, head.rounds + 1)
    return RoundFacts(
        lineage.base_commit.hex(), head.file_sha256.hex(), head.private_sha256.hex(), head.rounds + 1, plan.mode, "",
        resuming.shaping(standing.settings), plan.epochs, until, resuming.ids_of(learner.training, learner.judging), str(seed),
        before.loss if math.isfinite(before.loss) else None, before.accuracy, 0, True,
    )  # fmt: skip


def _lesson(standing: Standing, stored: StoredModel, learner: Learner, facts: RoundFacts) -> tuple[Lesson, Residual]:
    """Return what the round is to learn, and the residual to give to its snap."""
    first, residual = training_start(stored.state, stored.residual)
    weights, train = standing.lineage.manifest.schema.shaped(first), standing.settings.train
    lesson = Lesson(standing.name, learner.training, weights, facts.epochs, train.learning_rate, int(facts.seed), train.balance)
    return lesson, residual


def _under_way(
    standing: Standing, start: Start, source: _Source, learner: Learner, facts: RoundFacts, resumed: tuple[Course, float],
    residual: Residual, why: str = "",
) -> UnderWay:  # fmt: skip
    course, spent = resumed
    facts = replace(facts, runtime=learner.runtime_key, steps=course.steps, whole=course.whole)
    writes = Journal(standing.lineage.journal if start.keep else None, facts, clock=standing.clock, spent=spent)
    card = source.card or _card(standing, learner.runtime_key, facts.until, len(learner.judging), keep=start.keep)
    size = loaded(learner.training, learner.judging)
    return UnderWay(facts, course, writes, learner, source.stored, residual, card, source.idle, len(learner.training), size, why)
