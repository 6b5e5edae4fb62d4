"""Which rows of a probe set stand for a device's world, and which models are worth running on them: by data cards, without any model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecloud.probes.sets import ProbeSet
from modelwire.cards.card import Card
from modelwire.cards.facts import FACTS
from modelwire.cards.shift import shifts
from modelwire.errors import BadArgument

F64: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]
ROWS_MIN = 30  # that an answer needs, as many as equally weighted ones
TURNS, NEAR = 100, 1e-9  # of the fit to several margins
LABELS, LABEL = "labels", "label"  # a card's field, and the tag by which a context names one of them


@dataclass(frozen=True, slots=True)
class WeightedRows:
    """Rows that stand for a world. rows: numbers, rising; weights: above 0, one each."""

    rows: Rows
    weights: F64
    fields: tuple[str, ...] = ()  # of the card by which they are weighted
    lacking: Mapping[str, float] | None = None  # FIELD=VALUE of the card that no row has, and the share of its samples

    @property
    def even(self) -> bool:
        """Whether all count the same."""
        return bool(np.ptp(self.weights) <= NEAR * self.weights.max()) if len(self.weights) else True


def of_context(probes: ProbeSet, context: str) -> WeightedRows:
    """Return the rows that carry a context. Raises BadArgument for one that nobody has, or too few rows."""
    rows = probes.rows(context)
    return _enough(WeightedRows(rows, np.ones(len(rows))), context or "the probe set")


def of_card(probes: ProbeSet, card: Card, name: str) -> WeightedRows:
    """Return the rows weighted so that their tags and labels are as frequent as in a card: iterative proportional fitting.

    A field counts that both the rows and the card tell of. name: whose card it is, for errors.
    Source: Deming and Stephan, Annals of Mathematical Statistics 11 (1940). Raises BadArgument where too few rows are left.
    """
    margins: list[tuple[str, NDArray[Any], Mapping[Any, int]]] = [
        (f"tags.{tag}", np.array(values), card.tags[tag])
        for tag, values in sorted(probes.tags.items()) if any(card.tags.get(tag, {}).values())
    ]  # fmt: skip
    if probes.labels is not None and any(card.labels.values()):
        margins.append((LABELS, probes.labels, card.labels))
    if not margins:
        known = ", ".join((*probes.tags, *((LABELS,) if probes.labels is not None else ()))) or "nothing"
        fix = "add probes with the tags that its data cards carry: edgecloud card DEVICE"
        raise BadArgument(reason=f"the rows tell {known}, and the cards of {name} tell none of it", fix=fix)
    weights, lacking, cells = np.ones(len(probes)), dict[str, float](), list[tuple[NDArray[np.bool_], float]]()
    for field, values, counts in margins:
        total, there = sum(counts.values()), {value for value in counts if counts[value] and (values == value).any()}
        said = LABEL if field == LABELS else field.removeprefix("tags.")
        lacking.update({f"{said}={v}": n / total for v, n in counts.items() if n and v not in there})
        covered = sum(counts[value] for value in there)
        weights[~np.isin(values, list(there))] = 0
        cells += [(values == value, counts[value] / covered) for value in sorted(there)]
    for _ in range(TURNS):
        before = weights.copy()
        for cell, share in cells:
            have, all_ = float(weights[cell].sum()), float(weights.sum())
            if have > 0 and all_ > have and share < 1:  # so that the cell has its share of what then is the whole
                weights[cell] *= share / (1 - share) * (all_ - have) / have
        if weights.sum() <= 0 or float(np.abs(weights / weights.sum() - before / before.sum()).max()) < NEAR:
            break
    rows = np.flatnonzero(weights > 0).astype(np.int64)
    return _enough(WeightedRows(rows, weights[rows], tuple(field for field, _, _ in margins), lacking), f"the world of {name}")


def _enough(found: WeightedRows, what: str) -> WeightedRows:
    total = float(found.weights.sum())
    size = total**2 / float((found.weights**2).sum()) if total > 0 else 0.0
    if size < ROWS_MIN:
        reason = f"{what} has as much as {size:.0f} equally weighted rows of the probe set, of {ROWS_MIN} that an answer needs"
        lacking = sorted((found.lacking or {}).items(), key=lambda one: -one[1])[:4]
        of = ", ".join(f"{name} ({share:.0%} of its samples)" for name, share in lacking)
        raise BadArgument(reason=reason, fix=f"add probes of it: edgecloud probes add NAME FILE.npz{f'; none has {of}' if of else ''}")
    return found


def halves(found: WeightedRows, digest: bytes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return two masks over the rows: those by which models are chosen, and those by which the chosen ones are judged.

    Which is which follows from the probe set's digest: asking again gives no other draw.
    """
    order = np.random.default_rng(np.frombuffer(digest, np.uint8)).permutation(len(found.rows))
    first = np.zeros(len(found.rows), np.bool_)
    first[order[: len(order) // 2]] = True
    return first, ~first


def apart(card: Card, other: Card | None) -> float:
    """Return how unlike two devices' data is: the mean index of the fields that both tell, none below what chance alone gives.

    Facts of the board are left out. Infinite where there is no card, or no field in common.
    """
    if other is None:
        return math.inf
    fields = [s for s in shifts(card, other) if s.field.removeprefix("tags.") not in FACTS]
    return sum(max(0.0, s.psi - s.chance) for s in fields) / len(fields) if fields else math.inf


def share_of(context: Mapping[str, str], card: Card | None) -> float:
    """Return which share of a device's samples lies in a context, as far as its card tells, tags taken as independent; 0 for no card."""
    share = 1.0
    for tag, value in context.items():
        counts: Mapping[str, int] = {} if card is None else card.tags.get(tag, {})
        total = sum(counts.values())
        share *= counts.get(value, 0) / total if total else 0.0
    return share


def nearest(distances: Sequence[float], most: int) -> list[int]:
    """Return the places of the `most` smallest, in their order; of equal ones the first."""
    return sorted(sorted(range(len(distances)), key=lambda i: distances[i])[:most])
