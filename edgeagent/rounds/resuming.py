"""How a round starts: anew, or where the one stood that a kill or a stop interrupted; and which samples stay for it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace

from edgeagent.board import budget
from edgeagent.board.budget import Work
from edgeagent.samples.spool import Samples
from edgeagent.state.folder import sweep_spool
from edgeagent.training.course import Course, Lesson
from edgeagent.training.learner import Learner
from modelwire.errors import Malformed, ModelWireError

from . import journal
from .journal import Interrupted
from .standing import Standing
from .starts import PAYS, Start, Trial

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
    elif facts.settings != standing.shaping:
        give_up(standing, left, "its settings have changed")
    else:
        return left
    return None


def start_of(standing: Standing, left: Interrupted | None, *, endless: bool = False) -> Start:
    """Return the start of a round that is kept. left: the round that its journal speaks of; endless: the service runs by its settings."""
    looks = endless and left is None and standing.settings.train.when == PAYS
    return Start(standing.settings.train.mode, standing.settings.update.by_recipe, standing.lineage.manifest.all_exact, looks, left)


def trial_of(standing: Standing, trial: Trial | None = None) -> Start:
    """Return the start of a round that is only tried."""
    mode = trial.plan.mode if trial else standing.settings.train.mode
    return Start(mode, standing.settings.update.by_recipe, standing.lineage.manifest.all_exact, keep=False, trial=trial)


def held_samples(standing: Standing, start: Start) -> tuple[Interrupted | None, int]:
    """Let the round's samples stay, and return (the round that is taken up, the newest of the samples). A trial holds none.

    A round that would take more than max_ram by now is given up.
    """
    left, name = start.left, standing.name
    if start.keep:
        sweep(standing)
    if left and (why := _too_large(standing, left)):
        give_up(standing, left, why)
        left = None
    return left, standing.spool.hold(name, left.facts.until if left else 0) if start.keep else standing.spool.last_id(name)


def sweep(standing: Standing) -> None:
    """Drop what is no sample of the model from its spool, and say so: others may write there."""
    name, spool = standing.name, standing.spool
    if gone := sweep_spool(spool, standing.lineage):
        see = f"something else than this program wrote there; see who may write to {spool.database.path.parent}"
        _log.warning("%s: %d rows of the spool were no samples of this model, and were dropped: %s", name, gone, see)


def _too_large(standing: Standing, left: Interrupted) -> str:
    """Return why a round that was left takes too much memory by now: the settings may have changed. Empty when it does not."""
    facts, resident, limits = left.facts, standing.memory.sensors.private(), standing.settings.budget
    cost, limit = standing.lineage.costs.of(facts.runtime).get(facts.mode), int(SPARE * limits.max_ram)
    if not resident or cost is None or not limit:
        return ""
    work = Work(facts.epochs, 1, cost.samples, resident)
    return budget.against(facts.mode, cost, replace(limits, max_ram=limit, max_seconds=0.0), work)


def resumed(left: Interrupted, learner: Learner, lesson: Lesson) -> tuple[Course | None, float, str]:
    """Return (its course where the journal stands, the seconds of training so far, empty), or (None, 0, why it can't be taken up)."""
    facts, name = left.facts, lesson.model
    if facts.samples != ids_of(learner.training, learner.judging):
        return None, 0.0, "samples that it used are gone"
    course = learner.begin(facts.mode, lesson) if facts.mode in learner.modes else None
    if course is None or facts.runtime != learner.runtime_key or facts.steps != course.steps:
        return None, 0.0, "it ran on another runtime"
    kept = left.arrays(course.keep())
    try:
        if kept is None:
            raise Malformed(what="journal", reason="neither half is whole")
        course.restore(kept[0])
    except Malformed as e:
        _log.warning("%s: round %d begins anew: %s", name, facts.round, e.message)
        return course, 0.0, ""
    _log.info("%s: round %d goes on after step %d of %d", name, facts.round, course.done, course.steps)
    if not course.whole:
        _log.warning("%s: its file has no get_state, so the optimizer's slots start anew", name)
    return course, kept[1], ""


def held_anew(standing: Standing, left: Interrupted, why: str, until: int) -> int:
    """Give up a round that can't be taken up; hold the samples of the one in its place, and return the newest. until: 0 for any."""
    give_up(standing, left, why)
    return standing.spool.hold(standing.name, until)


def give_up(standing: Standing, left: Interrupted | None, why: str) -> None:
    """Drop the journal, and let the samples go. left: what it said; None for one that can't be read."""
    if left and left.facts.round > standing.lineage.head().rounds:  # else a kill came between the end of the round and of its journal
        _log.info("%s: round %d begins anew after %d steps: %s", standing.name, left.facts.round, left.done, why)
    journal.drop(standing.lineage.journal)
    standing.spool.release(standing.name)


def ids_of(training: Samples, judging: Samples) -> str:
    """Return the hex of the sha256 of the samples' ids."""
    return hashlib.sha256(training.ids.tobytes() + b"|" + judging.ids.tobytes()).hexdigest()
