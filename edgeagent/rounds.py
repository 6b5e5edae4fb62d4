"""One round: train on what the device saw, snap to the lattice, let the guard judge, then queue the update or leave all as it was."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from modelwire import cbor
from modelwire.candidates import Residual
from modelwire.errors import BudgetExhausted, ModelWireError, NonFinite, NotEnoughSamples, NotTrainable, TooLarge, TrainingDiverged
from modelwire.snap import Snapped, exactly, snap, training_start
from modelwire.tensors import Weights
from modelwire.update import Kind, changed

from . import by_recipe, guard, trainer
from .course import Course, Lesson, courses_for
from .head_course import MODE as FEATURES
from .lineage import Head, Lineage
from .on_features import Extractors, OnFeatures
from .outcome import Outcome, metrics, said
from .settings import Model
from .spool import Samples, Spool
from .store import Held
from .trainer import Trainable

_log = logging.getLogger("edgeagent.rounds")
OpenModel = Callable[[bytes, str], Trainable]


@dataclass(frozen=True, slots=True)
class Report:
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
    note: str = ""  # why the round went another way than the settings say


@dataclass(frozen=True, slots=True)
class _Trained:
    """A round up to the guard's verdict; nothing is written yet, and the held state has moved when there is an update."""

    outcome: Outcome
    snapped: Snapped | None
    verdict: guard.Verdict
    error: ModelWireError | None = None
    recipe: by_recipe.Provenance | None = None  # what is sent in the place of the sections
    note: str = ""  # for the log and the version's row


Round = Generator[float, None, Report]


def check_due(lineage: Lineage, spool: Spool, settings: Model, outbox_bytes: int) -> None:
    """Raise NotWelcome, NotEnoughSamples or OutboxFull when a round can't be done now."""
    lineage.check_welcome(lineage.head())
    have = spool.count(lineage.name)
    if have < settings.train.min_samples:
        raise NotEnoughSamples(model=lineage.name, have=have, need=settings.train.min_samples)
    if 0 in spool.sides(lineage.name, settings.train.held_out):
        raise NotEnoughSamples(model=lineage.name, have=have, need=have + 1)
    try:
        lineage.outbox.check_room(settings.update.max_bytes, outbox_bytes)
    except BudgetExhausted:
        _make_room(lineage, settings, outbox_bytes)
        lineage.outbox.check_room(settings.update.max_bytes, outbox_bytes)


def _make_room(lineage: Lineage, settings: Model, outbox_bytes: int) -> None:
    """Let one update take the place of those that were never offered; recipes are given up only when that is not enough."""
    with contextlib.suppress(TooLarge):  # then they stay apart, and the outbox is full
        lineage.coalesce()
        recipes = lineage.recipes_queued()
        try:
            lineage.outbox.check_room(settings.update.max_bytes, outbox_bytes)
        except BudgetExhausted:
            if recipes:
                lineage.coalesce(give_up_recipes=True)
            if recipes and not lineage.recipes_queued():
                _log.warning("%s: the outbox is full: a snapshot takes the place of the recipes of %s", lineage.name, said(recipes))


def run(
    lineage: Lineage, spool: Spool, settings: Model, open_model: OpenModel, *, now: Callable[[], float], keep: bool = True,
    extractors: Extractors | None = None,
) -> Round:  # fmt: skip
    """Do one round, yielding each step's loss, and return its report. Closing the generator abandons it: nothing was changed.

    keep=False: only find out what the round would cost. now: Unix seconds. extractors: what mode features needs.
    While it prepares it yields NaN.
    """
    began = time.monotonic()
    until = spool.last_id(lineage.name)
    if settings.train.mode == FEATURES:
        if extractors is None:
            raise NotTrainable(model=lineage.name, reason="mode features: nothing here computes features")
        gathered = yield from extractors.gather(lineage, spool, held_out=settings.train.held_out, until=until)
        held = lineage.load()  # after the interpreter has gone
        if keep:
            lineage.set_runtime(gathered.runtime_key)
        trained = yield from _train_on_features(lineage, settings, gathered, held, until)
    else:
        held = lineage.load()
        model = open_model(held.file, lineage.name)
        if keep:
            lineage.set_runtime(model.runtime_key)
        trained = yield from _train(lineage, spool, settings, model, held, until)
        if settings.update.kind == "recipe":
            trained = replace(trained, note="no recipe: only mode features trains what a recipe can say")
    outcome = replace(trained.outcome, at=int(now()))
    head = lineage.head()  # its number and commit may have moved while the round ran; its weights only move here
    if not keep and not head.epoch:
        head = replace(head, epoch=1)  # any number: the size is the same
    size = kept = 0
    version, kind, verdict, error, body = None, "", trained.verdict, trained.error, b""
    snapped = trained.snapped
    if snapped is not None and verdict.accepted:
        try:
            extension = metrics(outcome, snapped.clamped)
            if trained.recipe is None:
                body = lineage.seal(head, snapped.kind, snapped.sections, snapped.state, extension)
            else:
                extension |= trained.recipe.extension
                body = lineage.seal(head, Kind.RECIPE, (), snapped.state, extension, recipe=trained.recipe.body)
        except TooLarge as e:
            verdict, error = guard.Verdict(False, e.message), e
    if snapped is not None and body:
        size, kept, kind = len(body), changed(snapped.sections), "recipe" if trained.recipe else snapped.kind.name.lower()
        budget = settings.update.max_bytes if trained.recipe or snapped.kind is Kind.DELTA else None
        assert outcome.before is not None and outcome.after is not None
        verdict = guard.judge(outcome.before, outcome.after, margin=settings.train.margin, size=size, budget=budget)
        if verdict.accepted and keep:
            written = lineage.store.write(head.slot, snapped.state, snapped.residual)
            version = lineage.adopt(head, snapped, written, body, outcome, note=trained.note)
            lineage.serve()
    if snapped is not None and not verdict.accepted:
        snapped.undo()
    if not verdict.accepted and keep:
        # A snapshot with larger units that is too large now will be so again: the next round stays within the units that there are.
        lineage.reject(head, outcome, verdict.reason, widen=() if isinstance(error, TooLarge) else head.widen)
    return Report(
        lineage.name, outcome.round, verdict.accepted, verdict.reason, version, kind, outcome, size, kept,
        lineage.manifest.schema.size, time.monotonic() - began, error, trained.note,
    )  # fmt: skip


