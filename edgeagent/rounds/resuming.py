"""Begins a round's course as its plan says, or takes up the one that a kill or a stop interrupted, where it stood."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Protocol

from edgeagent.board import budget
from edgeagent.board.budget import Plan, Work
from edgeagent.samples.spool import Samples, Spool
from edgeagent.settings.tree import AnomalySettings, ModelSettings
from edgeagent.state.history import Head
from edgeagent.state.lineage import Lineage
from edgeagent.state.slots import Held
from edgeagent.training import batches as trainer
from edgeagent.training.course import Course, Lesson, Offer
from edgeagent.training.guard import Score
from modelwire.errors import Malformed, ModelWireError, NotEnoughSamples
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import Snapped, training_start
from modelwire.tensors import Weights

from . import journal
from .journal import Begun, Found, Journal

# They say when a round is done and what becomes of it, not what its bits are: a change of them does not end a round under way.
_ELSEWHERE = {"every", "min_samples", "min_new_samples", "margin", "when", "drift_loss", "drift_psi"}
SPARE = 1.05  # times max_ram that a round under way may come to after a restart: a process is never twice of exactly one size
Planned = Callable[[tuple[Offer, ...], Samples, Samples], Plan]  # what to do with these training and judging samples
_log = logging.getLogger("edgeagent")


class Ground(Protocol):
    """What a round trains and judges with: an opened model, or rows of kept features."""

    @property
    def runtime_key(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def offers(self) -> tuple[Offer, ...]: ...  # the modes in which it can be trained, cheapest first

    def begin(self, mode: str, lesson: Lesson) -> Course:
        """Return the course of the lesson in one of these modes."""

    def score(self, weights: Weights, judging: Samples) -> Score:
        """Return the score of the model with these weights, all of get_weights."""

    def settled(self, snapped: Snapped, judging: Samples, settings: AnomalySettings) -> tuple[Snapped, float | None]:
        """Return the round with its threshold of anomalies, and the threshold: of the model that was scored last."""

    def rest(self) -> None:
        """Give back what training took beyond scoring."""

    def close(self) -> None:
        """Give back all: nothing can be asked any more."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A round whose course has begun."""

    begun: Begun
    course: Course
    journal: Journal
    judging: Samples
    training: int  # samples
    loaded: int  # bytes of all samples
    residual: Residual  # to give to the snap
    why: str = ""  # why this mode and so many epochs

    @property
    def before(self) -> Score:
        """The score of the model as it was."""
        return Score(float("nan") if self.begun.loss is None else self.begun.loss, self.begun.accuracy)


@contextlib.contextmanager
def holding(lineage: Lineage, spool: Spool) -> Iterator[None]:
    """Let go of the samples of a round at the end of the block, unless its journal says that it goes on later."""
    try:
        yield
    finally:
        if not lineage.journal.exists():
            with contextlib.suppress(ModelWireError):  # a full disk: the next round, or the next start, does it again
                spool.release(lineage.name)


def left(lineage: Lineage, spool: Spool, settings: ModelSettings, *, resident: int = 0) -> Found | None:
    """Return the round that can be taken up, None when there is none. A journal of another model, round or setting is dropped.

    resident: bytes that the agent holds now; a round in a mode that would take more than max_ram with them is dropped too.
    """
    if not lineage.journal.exists():
        return None
    found = journal.read(lineage.journal)
    if found is None:  # damaged
        _drop(lineage, spool, None, "")
        return None
    head, begun = lineage.head(), found.begun
    now = (lineage.base_commit.hex(), head.file_sha256.hex(), head.private_sha256.hex(), head.rounds + 1)
    if (begun.base, begun.file, begun.private, begun.round) != now:
        _drop(lineage, spool, found, "the model is another one now")
    elif begun.settings != shaping(settings):
        _drop(lineage, spool, found, "its settings have changed")
    elif resident and (why := _too_large(lineage, settings, begun, resident)):
        _drop(lineage, spool, found, why)
    else:
        return found
    return None


