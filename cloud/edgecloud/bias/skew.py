"""Which devices' data are unlike the fleet's, field by field, and by how much more than chance: docs/bias.md says how that is judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modelwire.cards.facts import FACTS
from modelwire.cards.shift import ANOTHER, SHIFTED
from modelwire.cards.sketch import Channel

from .chances import F64, above_by_chance, at_most_far_off, widening
from .telling import Told
from .views import FieldView, view_of

FALSE_ALARMS = 0.05  # of fleets without any bias, in so many at most a device is called biased
COMMON = 1 / 3  # of the devices: where more are beyond chance, the fleet differs in a field as a rule
HEAVIEST = 10  # times the samples of the median device, as which one counts at most where others are held against it
TRAIT = 0.9  # of the devices: where so many have one value each, a tag is a trait of a device, and no matter of chance
BATCHES_MIN, FREEDOM_MIN = 3, 20  # of blocks put together, for what they differ by to be counted
_MEDIAN_OF, _TELLING, _MEDIAN_SQUARE = 10, 1.0, 0.4549  # devices that a median needs; their variance; the median of chi-squared, 1 degree
_CLEAR = 2.5  # deviations below which a chance is not worth its exact value: no fleet is so small that it would count
_FAR = 1e-12  # a chance below which no exact value is asked for: no fleet is so large that it would count
_LACKING = 0.1  # of the fleet's share of a cell, at most, has a device that lacks it
_USUAL = 0.05  # share of the fleet from which on a cell is one that a device can lack


@dataclass(frozen=True, slots=True)
class BiasFinding:
    """One field of one device against the fleet without it."""

    device: str
    field: str  # labels, hours, tags.NAME or channels.NAME
    samples: int  # of the device, whose field is known
    effective: float  # as many independent samples tell as much
    against: int  # samples of the others
    psi: float  # population stability index, as `card --against fleet` has it
    by_chance: float  # it comes to more about once in thirty times, for so many effective samples
    p: float  # that any field of any device differs so much by chance: corrected for all that were tried. NaN: a trait, not judged
    event: str  # in which they differ most: a class, hours, a tag's value, or a bound of a channel
    share: float  # of the device's samples that it has
    fleet_share: float  # of the others'
    beyond: bool  # beyond chance, and more than the customary bound
    lacks: tuple[str, ...] = ()  # what the others see and it hardly does, by falling share

    @property
    def words(self) -> str:
        """What the number is commonly called, in the words of `card --against`."""
        if not self.beyond:
            known = math.isnan(self.p) or self.p <= FALSE_ALARMS
            return "alike" if known or self.psi <= SHIFTED else "alike: so few differ as much by chance"
        return "another population" if self.psi > ANOTHER else "shifted"


Finding = BiasFinding  # the name by which plots know it


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of looking at a fleet: all findings, biased ones first, each kind by falling PSI."""

    findings: tuple[BiasFinding, ...]
    tests: int  # pairs of device and field that were judged
    alarms: float  # share of unbiased fleets that name any device, at most
    traits: tuple[str, ...]  # fields in which each device has one value
    common: dict[str, int]  # fields in which more than a third differ, and how many do
    single: tuple[str, ...]  # fields of which no device tells more than once: days that are alike can't be told from bias
    alone: tuple[str, ...]  # fields that one device alone tells

    @property
    def biased(self) -> tuple[BiasFinding, ...]:
        return tuple(finding for finding in self.findings if finding.beyond)


def judged(told: Sequence[Told], axes: dict[str, Channel], fields: Sequence[str] = (), alarms: float = FALSE_ALARMS) -> Judgement:
    """Return how unlike each other the devices' cards are. fields: those alone; none: all but the facts of a board.

    alarms: in that share of fleets without bias a device is called biased, at most, over all devices and fields (Holm).
    """
    known = sorted({name for one in told for name in one.fields})
    wanted = [name for name in known if (name in fields if fields else name not in {f"tags.{fact}" for fact in FACTS})]
    views = [view for name in wanted if (view := view_of(name, told, axes)) is not None]
    traits = tuple(view.field for view in views if _is_trait(view))
    tests = sum(len(view.devices) for view in views if view.field not in traits)
    measured = [_Field(view, alarms / max(1, tests), trait=view.field in traits) for view in views]
    corrected = _holm([p for field in measured for p in field.p])
    out: list[BiasFinding] = []
    for field in measured:
        out += field.findings(told, corrected[: len(field.p)], alarms)
        corrected = corrected[len(field.p) :]
    out.sort(key=lambda one: (not one.beyond, -one.psi, one.field, one.device))
    common: dict[str, int] = {}
    for field in measured:
        if field.differing > COMMON * len(field.view.devices):
            common[field.view.field] = field.differing
    single = tuple(view.field for view in views if view.field not in traits and len(view.sizes) == len(view.devices))
    alone = tuple(name for name in wanted if name not in {view.field for view in views})
    return Judgement(tuple(out), tests, alarms, traits, common, single, alone)


