"""Whose model would do: candidates by data cards, then on a few rows, then on all of them.

Chosen on one half of the rows and judged on the other: the best of many looks better than it is where it was chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecloud.probes import running, sets
from edgecloud.registry import LineageRow, ProbeRow, Store, VersionRow
from edgecloud.versions import materialise, naming
from modelwire.cards.card import Card
from modelwire.cards.facts import FACTS
from modelwire.errors import BadArgument

from . import evaluating, fitness, intervals, scoring, shortlisting
from .intervals import Estimate
from .shortlisting import WeightedRows

BY_CARDS = 256  # models that the cards leave
BY_PILOT, PILOT = 64, 128  # models that a few rows leave, and how many rows these are
CHANCE = 0.05  # p of the paired test from which on nothing is called better
BASE, OWN, OTHER = "base", "own", "other"
F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankedModel:
    """One model and how it does in the world that was asked for."""

    name: str  # DEVICE/MODEL@VERSION; the base's name
    role: str  # BASE, OWN or OTHER
    device: str
    version: VersionRow | None
    chosen_by: float  # its score on the half of the rows by which models are chosen
    score: Estimate  # on the other half
    ahead: float  # p that it is no better than the base, paired, on the other half; 1.0 for the base
    apart: float | None  # how unlike its device's data is to what was asked for; None where that is not known
    hardware: Mapping[str, str]  # what is known of its board


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer."""

    model: str
    probes: ProbeRow
    asked: str  # the device or the context
    rows: WeightedRows
    measure: str  # "accuracy", or "loss": then less is better
    models: tuple[RankedModel, ...]  # the best first; base and own model are among them
    candidates: int
    by_cards: int  # that were left
    by_pilot: int
    unfit: tuple[str, ...]  # left out
    failed: Mapping[str, str]  # could not be run, and why
    shared: int  # that went through a shared pass
    hardware: Mapping[str, str]  # of the device that was asked for

    @property
    def best(self) -> RankedModel | None:
        """The first that is another device's."""
        return next((one for one in self.models if one.role == OTHER), None)

    def is_better(self, than: str) -> bool:
        """Return whether the best of others is ahead of the BASE, or of its OWN model, beyond chance."""
        best = self.best
        return best is not None and (best.ahead if than == BASE else self.ahead_of_own) < CHANCE

    ahead_of_own: float = 1.0  # p that the best of others is no better than the device's own
    bases: int = 1  # that the candidates start from
    own_unfit: str = ""  # why the device's own model is unfit


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    role: str
    lineage: LineageRow | None
    version: VersionRow | None
    subject: VersionRow | bytes
    card: Card | None


