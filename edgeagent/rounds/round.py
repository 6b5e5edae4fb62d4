"""One round: train on what the device saw, snap to the lattice, let the guard judge, then queue the update or leave all as it was."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from edgeagent.board import budget
from edgeagent.board.budget import Cost, Plan, Work, mib
from edgeagent.board.sensors import Memory, Sensors
from edgeagent.features.by_recipe import Provenance, RecipeCourse
from edgeagent.features.exact_course import MODE as FEATURES
from edgeagent.features.gathering import Extractors
from edgeagent.features.ground import HeadGround
from edgeagent.features.head_file import modes_of
from edgeagent.samples.spool import Samples, Spool
from edgeagent.settings.tree import ModelSettings
from edgeagent.state.lineage import Lineage
from edgeagent.state.outcome import Outcome, metrics, said
from edgeagent.state.slots import Held
from edgeagent.training import batches as trainer
from edgeagent.training import guard
from edgeagent.training.batches import Trainable
from edgeagent.training.course import Offer
from edgeagent.training.on_runtime import Opened
from edgecommon.memory import give_back
from modelwire.cards.card import CARD_MAX, Card
from modelwire.errors import (
    BudgetExhausted,
    ModelWireError,
    NonFinite,
    NotEnoughSamples,
    NotTrainable,
    OverBudget,
    TooLarge,
    TrainingDiverged,
)
from modelwire.lattice.snap import Snapped
from modelwire.update.sections import Kind, changed

from . import fitting
from . import resuming as underway
from .resuming import Ground, UnderWay

CARD_SHARE = 4  # a data card takes a quarter of an update's bytes at most
OpenModel = Callable[[bytes, str], Trainable]
WATCH = 0.05  # seconds of training between two looks at the memory
_log = logging.getLogger("edgeagent")


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
    why: str = ""  # why this mode and so many epochs; empty when nothing stood against what the settings ask for
    note: str = ""  # why the update is of another kind than the settings ask for


@dataclass(frozen=True, slots=True)
class _Trained:
    """A round up to the guard's verdict; nothing is written yet, and the held state has moved when there is an update."""

    outcome: Outcome
    snapped: Snapped | None
    verdict: guard.Verdict
    error: ModelWireError | None = None
    recipe: Provenance | None = None  # what is sent in the place of the sections


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a round stands after a step; before the first, while features are computed, with no steps at all."""

    mode: str
    done: int  # steps, those before it was taken up included
    steps: int
    loss: float
    seconds: float  # of training so far


@dataclass(frozen=True, slots=True)
class Trial:
    """A round that is only tried: how, and on which (training, held-out) samples; None: the spool's."""

    plan: Plan
    samples: tuple[Samples, Samples] | None = None


Round = Generator[Progress, None, Report]
Gathered = TypeVar("Gathered")


def check_due(lineage: Lineage, spool: Spool, settings: ModelSettings, outbox_bytes: int) -> None:
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


def _make_room(lineage: Lineage, settings: ModelSettings, outbox_bytes: int) -> None:
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
    lineage: Lineage, spool: Spool, settings: ModelSettings, open_model: OpenModel, *, now: Callable[[], float], keep: bool = True,
    trial: Trial | None = None, memory: Memory | None = None, extractors: Extractors | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Round:  # fmt: skip
    """Do one round, yielding after each step, and return its report; or take up the one that was interrupted.

    Closing the generator changes nothing of the model; the next round goes on after the last step. keep=False: only find out what the
    round would cost. now: Unix seconds. memory: of this process, as the rounds before found it. extractors: what mode features needs.
    clock: monotonic seconds.
    """
    with underway.holding(lineage, spool) if keep else contextlib.nullcontext():
        return (yield from _run(lineage, spool, settings, open_model, extractors, trial, memory or Memory(), now, clock, keep=keep))