def _is_trait(view: FieldView) -> bool:
    if not view.field.startswith("tags.") or len(view.cells) < 2:
        return False
    return bool(((view.counts > 0).sum(1) == 1).mean() >= TRAIT)


def _holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are (Holm 1979); NaN stays."""
    order = sorted((n for n, one in enumerate(p) if not math.isnan(one)), key=lambda n: p[n])
    out, last = [math.nan] * len(p), 0.0
    for rank, n in enumerate(order):
        last = out[n] = max(last, min(1.0, p[n] * (len(order) - rank)))
    return out


class _Field:
    """One field, judged for all devices. tail: the chance below which one device's difference counts."""

    def __init__(self, view: FieldView, tail: float, *, trait: bool) -> None:
        self.view, self.totals = view, np.maximum(view.totals, 1e-9)
        self.weight = np.minimum(1, HEAVIEST * np.median(self.totals) / self.totals)
        events = max(1, len(view.events))
        self.event_tail = tail / (2 * events)
        self.spread, self.mean_spread = _design_effects(view, self.event_tail)
        everybody = np.ones(len(view.devices), bool)
        chance = self._by_chance(everybody)  # [devices, events, 2]: that it has so many, so few
        self.psi = self._stability()
        self.differing = 0
        if not trait and view.events:
            # Others that stand out pull the fleet's mean away from a device that is as most are: it has to differ from these, too.
            among = self._typical(chance)
            chance = np.maximum(chance, self._by_chance(among))
            self.differing = int(((chance.min((1, 2)) <= self.event_tail) & (self.psi > SHIFTED)).sum())
            usual = self._usual(among)
            if (usual > 1).any():
                self.spread = self.spread * usual
                chance = np.maximum(self._by_chance(everybody), self._by_chance(among))
        self.chance = chance
        self.p = np.full(len(view.devices), math.nan) if trait else np.minimum(1, 2 * events * chance.min((1, 2), initial=1.0))

    def _by_chance(self, among: NDArray[np.bool_]) -> F64:
        """Return how likely each device has so many, and so few, samples in each event, beside those `among` without itself."""
        view, n = self.view, self.totals[:, None]
        part = among[:, None] * self.weight[:, None]
        others = np.maximum(_without(n * part), 0)
        m = others**2 / np.maximum(_without(n * part**2 * np.maximum(self.spread, 1)), 1e-9)
        size, out = n / self.spread, np.ones((*view.least.shape, 2))
        for side, (mine, theirs) in enumerate(((view.least, view.most), (n - view.most, n - view.least))):
            rest = np.clip(_without(theirs * part) / np.maximum(others, 1e-9), 0, 1)
            x, y = np.clip(mine / n, 0, 1), rest
            pooled = (x * size + y * m) / np.maximum(size + m, 1e-9)
            with np.errstate(divide="ignore", invalid="ignore"):
                z = np.where(m > 0, (x - y) / np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / size + 1 / np.maximum(m, 1e-9))), 0)
            clear = (z > _CLEAR) & (m > 0)
            far = at_most_far_off(x, size, y, np.maximum(m, 1e-9))
            clear &= far > _FAR
            out[..., side] = np.where(far > _FAR, _normal_above(z), far)
            where = np.nonzero(clear)
            size_at, m_at = np.broadcast_to(size, x.shape)[where], np.broadcast_to(m, x.shape)[where]
            asked = x[where] * size_at, size_at, y[where] * m_at, m_at
            found, alike = above_by_chance(*asked), self.spread[where] > 1
            found[alike] = np.maximum(found[alike], above_by_chance(*(one[alike] for one in asked), clumped=True))
            out[(*where, np.full(len(where[0]), side))] = found
        return out

    def _typical(self, chance: F64) -> NDArray[np.bool_]:
        """Return the devices without those that stand out the most; all of them where that would be half of the fleet or more."""
        among = np.ones(len(self.view.devices), bool)
        for _ in range(len(self.view.devices)):
            out = (chance.min((1, 2)) <= self.event_tail) & (self.psi > SHIFTED) & among
            if not out.any():
                break
            gone = out & (self.psi >= self.psi[out].max() / 2)
            if 2 * ((among & ~gone).sum()) <= len(among):
                return np.ones(len(among), bool)
            among &= ~gone
            chance = self._by_chance(among)
        return among

    def _usual(self, among: NDArray[np.bool_]) -> F64:
        """Return by how much more than by chance any two devices of this fleet differ in each event: 1, or more where no two cameras
        are alike. The median device says so, which those that stand out hardly move (Devlin and Roeder, Genomic control, 1999).
        """
        view, n, part = self.view, self.totals[:, None], among[:, None] * self.weight[:, None]
        share = np.add.reduceat(view.blocks, view.starts, 0) / n
        middle = (share * n * part).sum(0) / np.maximum((n * part).sum(0), 1e-9)
        size = n / self.spread
        variance = np.maximum(middle * (1 - middle) / size, 1e-12)
        telling = size * middle * (1 - middle) >= _TELLING
        square = np.where(telling, (share - middle) ** 2 / variance, math.nan)
        out = np.ones(len(view.events))
        for event in np.flatnonzero(telling.sum(0) >= _MEDIAN_OF):
            out[event] = max(1.0, float(np.nanmedian(square[:, event])) / _MEDIAN_SQUARE)
        return out

    def _stability(self) -> F64:
        """Return the index of each device against all others, as `modelwire.cards.card.stability` does."""
        mine = self.view.counts
        theirs = mine.sum(0) - mine
        sides = [(counts + 0.5) / (counts.sum(1, keepdims=True) + 0.5 * counts.shape[1]) for counts in (mine, theirs)]
        return np.asarray(((sides[0] - sides[1]) * np.log(sides[0] / sides[1])).sum(1), np.float64)

    def findings(self, told: Sequence[Told], corrected: Sequence[float], alarms: float) -> list[BiasFinding]:
        view, out = self.view, []
        told_at = np.add.reduceat(view.blocks, view.starts, 0)
        free = len(view.cells) - 1
        for row, place in enumerate(view.devices):
            size, rest = self.totals[row], self.totals.sum() - self.totals[row]
            effective = size / self.mean_spread[row]
            spread = float((self.totals * self.mean_spread).sum() - size * self.mean_spread[row]) / max(rest, 1e-9)
            others, p = max(1e-9, rest / max(1.0, spread)), corrected[row]
            found = BiasFinding(
                told[place].device, view.field, round(size), float(effective), round(rest), float(self.psi[row]),
                float((1 / max(effective, 1e-9) + 1 / others) * (free + 2 * math.sqrt(2 * free))), float(p), "", math.nan, math.nan,
                bool(p <= alarms and self.psi[row] > SHIFTED),
            )  # fmt: skip
            if view.events:
                share, fleet = told_at[row] / size, (told_at.sum(0) - told_at[row]) / max(rest, 1e-9)
                event = _plainest(self.chance[row], share, fleet)
                name = view.event(event, more=bool(share[event] > fleet[event]))
                turned = name != view.events[event]
                mine, theirs = (1 - one[event] if turned else one[event] for one in (share, fleet))
                found = replace(found, event=name, share=float(mine), fleet_share=float(theirs), lacks=self._lacks(row, rest))
            out.append(found)
        return out

    def _lacks(self, row: int, rest: float) -> tuple[str, ...]:
        """Return the cells of labels and tags that the others see and this device hardly does, beyond chance."""
        view = self.view
        if view.field.partition(".")[0] not in ("labels", "tags") or math.isnan(self.p[row]):
            return ()
        if len(view.cells) == 2:  # the one event stands for both
            share, least_share = view.most[row, 0] / self.totals[row], 1 - view.least[row, 0] / self.totals[row]
            fleet = (view.least[:, 0].sum() - view.least[row, 0]) / max(rest, 1e-9)
            sides = [(share, fleet, self.chance[row, 0, 1], view.cells[0]), (least_share, 1 - fleet, self.chance[row, 0, 0], view.cells[1])]
        else:
            fleets = (view.least.sum(0) - view.least[row]) / max(rest, 1e-9)
            sides = list(zip(view.most[row] / self.totals[row], fleets, self.chance[row, :, 1], view.events, strict=True))
        found = [(-f, name) for s, f, p, name in sides if f >= _USUAL and s <= _LACKING * f and p <= self.event_tail]
        return tuple(name for _, name in sorted(found))