def _train(
    lineage: Lineage, spool: Spool, settings: Model, model: Trainable, held: Held, until: int
) -> Generator[float, None, _Trained]:
    head = lineage.head()
    training, judging = spool.split(lineage.name, settings.train.held_out, until=until)
    if not len(training) or not len(judging):
        raise NotEnoughSamples(model=lineage.name, have=len(training) + len(judging), need=settings.train.min_samples)
    outcome = Outcome(head.rounds + 1, guard.measure(model, judging), None, len(training), 0, until, 0)
    seed = trainer.seed_of(lineage.board.device, lineage.name, head.next_version, outcome.round)
    start, residual = training_start(held.state, held.residual)
    lesson = Lesson(
        lineage.name, training, lineage.manifest.schema.shaped(start), settings.train.epochs, settings.train.learning_rate, seed
    )
    course = courses_for(held.file, model=lineage.name)[-1].begin(model, lesson)

    def taken(outcome: Outcome) -> Snapped:
        return _snap(lineage, settings, head, held, residual, course.trained(), outcome)

    def measure(snapped: Snapped) -> guard.Score:
        return _measure_snapped(model, snapped, judging)

    return (yield from _follow(course, outcome, taken, measure))


def _train_on_features(
    lineage: Lineage, settings: Model, gathered: OnFeatures, held: Held, until: int
) -> Generator[float, None, _Trained]:
    gathered.check_front(held.state)
    head, state = lineage.head(), held.state
    outcome = Outcome(head.rounds + 1, gathered.measure(state.named()), None, len(gathered.training), 0, until, 0)
    seed = trainer.seed_of(lineage.board.device, lineage.name, head.next_version, outcome.round)

    def measure(snapped: Snapped) -> guard.Score:
        return gathered.measure(snapped.state.named())

    note = ""
    if settings.update.kind == "recipe":
        planned = by_recipe.plan(gathered, state, settings, seed, room=settings.update.max_bytes - _overhead(lineage, outcome, ()))
        if isinstance(planned, by_recipe.Plan):
            plan = planned
            trained = yield from _follow(plan.course, outcome, lambda _: plan.taken(state, head.step), measure)
            return replace(trained, recipe=plan.provenance)
        note = f"no recipe: {planned}"
    start, residual = training_start(state, held.residual)
    course = gathered.course(lineage.manifest.schema.shaped(start), settings.train, seed)

    def taken(outcome: Outcome) -> Snapped:
        return _snap(lineage, settings, head, held, residual, course.trained(), outcome)

    return replace((yield from _follow(course, outcome, taken, measure)), note=note)


def _follow(
    course: Course, outcome: Outcome, taken: Callable[[Outcome], Snapped], measure: Callable[[Snapped], guard.Score]
) -> Generator[float, None, _Trained]:
    """Take the course to its end, snap what it gave by `taken`, and judge that by `measure`."""
    try:
        while course.done < course.steps:
            yield course.step()
        outcome = replace(outcome, steps=course.done)
        snapped = taken(outcome)
    except (TrainingDiverged, NonFinite, BudgetExhausted) as e:
        return _Trained(replace(outcome, steps=course.done), None, guard.Verdict(False, e.message), e)
    if not snapped.sections and snapped.kind is not Kind.SNAPSHOT:
        return _Trained(outcome, None, guard.Verdict(False, "the round changed nothing that is worth a step of the lattice"))
    return _Trained(replace(outcome, after=measure(snapped)), snapped, guard.Verdict(True))


def _snap(lineage: Lineage, settings: Model, head: Head, held: Held, residual: Residual, weights: Weights, outcome: Outcome) -> Snapped:
    trained = lineage.manifest.schema.flat(weights)
    if lineage.manifest.all_exact:
        return exactly(held.state, trained, residual)
    update = settings.update
    overhead = _overhead(lineage, outcome, ())
    while True:  # which tensors are clamped is known only after the snap, and their list takes room: it rises, so this ends
        snapped = snap(
            held.state, trained, residual,
            density=update.density, max_bytes=update.max_bytes, held=head.step, widen=head.widen, overhead=overhead,
        )  # fmt: skip
        need = _overhead(lineage, outcome, snapped.clamped)
        if need <= overhead or snapped.kind is Kind.SNAPSHOT:
            return snapped
        snapped.undo()
        overhead = need


def _overhead(lineage: Lineage, outcome: Outcome, clamped: tuple[int, ...]) -> int:
    """Return the bytes of names and extension, as if there were both scores: a number takes the same room whatever it is."""
    score = guard.Score(0.0, outcome.before.accuracy if outcome.before is not None else None)
    extension = metrics(replace(outcome, before=score, after=score), clamped)
    return len(lineage.board.device) + len(lineage.name) + len(cbor.encode(extension))


def _measure_snapped(model: Trainable, snapped: Snapped, judging: Samples) -> guard.Score:
    model.set_weights(snapped.state.named())
    return guard.measure(model, judging)