def _run(
    lineage: Lineage, spool: Spool, settings: ModelSettings, open_model: OpenModel, extractors: Extractors | None, trial: Trial | None,
    memory: Memory, now: Callable[[], float], clock: Callable[[], float], *, keep: bool,
) -> Round:  # fmt: skip
    began = clock()
    standing = yield from _stand(lineage, spool, settings, open_model, extractors, trial, memory, keep=keep)
    ground, held, idle, key = standing.ground, standing.held, standing.idle, standing.ground.runtime_key
    if keep:
        lineage.set_runtime(key)

    def planned(offers: Sequence[Offer], training: Samples, judging: Samples) -> Plan:
        return trial.plan if trial else _plan(lineage, settings, ground, idle, offers, training, judging)

    at = underway.begin(
        lineage, spool, settings, ground, held, planned, samples=standing.samples, until=standing.until, keep=keep, clock=clock
    )  # fmt: skip
    if at.why:
        _log.info("%s: mode %s, %d epochs: %s", lineage.name, at.begun.mode, at.begun.epochs, at.why)
    seconds = trial.plan.seconds if trial else settings.budget.max_seconds * settings.budget.max_cpu
    watch = _Watch(lineage.name, at.begun.mode, settings.budget.max_ram if trial is None else 0, memory.sensors)
    card = standing.card or _card(lineage, spool, settings, key, at.begun.until, len(at.judging), keep=keep)
    trained = yield from _train(lineage, settings, ground, held, at, seconds, watch, card, clock)
    outcome, note = replace(trained.outcome, at=int(now())), _note(ground, settings)
    head = lineage.head()  # its number and commit may have moved while the round ran; its weights only move here
    if not keep and not head.epoch:
        head = replace(head, epoch=1)  # any number: the size is the same
    size = kept = 0
    version, kind, verdict, error, sealed = None, "", trained.verdict, trained.error, None
    snapped = trained.snapped
    if snapped is not None and verdict.accepted:
        try:
            extension, recipe = metrics(outcome, snapped.clamped), trained.recipe
            if recipe is None:
                sealed = lineage.seal(head, snapped.kind, snapped.sections, snapped.state, extension)
            else:
                extension |= recipe.extension
                sealed = lineage.seal(head, Kind.RECIPE, (), snapped.state, extension, recipe=recipe.body)
        except TooLarge as e:
            verdict, error = guard.Verdict(False, e.message), e
    if snapped is not None and sealed is not None:
        sent = Kind.RECIPE if trained.recipe else snapped.kind
        size, kept, kind = len(sealed.data), changed(snapped.sections), sent.name.lower()
        most = settings.update.max_bytes if sent in (Kind.DELTA, Kind.RECIPE) else None
        assert outcome.before is not None and outcome.after is not None
        verdict = guard.judge(outcome.before, outcome.after, margin=settings.train.margin, size=size, budget=most)
        if verdict.accepted and keep:
            written = lineage.store.write(head.slot, snapped.state, snapped.residual)
            version = lineage.adopt(head, snapped, written, sealed, outcome, note=note)
            spool.cards.carded(lineage.name, lineage.head().carded_id)
            lineage.serve()
        elif trial:
            lineage.store.contents(snapped.state, snapped.residual)  # takes its memory, as in a round that is kept
    if snapped is not None and not verdict.accepted:
        snapped.undo()
    if not verdict.accepted and keep:
        # A snapshot with larger units that is too large now will be so again: the next round stays within the units that there are.
        lineage.reject(head, outcome, verdict.reason, widen=() if isinstance(error, TooLarge) else head.widen)
    at.journal.drop()
    if keep:
        _note_cost(lineage, key, at, watch.most - idle, outcome, error)
    return Report(
        lineage.name, outcome.round, verdict.accepted, verdict.reason, version, kind, outcome, size, kept,
        lineage.manifest.schema.size, clock() - began, error, at.why, note,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a round stands on."""

    ground: Ground
    held: Held
    idle: int  # bytes that the process held before
    samples: tuple[Samples, Samples] | None = None  # in place of the spool's
    until: int = 0
    card: Card | None = None  # where the ground had to know of it


def _card(lineage: Lineage, spool: Spool, settings: ModelSettings, runtime: str, until: int, judged: int, *, keep: bool) -> Card | None:
    room = min(CARD_MAX, settings.update.max_bytes // CARD_SHARE)
    return spool.cards.beside(
        lineage.name, until, runtime=runtime, told=lineage.told(), judged=judged, privacy=settings.privacy, room=room, keep=keep
    )


def _stand(
    lineage: Lineage, spool: Spool, settings: ModelSettings, open_model: OpenModel, extractors: Extractors | None, trial: Trial | None,
    memory: Memory, *, keep: bool,
) -> Generator[Progress, None, _Standing]:  # fmt: skip
    """Open the model, or gather its samples as features."""
    found = underway.left(lineage, spool, settings, resident=memory.sensors.resident()) if keep else None
    wish = trial.plan.mode if trial else found.begun.mode if found else settings.train.mode
    until = found.begun.until if found else 0
    until = spool.hold(lineage.name, until) if keep else spool.last_id(lineage.name)
    if extractors is not None and on_features(lineage, spool, settings, memory, wish):
        try:
            return (yield from _stand_on_features(lineage, spool, settings, extractors, memory, until, keep=keep))
        except NotTrainable as e:  # then another mode may fit
            if wish == FEATURES:
                raise
            _log.info("%s", e.message)
    held = lineage.load()
    opened = Opened(open_model(held.file, lineage.name), held.file, name=lineage.name)
    give_back()
    return _Standing(opened, held, memory.idle(lineage.name), trial.samples if trial else None)


def _stand_on_features(
    lineage: Lineage, spool: Spool, settings: ModelSettings, extractors: Extractors, memory: Memory, until: int, *, keep: bool
) -> Generator[Progress, None, _Standing]:
    give_back()
    idle = memory.idle(lineage.name)
    gathering = extractors.gather(lineage, spool, held_out=settings.train.held_out, until=until, share=settings.budget.max_cpu)
    gathered = yield from preparing(gathering)
    held = lineage.load()
    card = _card(lineage, spool, settings, gathered.known.runtime_key, until, len(gathered.judging), keep=keep)
    blank = Outcome(0, guard.Score(0.0, 0.0), None, len(gathered.training), 1 << 31, until, 0, mode=FEATURES, card=card)
    ground = HeadGround(gathered, held.state, settings, overhead=fitting.overhead(lineage, blank, ()))
    return _Standing(ground, held, idle, (gathered.training, gathered.judging), until, card)


def on_features(lineage: Lineage, spool: Spool, settings: ModelSettings, memory: Memory, wish: str) -> bool:
    """Return whether a round would be in mode features, as far as that can be told before anything is opened. wish: a mode, or auto."""
    return wish == FEATURES or (wish == budget.AUTO and _ahead(lineage, spool, settings, memory) == FEATURES)


def _ahead(lineage: Lineage, spool: Spool, settings: ModelSettings, memory: Memory) -> str:
    """Return the mode that `auto` comes to by what was measured, before anything is opened; empty when that can't be told.

    Raises NoModeFits, which tells of mode features too.
    """
    costs = lineage.costs.of(lineage.head().runtime)
    if not budget.limited(settings.budget) or FEATURES not in costs:
        return ""
    modes, batch = modes_of(lineage.store.folder / "base.tflite", lineage.name)
    training, judging = spool.sides(lineage.name, settings.train.held_out)
    shape = spool.shape(lineage.name)
    size = (training + judging) * 4 * (math.prod(shape.x) + math.prod(shape.y))
    costs[FEATURES] = replace(costs[FEATURES], samples=size)  # it loads none of them
    work = Work(settings.train.epochs, trainer.steps_of(training, batch, 1), size, memory.idle(lineage.name))
    return budget.plan(modes, costs, model=lineage.name, wish=budget.AUTO, budget=settings.budget, work=work).mode


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


def _note(ground: Ground, settings: ModelSettings) -> str:
    if isinstance(ground, HeadGround):
        return ground.note
    return "no recipe: only mode features trains what a recipe can say" if settings.update.kind == "recipe" else ""


def _plan(
    lineage: Lineage, settings: ModelSettings, ground: Ground, idle: int, offers: Sequence[Offer], training: Samples, judging: Samples
) -> Plan:
    work = Work(
        settings.train.epochs, trainer.steps_of(len(training), ground.batch, 1), underway.loaded(training, judging), idle
    )  # fmt: skip
    costs = lineage.costs.of(ground.runtime_key)
    modes = [offer.mode for offer in offers]
    return budget.plan(modes, costs, model=lineage.name, wish=settings.train.mode, budget=settings.budget, work=work)


def _note_cost(lineage: Lineage, runtime: str, at: UnderWay, memory: int, outcome: Outcome, error: ModelWireError | None) -> None:
    """Remember what a real round took: a mode that was found too large is not planned again, and steps are as slow as they are."""
    known = lineage.costs.of(runtime).get(at.begun.mode)
    if not at.course.done or (known is None and not isinstance(error, OverBudget)):
        return  # only `edgeagent measure` sees the peaks between steps
    step = at.journal.spent / at.course.done
    if known is None or memory > known.memory + 2 * (at.loaded - known.samples):
        known = Cost(step, memory, at.loaded)
    lineage.costs.note(runtime, at.begun.mode, replace(known, seconds=step), outcome.at)


class _Watch:
    """Looks at this process's memory while it trains."""

    def __init__(self, model: str, mode: str, limit: int, sensors: Sensors) -> None:
        self.most = 0  # bytes
        self._model, self._mode, self._limit, self._sensors = model, mode, limit, sensors
        self._looked = 0.0

    def look(self, now: float) -> None:
        """Raise OverBudget when there is a limit and the memory is above it. now: monotonic seconds."""
        if not self._limit or now - self._looked < WATCH:
            return
        self._looked = now
        self.most = max(self.most, held := self._sensors.resident())
        if held > self._limit:
            raise OverBudget(model=self._model, mode=self._mode, took=f"{mib(held)} MiB", budget=f"{mib(self._limit)} MiB")


def _train(
    lineage: Lineage, settings: ModelSettings, ground: Ground, held: Held, at: UnderWay, seconds: float, watch: _Watch, card: Card | None,
    clock: Callable[[], float],
) -> Generator[Progress, None, _Trained]:  # fmt: skip
    head, course, journal = lineage.head(), at.course, at.journal
    outcome = Outcome(at.begun.round, at.before, None, at.training, 0, at.begun.until, 0, mode=at.begun.mode, card=card)
    try:
        while course.done < course.steps and not (seconds and course.done and journal.spent >= seconds):
            began = clock()
            watch.look(began)
            loss = course.step()
            journal.after_step(course, clock() - began)
            yield Progress(course.mode, course.done, course.steps, loss, journal.spent)
        outcome = replace(outcome, steps=course.done)
        recipe = None
        if isinstance(course, RecipeCourse):
            snapped, recipe = course.snap(held.state, head.step), course.provenance()
        else:
            weights = course.trained()
            ground.rest()
            snapped, outcome = fitting.snap_within(lineage, settings, head, held, at.residual, weights, outcome)
    except (TrainingDiverged, NonFinite, BudgetExhausted) as e:
        return _Trained(replace(outcome, steps=course.done), None, guard.Verdict(False, e.message), e)
    except GeneratorExit:
        journal.write(course)
        journal.close()
        raise
    finally:
        if journal.trouble:
            _log.warning("%s: a kill would have cost the round under way: %s: %s", lineage.name, lineage.journal, journal.trouble)
    if not snapped.sections and snapped.kind is not Kind.SNAPSHOT:
        return _Trained(outcome, None, guard.Verdict(False, "the round changed nothing that is worth a step of the lattice"))
    after = ground.score(snapped.state.named(), at.judging)
    snapped, threshold = ground.settled(snapped, at.judging, settings.anomaly)
    ground.close()
    return _Trained(replace(outcome, after=after, threshold=threshold), snapped, guard.Verdict(True), recipe=recipe)
