"""Whether a round pays: how the present model does on samples that no round has seen, and whether they look as those before did."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from edgeagent.features.exact_course import FEATURES
from edgeagent.features.gathering import FeaturesWanted
from edgeagent.samples.spool import Samples
from edgeagent.settings.tree import ModelSettings
from edgeagent.training import guard
from edgecommon.memory import give_back
from edgecommon.sqlite import Row
from modelwire import limits
from modelwire.cards.shift import shifts
from modelwire.errors import NotTrainable
from modelwire.tensors import F32

from .standing import Standing

NEWEST, LEAST = 512, 32  # samples that are scored at most; however large they are
MOST_BYTES = 8 * limits.MIB  # of them, where LEAST are fewer bytes
ERRORS = 2.0  # standard errors by which a loss has to be off: 64 samples alone move a mean loss by more than drift_loss


@dataclass(frozen=True, slots=True)
class Look:
    """What came of a look at the newest samples."""

    pays: bool
    reason: str  # why, either way
    until: int  # the newest sample that there was


def look(standing: Standing, *, on_features: bool = False) -> Generator[None, None, Look]:
    """Return whether a round pays now. Trains nothing; opens the model and runs it on 512 samples at most.

    on_features: the round would be in mode features; nothing is opened then, and it yields while features are computed.

    It does when no version was trained yet, or when on the samples that no round has seen, or on those of them that came since the last
    look, the loss is above the last version's held-out one by drift_loss, or the labels or a channel moved by drift_psi; and by more than
    chance in both cases.
    """
    name, spool, settings = standing.name, standing.spool, standing.settings
    head, until, last = standing.lineage.head(), spool.last_id(name), standing.lineage.last_trained()
    if last is None:
        return Look(True, "no version was trained yet", until)
    if not spool.count(name, after=head.trained_id):
        return Look(False, "no sample has come since the last round", until)
    fresh, output = yield from _answered(standing, head.trained_id, on_features=on_features)
    if not len(fresh):
        return Look(False, "the samples that came since the last round are gone", until)
    known = spool.cards.known(name)
    quiet: list[str] = []
    for after in sorted({head.trained_id, max(head.trained_id, head.looked_id)}):
        since = fresh.ids > after
        if not since.any():
            continue
        part = replace(fresh, x=fresh.x[since], y=fresh.y[since], ids=fresh.ids[since])
        pays, said = _loss_rose(output[since], part, last, settings)
        if pays:
            return Look(True, said, until)
        card = spool.cards.card(name, after=after, until=until)
        for shift in shifts(card, known):
            if shift.field.partition(".")[0] in ("labels", "channels") and shift.psi > settings.train.drift_psi and shift.beyond_chance:
                return Look(True, f"{shift.field} of {card.samples} new samples moved: stability index {shift.psi:.2f}", until)
        quiet.append(said)
    return Look(False, quiet[0] + "; they look as those before", until)


def _answered(standing: Standing, after: int, *, on_features: bool) -> Generator[None, None, tuple[Samples, F32]]:
    """Return the newest samples, and what the head's model answers to them."""
    name, spool, settings = standing.name, standing.spool, standing.settings
    most = min(NEWEST, max(LEAST, MOST_BYTES // (4 * math.prod(spool.shape(name).x))))
    if on_features and standing.extractors is not None:
        try:
            wanted = FeaturesWanted(standing.base, spool.last_id(name), settings.budget.max_cpu)
            known = yield from standing.extractors.prepare(wanted)
            return standing.extractors.answers(wanted.base, known, standing.lineage.load().state, after=after, most=most)
        except NotTrainable:
            if settings.train.mode == FEATURES:
                raise
    fresh = spool.newest(name, after=after, most=most)
    model = standing.open_model(standing.lineage.load().file, name)
    output = model.evaluate(fresh.x)
    model.close()
    give_back()
    return fresh, output


def _loss_rose(output: F32, samples: Samples, last: Row, settings: ModelSettings) -> tuple[bool, str]:
    """Return whether the loss is above the last version's by more than the setting and chance, and what it is."""
    loss, before = guard.score(output, samples).loss, last["loss_after"]
    said = f"loss {loss:.4f} on {len(samples)} new samples, {before:.4f} on held-out ones at @{last['version']}"
    if not math.isfinite(loss):
        return True, said
    held_out = settings.train.held_out
    judged = max(1.0, last["samples"] * held_out / (1 - held_out))
    each = [guard.score(output[i : i + 1], _one(samples, i)).loss for i in range(len(samples))]
    error = float(np.std(each)) * math.sqrt(1 / len(samples) + 1 / judged)
    return loss - before > max(settings.train.drift_loss, ERRORS * error), said


def _one(samples: Samples, index: int) -> Samples:
    one = slice(index, index + 1)
    return replace(samples, x=samples.x[one], y=samples.y[one], ids=samples.ids[one])
