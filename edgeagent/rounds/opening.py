"""Opens a round: what it learns with, its plan, and its course, which begins or goes on where a kill or a stop interrupted it."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeagent.board import budget
from edgeagent.board.budget import AUTO, Work
from edgeagent.features.base_file import modes_of, rate_of
from edgeagent.features.exact_course import FEATURES, RECIPE
from edgeagent.features.gathering import Extractors, FeaturesWanted
from edgeagent.features.rows_learner import RowsLearner
from edgeagent.planning.choosing import RoundPlanner
from edgeagent.samples import cards
from edgeagent.samples.cards import Beside
from edgeagent.samples.spool import Samples
from edgeagent.state.outcome import Outcome
from edgeagent.state.slots import StoredModel
from edgeagent.training.batches import seed_of, steps_of
from edgeagent.training.course import Course, Lesson, courses_for
from edgeagent.training.guard import Score
from edgeagent.training.learner import Learner, ModelLearner
from edgecommon.memory import give_back
from modelwire.cards.card import CARD_MAX, Card
from modelwire.errors import NotEnoughSamples, NotTrainable
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import training_start

from . import resuming
from .fitting import EXACT, LATTICE, Parent, overhead
from .journal import Journal, RoundFacts
from .standing import Standing
from .starts import Start
from .watch import MemoryWatch

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
    """A round whose course has begun, with all that its training needs."""

    facts: RoundFacts
    course: Course
    journal: Journal
    learner: Learner
    parent: Parent  # what it moves
    closing: str  # how it moves it
    watch: MemoryWatch
    card: Card | None
    places: Mapping[str, NDArray[np.int64]]  # of the held-out samples of each context whose accuracy the card tells
    idle: int  # bytes that the process held before
    training: int  # samples
    loaded: int  # bytes of all samples
    seconds: float  # of training after which the course ends; 0: when it is done
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
    left, until = resuming.held_samples(standing, start)
    source = yield from _source(standing, start, left.facts.mode if left else start.mode, until)
    learner = source.learner(until)
    if start.keep:
        standing.lineage.set_runtime(learner.runtime_key)
    if left:
        lesson, residual = _lesson(standing, source.stored, learner, left.facts)
        course, spent, why = resuming.resumed(left, learner, lesson)
        if course is not None:
            return _under_way(standing, start, source, learner, left.facts, course, residual, spent=spent)
        until = resuming.held_anew(standing, left, why, source.until)
        learner = source.learner(until)
    facts, why = _planned(standing, start, source, learner, until)
    lesson, residual = _lesson(standing, source.stored, learner, facts)
    return _under_way(standing, start, source, learner, facts, learner.begin(facts.mode, lesson), residual, why=why)


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

    offers, note = courses_for(stored.file, model=name), NO_RECIPE if start.recipe else ""

    def learner(until: int) -> Learner:
        samples = (start.trial and start.trial.samples) or standing.spool.split(name, settings.train.held_out, until=until)
        return ModelLearner(model, offers, *samples, settings.anomaly, note)

    return _Source(stored, standing.memory.idle(name), learner, 0)


def _rows(standing: Standing, extractors: Extractors, start: Start, until: int) -> Generator[Progress, None, _Source]:
    name, settings, lineage = standing.name, standing.settings, standing.lineage
    give_back()
    idle, wanted = standing.memory.idle(name), FeaturesWanted(standing.base, until, settings.budget.max_cpu)
    gathered = yield from preparing(extractors.gather(wanted, settings.train.held_out))
    stored = lineage.load()
    card = _card(standing, gathered.known.runtime_key, until, gathered.judging, keep=start.keep)
    blank = Outcome(0, Score(0.0, 0.0), None, len(gathered.training), 1 << 31, until, 0, mode=FEATURES, card=card)
    against = lineage.against_recipes() if start.recipe else ""
    room = settings.update.max_bytes - overhead(standing.fixed_bytes, blank, ()) if start.recipe and not against else None
    note = f"no recipe: {against}" if against else ""
    rows = RowsLearner(gathered, stored.state, settings.train.optimizer, room, settings.update.checkpoints, note)
    return _Source(stored, idle, lambda _: rows, until, card)


def _contexts(standing: Standing, judging: Samples) -> list[dict[str, str]]:
    return standing.spool.contexts(standing.name, judging.ids) if judging.labelled else []


def _card(standing: Standing, runtime: str, until: int, judging: Samples, *, keep: bool) -> Card | None:
    settings, store = standing.settings, standing.spool.cards
    room = min(CARD_MAX, settings.update.max_bytes // CARD_SHARE)
    update = Beside(runtime, standing.lineage.told(), len(judging), settings.privacy, room, _contexts(standing, judging))
    card = store.begin(standing.name, until) if keep else store.coming(standing.name, until)
    return cards.beside(card, update)


def _planned(standing: Standing, start: Start, source: _Source, learner: Learner, until: int) -> tuple[RoundFacts, str]:
    """Return which round it is to be, without what only its course knows, and why in this mode and so many epochs."""
    name, settings, lineage = standing.name, standing.settings, standing.lineage
    training, judging = learner.training, learner.judging
    if not len(training) or not len(judging):
        raise NotEnoughSamples(model=name, have=len(training) + len(judging), need=settings.train.min_samples)
    if start.trial:
        plan = start.trial.plan
    else:
        work = Work(settings.train.epochs, steps_of(len(training), learner.batch, 1), loaded(training, judging), source.idle)
        costs = lineage.costs.of(learner.runtime_key)
        plan = budget.plan(learner.modes, costs, model=name, wish=settings.train.mode, budget=settings.budget, work=work)
    head, before = lineage.head(), learner.score(source.stored.state.named())
    seed = seed_of(lineage.board.device, name, head.next_version, head.rounds + 1)
    facts = RoundFacts(
        lineage.base_commit.hex(), head.file_sha256.hex(), head.private_sha256.hex(), head.rounds + 1, plan.mode, "", standing.shaping,
        plan.epochs, until, resuming.ids_of(training, judging), str(seed), before.loss if math.isfinite(before.loss) else None,
        before.accuracy, 0, True,
    )  # fmt: skip
    return facts, plan.why


def _lesson(standing: Standing, stored: StoredModel, learner: Learner, facts: RoundFacts) -> tuple[Lesson, Residual]:
    """Return what the round is to learn, and the residual to give to its snap."""
    first, residual = training_start(stored.state, stored.residual)
    weights, train = standing.lineage.manifest.schema.shaped(first), standing.settings.train
    rate = train.learning_rate or rate_of(standing.lineage.store.base_file, standing.name, facts.mode, train.optimizer)
    lesson = Lesson(standing.name, learner.training, weights, facts.epochs, rate, int(facts.seed), train.balance)
    return lesson, residual


def _under_way(
    standing: Standing, start: Start, source: _Source, learner: Learner, facts: RoundFacts, course: Course, residual: Residual, *,
    spent: float = 0.0, why: str = "",
) -> UnderWay:  # fmt: skip
    name, lineage, limits, update = standing.name, standing.lineage, standing.settings.budget, standing.settings.update
    facts = replace(facts, runtime=learner.runtime_key, steps=course.steps, whole=course.whole)
    writes = Journal(
        lineage.journal if start.keep else None, facts, clock=standing.clock, spent=spent, sensors=standing.memory.sensors
    )
    card = source.card or _card(standing, learner.runtime_key, facts.until, learner.judging, keep=start.keep)
    head, closing = lineage.head(), RECIPE if course.closing == RECIPE else EXACT if start.exact else LATTICE
    planner = _planner(standing, facts.mode)
    parent = Parent(
        source.stored.state, residual, head.step, head.widen, update.density, update.max_bytes, standing.fixed_bytes, planner
    )
    watch = MemoryWatch(name, facts.mode, 0 if start.trial else limits.max_ram, standing.memory.sensors)
    seconds = start.trial.plan.seconds if start.trial else limits.max_seconds * limits.max_cpu
    size = loaded(learner.training, learner.judging)
    places = cards.judged_in(_contexts(standing, learner.judging), standing.settings.privacy)
    return UnderWay(
        facts, course, writes, learner, parent, closing, watch, card, places, source.idle, len(learner.training), size, seconds, why
    )  # fmt: skip


def _planner(standing: Standing, mode: str) -> RoundPlanner | None:
    basis, lineage = standing.planning, standing.lineage
    if basis is None:
        return None
    known = not lineage.against_recipes()
    return RoundPlanner(lineage.name, basis, lineage.plans, mode, known, lineage.manifest.schema.size, standing.settings.update.density)
