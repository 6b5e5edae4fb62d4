"""One round: train on what the device saw, snap to the lattice, let the guard judge, then queue the update or leave all as it was."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from modelwire import cbor
from modelwire.candidates import Residual
from modelwire.errors import BudgetExhausted, ModelWireError, NonFinite, NotEnoughSamples, TooLarge, TrainingDiverged
from modelwire.snap import Snapped, exactly, snap, training_start
from modelwire.tensors import Weights
from modelwire.update import Kind, changed

from . import anomaly, guard, trainer
from .course import Lesson, courses_for
from .lineage import Head, Lineage
from .outcome import Outcome, metrics
from .settings import Model
from .spool import Samples, Spool
from .store import Held
from .trainer import Trainable

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


@dataclass(frozen=True, slots=True)
class _Trained:
    """A round up to the guard's verdict; nothing is written yet, and the held state has moved when there is an update."""

    outcome: Outcome
    snapped: Snapped | None
    verdict: guard.Verdict
    error: ModelWireError | None = None


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
        with contextlib.suppress(TooLarge):  # then they stay apart, and the outbox is full
            lineage.coalesce()
        lineage.outbox.check_room(settings.update.max_bytes, outbox_bytes)


def run(lineage: Lineage, spool: Spool, settings: Model, open_model: OpenModel, *, now: Callable[[], float], keep: bool = True) -> Round:
    """Do one round, yielding each step's loss, and return its report. Closing the generator abandons it: nothing was changed.

    keep=False: only find out what the round would cost. now: Unix seconds.
    """
    began = time.monotonic()
    until = spool.last_id(lineage.name)
    held = lineage.load()
    model = open_model(held.file, lineage.name)
    if keep:
        lineage.set_runtime(model.runtime_key)
    trained = yield from _train(lineage, spool, settings, model, held, until)
    outcome = replace(trained.outcome, at=int(now()))
    head = lineage.head()  # its number and commit may have moved while the round ran; its weights only move here
    if not keep and not head.epoch:
        head = replace(head, epoch=1)  # any number: the size is the same
    size = kept = 0
    version, kind, verdict, error, body = None, "", trained.verdict, trained.error, b""
    snapped = trained.snapped
    if snapped is not None and verdict.accepted:
        try:
            body = lineage.seal(head, snapped.kind, snapped.sections, snapped.state, metrics(outcome, snapped.clamped))
        except TooLarge as e:
            verdict, error = guard.Verdict(False, e.message), e
    if snapped is not None and body:
        size, kept, kind = len(body), changed(snapped.sections), snapped.kind.name.lower()
        budget = settings.update.max_bytes if snapped.kind is Kind.DELTA else None
        assert outcome.before is not None and outcome.after is not None
        verdict = guard.judge(outcome.before, outcome.after, margin=settings.train.margin, size=size, budget=budget)
        if verdict.accepted and keep:
            written = lineage.store.write(head.slot, snapped.state, snapped.residual)
            version = lineage.adopt(head, snapped, written, body, outcome)
            lineage.serve()
    if snapped is not None and not verdict.accepted:
        snapped.undo()
    if not verdict.accepted and keep:
        # A snapshot with larger units that is too large now will be so again: the next round stays within the units that there are.
        lineage.reject(head, outcome, verdict.reason, widen=() if isinstance(error, TooLarge) else head.widen)
    return Report(
        lineage.name, outcome.round, verdict.accepted, verdict.reason, version, kind, outcome, size, kept,
        lineage.manifest.schema.size, time.monotonic() - began, error,
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
    try:
        while course.done < course.steps:
            yield course.step()
        outcome = replace(outcome, steps=course.done)
        snapped = _snap(lineage, settings, head, held, residual, course.trained(), outcome)
    except (TrainingDiverged, NonFinite, BudgetExhausted) as e:
        return _Trained(replace(outcome, steps=course.done), None, guard.Verdict(False, e.message), e)
    if not snapped.sections and snapped.kind is not Kind.SNAPSHOT:
        return _Trained(outcome, None, guard.Verdict(False, "the round changed nothing that is worth a step of the lattice"))
    after = _measure_snapped(model, snapped, judging)
    snapped, threshold = anomaly.settle(snapped, model, judging.x, settings.anomaly)
    return _Trained(replace(outcome, after=after, threshold=threshold), snapped, guard.Verdict(True))


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
    threshold = 0 if anomaly.place_of(lineage.manifest) is None else anomaly.BYTES
    return len(lineage.board.device) + len(lineage.name) + len(cbor.encode(extension)) + threshold


def _measure_snapped(model: Trainable, snapped: Snapped, judging: Samples) -> guard.Score:
    model.set_weights(snapped.state.named())
    return guard.measure(model, judging)
