"""Finds the round that a kill or a stop interrupted, and takes it up where it stood."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import fields, replace

from edgeagent.board import budget
from edgeagent.board.budget import Work
from edgeagent.samples.spool import Samples
from edgeagent.settings.tree import Model
from edgeagent.training.course import Course, Lesson
from edgeagent.training.learner import Learner
from modelwire.errors import Malformed, ModelWireError

from . import journal
from .journal import Interrupted, RoundFacts
from .standing import Standing

# They say when a round is done and what becomes of it, not what its bits are: a change of them does not end a round under way.
_ELSEWHERE = {"every", "min_samples", "min_new_samples", "margin", "when", "drift_loss", "drift_psi"}
SPARE = 1.05  # times max_ram that a round under way may come to after a restart: a process is never twice of exactly one size
_log = logging.getLogger("edgeagent")


@contextlib.contextmanager
def keeping_samples(standing: Standing) -> Iterator[None]:
    """Let go of the samples of a round at the end of the block, unless its journal says that it goes on later."""
    try:
        yield
    finally:
        if not standing.lineage.journal.exists():
            with contextlib.suppress(ModelWireError):  # a full disk: the next round, or the next start, does it again
                standing.spool.release(standing.name)


def interrupted(standing: Standing) -> Interrupted | None:
    """Return the round that can be taken up, None when there is none. A journal of another model, round or setting is dropped."""
    lineage = standing.lineage
    if not lineage.journal.exists():
        return None
    left = journal.read(lineage.journal)
    if left is None:  # damaged
        give_up(standing, None, "")
        return None
    head, facts = lineage.head(), left.facts
    now = (lineage.base_commit.hex(), head.file_sha256.hex(), head.private_sha256.hex(), head.rounds + 1)
    if (facts.base, facts.file, facts.private, facts.round) != now:
        give_up(standing, left, "the model is another one now")
    elif facts.settings != shaping(standing.settings):
        give_up(standing, left, "its settings have changed")
    else:
        return left
    return None


def too_large(standing: Standing, facts: RoundFacts) -> str:
    """Return why a round that was left takes too much memory by now: the settings may have changed. Empty when it does not."""
    resident, limits = standing.memory.sensors.resident(), standing.settings.budget
    cost, limit = standing.lineage.costs.of(facts.runtime).get(facts.mode), int(SPARE * limits.max_ram)
    if not resident or cost is None or not limit:
        return ""
    work = Work(facts.epochs, 1, cost.samples, resident)
    return budget.against(facts.mode, cost, replace(limits, max_ram=limit, max_seconds=0.0), work)


def resumed(left: Interrupted, learner: Learner, lesson: Lesson) -> tuple[Course, float] | str:
    """Return its course where the journal stands, and the seconds of training so far; or why it can't be taken up."""
    facts, name = left.facts, lesson.model
    if facts.samples != ids_of(learner.training, learner.judging):
        return "samples that it used are gone"
    course = learner.begin(facts.mode, lesson) if facts.mode in learner.modes else None
    if course is None or facts.runtime != learner.runtime_key or facts.steps != course.steps:
        return "it ran on another runtime"
    kept = left.arrays(course.keep())
    try:
        if kept is None:
            raise Malformed(what="journal", reason="neither half is whole")
        course.restore(kept[0])
    except Malformed as e:
        _log.warning("%s: round %d begins anew: %s", name, facts.round, e.message)
        return course, 0.0
    _log.info("%s: round %d goes on after step %d of %d", name, facts.round, course.done, course.steps)
    if not course.whole:
        _log.warning("%s: its file has no get_state, so the optimizer's slots start anew", name)
    return course, kept[1]


def give_up(standing: Standing, left: Interrupted | None, why: str) -> None:
    """Drop the journal, and let the samples go. left: what it said; None for one that can't be read."""
    if left and left.facts.round > standing.lineage.head().rounds:  # else a kill came between the end of the round and of its journal
        _log.info("%s: round %d begins anew after %d steps: %s", standing.name, left.facts.round, left.done, why)
    journal.drop(standing.lineage.journal)
    standing.spool.release(standing.name)


def shaping(settings: Model) -> str:
    """Return the settings that a round's bits follow from, as text. A setting that nobody spoke of here is one of them."""
    named = [(f.name, getattr(settings.train, f.name)) for f in fields(settings.train) if f.name not in _ELSEWHERE]
    if settings.update.kind == "recipe":  # whether the round can be one hangs on its size
        named += [("kind", "recipe"), ("max_bytes", settings.update.max_bytes)]
    return ", ".join(f"{name}={value!r}" for name, value in named)


def ids_of(training: Samples, judging: Samples) -> str:
    """Return the hex of the sha256 of the samples' ids."""
    return hashlib.sha256(training.ids.tobytes() + b"|" + judging.ids.tobytes()).hexdigest()