def _without(each: F64) -> F64:
    """Return for each device the sum of all others."""
    return np.asarray(each.sum(0) - each, np.float64)


def _plainest(chance: F64, share: F64, fleet: F64) -> int:
    """Return the event whose shares differ most, among those that are about as unlikely as the most unlikely one."""
    lowest = np.maximum(chance.min(1), 1e-30)
    near = np.log(lowest) <= 0.5 * np.log(lowest.min())
    return int(np.argmax(np.where(near, np.abs(share - fleet), -1)))


def _normal_above(z: F64) -> F64:
    """Return the chance that a normal number is above z, to 1e-7: Abramowitz and Stegun, 26.2.17."""
    t = 1 / (1 + 0.2316419 * np.abs(z))
    tail = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * t
    tail = tail * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    return np.asarray(np.where(z < 0, 1 - tail, tail), np.float64)


def _design_effects(view: FieldView, tail: float) -> tuple[F64, F64]:
    """Return by how much a variance is larger than of independent samples: [devices, events], and [devices, 1] over the field.

    By what the blocks of a device differ from its own mean: a device's bias is not in it. Blocks are put together two by two as long as
    enough are left, so that days that follow each other count as alike when they are. Source: Kish, Survey Sampling (1965), 5.6.
    """
    n = view.totals[:, None]
    every, whole = np.ones(view.least.shape), np.ones((len(n), 1))
    length = 1
    while True:
        starts, sizes, inside = _batches(view, length)
        many = np.diff(np.r_[starts, len(sizes)])
        apart = many >= (2 if length == 1 else BATCHES_MIN)
        freedom = int((many[apart] - 1).sum())
        if not freedom or (length > 1 and freedom < FREEDOM_MIN):
            return every, whole[:, 0]
        share = np.add.reduceat(inside, starts, 0) / np.maximum(n, 1e-9)
        off = inside - np.repeat(share, many, 0) * sizes[:, None]
        variance = np.add.reduceat(off**2, starts, 0) * (many / np.maximum(many - 1, 1))[:, None]
        independent = share * (1 - share) * n
        pairs = np.add.reduceat(sizes**2, starts)[:, None] - n
        alike = share * (1 - share) * np.maximum(pairs, 0)
        more = np.where(apart[:, None], variance - independent, 0)
        within = np.where(apart[:, None], alike, 0)
        of_event = np.clip(more.sum(0) / np.maximum(within.sum(0), 1e-9), 0, 1)
        of_field = float(np.clip(more.sum() / max(within.sum(), 1e-9), 0, 1))
        # Events tell as much of the spread as so many that do not hang together (Satterthwaite): hours hang on the light, classes hardly.
        products = off[np.repeat(apart, many)].T @ off[np.repeat(apart, many)]
        independent_events = float(np.trace(products) ** 2 / max((products**2).sum(), 1e-9))
        wider = widening(round(tail, 12), round(freedom * max(1.0, independent_events), 1))
        grown = 1 + np.maximum(of_event, of_field)[None, :] * np.maximum(pairs, 0) / np.maximum(n, 1e-9)
        own = np.where((many >= 4)[:, None] & (independent > 0), variance / np.maximum(independent, 1e-9), 1)
        every = np.maximum(every, np.maximum(grown * wider, own))
        whole = np.maximum(whole, (1 + of_field * np.maximum(pairs, 0) / np.maximum(n, 1e-9)) * wider)
        length *= 2


def _batches(view: FieldView, length: int) -> tuple[NDArray[np.int64], F64, F64]:
    """Return blocks of so many that follow each other, of one device: the first of each device, their sizes and counts in events."""
    ends = np.r_[view.starts[1:], len(view.sizes)]
    firsts = [np.arange(start, end, length) for start, end in zip(view.starts, ends, strict=True)]
    at = np.concatenate(firsts)
    starts = np.cumsum([0, *(len(one) for one in firsts[:-1])]).astype(np.int64)
    return starts, np.asarray(np.add.reduceat(view.sizes, at), np.float64), np.asarray(np.add.reduceat(view.blocks, at, 0), np.float64)