def begin(
    lineage: Lineage, spool: Spool, settings: ModelSettings, ground: Ground, held: Held, planned: Planned, *,
    samples: tuple[Samples, Samples] | None = None, until: int = 0, keep: bool = True, clock: Callable[[], float] = time.monotonic,
) -> UnderWay:  # fmt: skip
    """Return the round that was left, or a new one. samples: in place of the spool's; until: the newest of them that counts.

    keep=False: only a trial; no journal is read or left. Raises NotEnoughSamples, NoModeFits or NotTrainable.
    """
    found = left(lineage, spool, settings) if keep else None
    until = found.begun.until if found else until
    until = spool.hold(lineage.name, until) if keep else until or spool.last_id(lineage.name)
    training, judging = samples or spool.split(lineage.name, settings.train.held_out, until=until)
    if found and found.begun.samples != _ids(training, judging):
        _drop(lineage, spool, found, "samples that it used are gone")
        return begin(lineage, spool, settings, ground, held, planned, samples=samples, until=until if samples else 0, clock=clock)
    if not len(training) or not len(judging):
        raise NotEnoughSamples(model=lineage.name, have=len(training) + len(judging), need=settings.train.min_samples)
    offers, why = {offer.mode: offer for offer in ground.offers}, ""
    if found:
        begun = found.begun
    else:
        plan = planned(tuple(offers.values()), training, judging)
        begun, why = _begun(lineage, settings, ground, held, plan, until, training, judging), plan.why
    start, residual = training_start(held.state, held.residual)
    weights = lineage.manifest.schema.shaped(start)
    lesson = Lesson(lineage.name, training, weights, begun.epochs, settings.train.learning_rate, int(begun.seed), settings.train.balance)
    course = ground.begin(begun.mode, lesson) if begun.mode in offers else None
    if found and (course is None or begun.runtime != ground.runtime_key or begun.steps != course.steps):
        _drop(lineage, spool, found, "it ran on another runtime")
        return begin(lineage, spool, settings, ground, held, planned, samples=samples, until=until if samples else 0, clock=clock)
    assert course is not None
    begun = replace(begun, runtime=ground.runtime_key, steps=course.steps, whole=course.whole)
    spent = _take_up(lineage, found, course) if found else 0.0
    writes = Journal(lineage.journal if keep else None, begun, spent=spent, clock=clock)
    return UnderWay(begun, course, writes, judging, len(training), loaded(training, judging), residual, why)


def loaded(training: Samples, judging: Samples) -> int:
    """Return the bytes that the samples take in memory."""
    return sum(s.x.nbytes + s.y.nbytes for s in (training, judging))


def shaping(settings: ModelSettings) -> str:
    """Return the settings that a round's bits follow from, as text. A setting that nobody spoke of here is one of them."""
    named = [(f.name, getattr(settings.train, f.name)) for f in fields(settings.train) if f.name not in _ELSEWHERE]
    if settings.update.kind == "recipe":  # whether the round can be one hangs on its size
        named += [("kind", "recipe"), ("max_bytes", settings.update.max_bytes)]
    return ", ".join(f"{name}={value!r}" for name, value in named)


def _begun(
    lineage: Lineage, settings: ModelSettings, ground: Ground, held: Held, plan: Plan, until: int, training: Samples, judging: Samples
) -> Begun:  # fmt: skip
    head: Head = lineage.head()
    before = ground.score(held.state.named(), judging)
    seed = trainer.seed_of(lineage.board.device, lineage.name, head.next_version, head.rounds + 1)
    return Begun(
        lineage.base_commit.hex(), head.file_sha256.hex(), head.private_sha256.hex(), head.rounds + 1, plan.mode, "", shaping(settings),
        plan.epochs, until, _ids(training, judging), str(seed), before.loss if isfinite(before.loss) else None, before.accuracy, 0, True,
    )  # fmt: skip


def _take_up(lineage: Lineage, found: Found, course: Course) -> float:
    """Let the course go on where the journal stands, and return the seconds of training that it took so far."""
    kept = found.arrays(course.keep())
    try:
        if kept is None:
            raise Malformed(what="journal", reason="neither half is whole")
        course.restore(kept[0])
    except Malformed as e:
        _log.warning("%s: round %d begins anew: %s", lineage.name, found.begun.round, e.message)
        return 0.0
    _log.info("%s: round %d goes on after step %d of %d", lineage.name, found.begun.round, course.done, course.steps)
    if not course.whole:
        _log.warning("%s: its file has no get_state, so the optimizer's slots start anew", lineage.name)
    return kept[1]


def _too_large(lineage: Lineage, settings: ModelSettings, begun: Begun, resident: int) -> str:
    """Return why a round that was left takes too much memory by now: the settings may have changed. Empty when it does not."""
    cost, limit = lineage.costs.of(begun.runtime).get(begun.mode), int(SPARE * settings.budget.max_ram)
    if cost is None or not limit:
        return ""
    work = Work(begun.epochs, 1, cost.samples, resident)
    return budget.against(begun.mode, cost, replace(settings.budget, max_ram=limit, max_seconds=0.0), work)


def _drop(lineage: Lineage, spool: Spool, found: Found | None, why: str) -> None:
    if found and found.begun.round > lineage.head().rounds:  # else a kill came between the end of the round and that of its journal
        _log.info("%s: round %d begins anew after %d steps: %s", lineage.name, found.begun.round, found.done, why)
    journal.drop(lineage.journal)
    spool.release(lineage.name)


def _ids(training: Samples, judging: Samples) -> str:
    return hashlib.sha256(training.ids.tobytes() + b"|" + judging.ids.tobytes()).hexdigest()