def rank(
    store: Store,
    model: str,
    probe: ProbeRow,
    *,
    device: LineageRow | None = None,
    context: str = "",
    count: int = 10,
    progress: scoring.Progress | None = None,
    bases: materialise.LoadedBases | None = None,
    spare: running.Spare | None = None,
) -> Ranking:
    """Return the models that do best for a device, by the contexts and labels of its cards, or in a context.

    Models are chosen and put in order on one half of the rows; score, interval and test are of the other half, so that the best of many
    does not look better than it is. Raises BadArgument where nobody has the context, nothing is known of the device's world, or the rows
    have no labels; RuntimeUnusable where no runtime works. bases, spare: of this store, where several questions share them.
    """
    if device is not None and context:
        raise BadArgument(reason="feasible asks for one device or one context", fix="ask for the device, or for the context, alone")
    probes, bases = sets.load(store, probe), bases if bases is not None else materialise.LoadedBases(store)
    if probes.y is None:
        raise BadArgument(reason=f"the rows of {probe.name!r} have no labels", fix="edgecloud probes add NAME FILE.npz, with an array y")
    card = None if device is None else _card_of(store, device)
    if device is not None and card is None:
        fix = "--context TAG=VALUE asks for a world that you name; edgecloud card DEVICE shows its cards"
        raise BadArgument(reason=f"no update of {device} carried a data card: nothing is known of its world", fix=fix)
    rows = shortlisting.of_context(probes, context) if card is None else shortlisting.of_card(probes, card, str(device))
    found = _candidates(store, model, probe, probes, bases, device)
    unfit = fitness.unfit(store, [one.version.id for one in found if one.version is not None])
    left_out = [one.name for one in found if one.version is not None and one.version.id in unfit and one.role == OTHER]
    others = [one for one in found if one.role == OTHER and one.name not in left_out]
    fixed = [one for one in found if one.role != OTHER]
    work = _Work(store, probes, bases, rows, probe.digest, spare)
    distances = _distances(others, card, context)
    by_cards = [others[i] for i in shortlisting.nearest(distances, BY_CARDS)]
    by_pilot = work.pilot(by_cards) if len(by_cards) > BY_PILOT else by_cards
    judged = work.judge([*fixed, *by_pilot], progress)
    apart = {one.name: value for one, value in zip(others, distances, strict=True)}
    ranked, ahead_of_own = _ranked(store, work, [*fixed, *by_pilot], judged, apart, count)
    measure = "accuracy" if judged.right is not None else "loss"
    failed = {one.name: judged.failed[i] for i, one in enumerate([*fixed, *by_pilot]) if i in judged.failed}
    return Ranking(
        model, probe, str(device) if device is not None else context, rows, measure, ranked, len(others), len(by_cards), len(by_pilot),
        tuple(left_out), failed, judged.shared, {} if device is None else hardware_of(store, device, card), ahead_of_own,
        len({one.version.base for one in found if one.version is not None}),
        next((unfit[one.version.id].words for one in fixed if one.version is not None and one.version.id in unfit), ""),
    )  # fmt: skip


class _Work:
    """Scores candidates on the rows that were asked for."""

    def __init__(
        self, store: Store, probes: sets.ProbeSet, bases: materialise.LoadedBases, rows: WeightedRows, digest: bytes,
        spare: running.Spare | None,
    ) -> None:  # fmt: skip
        self.store, self.probes, self.bases, self.rows, self.spare = store, probes, bases, rows, spare
        self.seed = hashlib.sha256(b"edgecloud feasible" + digest + rows.rows.tobytes()).digest()
        self.choosing, self.judging = shortlisting.halves(rows, self.seed)

    def pilot(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """Return those that do best on the rows that weigh most among those by which models are chosen."""
        own = np.flatnonzero(self.choosing)
        rng = np.random.default_rng(np.frombuffer(self.seed, np.uint8))
        share = self.rows.weights[own] / self.rows.weights[own].sum()
        some = np.sort(rng.choice(own, min(PILOT, len(own)), replace=False, p=share))
        subjects, few = [one.subject for one in candidates], self.rows.rows[some]
        scores = scoring.score(self.store, subjects, self.probes, few, bases=self.bases, spare=self.spare)
        value = scores.right.mean(1) if scores.right is not None else -np.nan_to_num(scores.loss, nan=np.inf).mean(1)
        keep = shortlisting.nearest([np.inf if i in scores.failed else -float(v) for i, v in enumerate(value)], BY_PILOT)
        return [candidates[i] for i in keep]

    def judge(self, candidates: Sequence[_Candidate], progress: scoring.Progress | None) -> scoring.Scores:
        subjects = [one.subject for one in candidates]
        return scoring.score(self.store, subjects, self.probes, self.rows.rows, bases=self.bases, progress=progress, spare=self.spare)

    def value(self, scores: scoring.Scores, place: int) -> F64:
        """Return a score a row, larger is better: 1 where it is right, or the loss turned round."""
        value: F64 = scores.right[place].astype(np.float64) if scores.right is not None else -scores.loss[place].astype(np.float64)
        return value

    def mean(self, scores: scoring.Scores, place: int, half: NDArray[np.bool_]) -> float:
        return float(np.average(self.value(scores, place)[half], weights=self.rows.weights[half]))

    def estimate(self, scores: scoring.Scores, place: int) -> Estimate:
        weights = self.rows.weights[self.judging]
        if scores.right is not None:
            return intervals.of_share(scores.right[place][self.judging], weights)
        found = intervals.of_mean(scores.loss[place][self.judging].astype(np.float64), weights)
        return replace(found, low=max(0.0, found.low))  # no loss is below 0

    def ahead(self, scores: scoring.Scores, place: int, of: int) -> float:
        """Return p of the paired test of one against another, on the half by which the chosen are judged."""
        a, b = (self.value(scores, one)[self.judging] for one in (place, of))
        return intervals.better(a, b, self.rows.weights[self.judging], self.seed)


def _ranked(
    store: Store, work: _Work, candidates: Sequence[_Candidate], scores: scoring.Scores, apart: Mapping[str, float], count: int
) -> tuple[tuple[RankedModel, ...], float]:
    usable = [i for i in range(len(candidates)) if i not in scores.failed and np.isfinite(scores.loss[i]).all()]
    chosen_by = {i: work.mean(scores, i, work.choosing) for i in usable}
    order = sorted(usable, key=lambda i: (-chosen_by[i], apart.get(candidates[i].name, 0.0), candidates[i].name))
    shown = [i for i in order if candidates[i].role == OTHER][:count]
    shown = [i for i in order if i in shown or candidates[i].role != OTHER]
    base, own = (next((i for i in usable if candidates[i].role == role), None) for role in (BASE, OWN))
    out = []
    for i in shown:
        one = candidates[i]
        ahead = 1.0 if base is None or i == base else work.ahead(scores, i, base)
        distance = apart.get(one.name)
        known = {} if one.lineage is None else hardware_of(store, one.lineage, one.card)
        sign = 1 if scores.right is not None else -1
        out.append(RankedModel(
            one.name, one.role, one.lineage.device if one.lineage is not None else "", one.version, sign * chosen_by[i],
            work.estimate(scores, i), ahead, distance if distance is not None and np.isfinite(distance) else None, known,
        ))  # fmt: skip
    best = next((i for i in shown if candidates[i].role == OTHER), None)
    return tuple(out), work.ahead(scores, best, own) if best is not None and own is not None else 1.0


def _candidates(
    store: Store, model: str, probe: ProbeRow, probes: sets.ProbeSet, bases: materialise.LoadedBases, device: LineageRow | None
) -> list[_Candidate]:
    """Return the newest verified model of each device that takes such rows, and the base of the one that asks, or of most."""
    heads = evaluating.heads(store, model)
    fits = {row.id for row in evaluating.fitting(store, probe, [row for _, row in heads], probes, bases)}
    out = [
        _Candidate(
            f"{lineage}@{row.version}", OWN if device is not None and lineage.id == device.id else OTHER, lineage, row, row,
            fitness.world_of(store, row),
        )
        for lineage, row in heads if row.id in fits
    ]  # fmt: skip
    if not out:
        raise BadArgument(reason=f"no verified model {model!r} takes the rows of {probe.name!r}", fix="edgecloud devices; edgecloud probes")
    used = [one.version.base for one in out if one.version is not None]
    epoch = None if device is None else store.lineages.current(device.id)
    commit = epoch.base if epoch is not None and epoch.base in used else max(sorted(set(used)), key=used.count)
    named = store.bases.get(commit)
    return [_Candidate(named.name if named is not None else commit.hex()[:16], BASE, None, None, commit, None), *out]


def _card_of(store: Store, device: LineageRow) -> Card | None:
    place = naming.find(store, naming.Name(device.device, device.model, None))
    return None if place.version is None else fitness.world_of(store, place.version)


def _distances(others: Sequence[_Candidate], card: Card | None, context: str) -> list[float]:
    if card is not None:
        return [shortlisting.apart(card, one.card) for one in others]
    wanted = sets.parse_context(context)
    return [1 - shortlisting.share_of(wanted, one.card) for one in others]


def hardware_of(store: Store, lineage: LineageRow, card: Card | None) -> dict[str, str]:
    """Return what is known of a device's board: facts of its cards, and the runtime that it said when it last came. No more is guessed."""
    told = {} if card is None else {name: max(sorted(of), key=of.__getitem__) for name in FACTS if (of := card.tags.get(name))}
    presence = store.lineages.presence(lineage.id)
    if presence is not None and presence.runtime:
        told["runtime"] = presence.runtime
    return told
