"""What tells a cohort from the rest: the fields of its devices' data cards that differ by more than they do for cohorts drawn at random.

Whole devices are drawn, not samples: samples of one device are alike in much that says nothing of its cohort.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire.cards.card import Card
from modelwire.cards.shift import SHIFTED
from modelwire.cards.sketch import Sketch, aligned, merged

DRAWN = 499  # cohorts of the same size
CHANCE = 0.02  # of them may differ as much
CELLS, OTHERS = 512, "others"  # of a field that are told apart; the rest count together
_SHOWN = 3  # cells that are named


@dataclass(frozen=True, slots=True)
class Reason:
    """One field in which a cohort differs from the rest."""

    field: str  # labels, hours, tags.NAME or channels.NAME
    psi: float  # population stability index against the rest: above 0.1 they are shifted
    chance: float  # what all but 2 % of the cohorts drawn at random stay below
    cells: tuple[str, ...]  # of which the cohort has more, those that count most first
    share: float  # of the cohort's counts that are in them; of a channel the mean
    elsewhere: float  # likewise of the rest

    @property
    def words(self) -> str:
        name = self.field.split(".", 1)[-1]
        if self.field.startswith("channels."):
            return f"{name} {self.share:.3g} on average (elsewhere {self.elsewhere:.3g})"
        cells = _runs(self.cells) if self.field == "hours" else self.cells
        more = ", ".join(cells[:_SHOWN]) + (" and more" if len(cells) > _SHOWN else "")
        return f"{name} {more}: {100 * self.share:.0f} % (elsewhere {100 * self.elsewhere:.0f} %)"


@dataclass(frozen=True, slots=True)
class FieldTable:
    """Counts of one field: a row a device, a column a cell."""

    field: str
    cells: tuple[Any, ...]
    counts: NDArray[np.float64]  # [devices, cells]
    sums: NDArray[np.float64] | None = None  # [devices, 2] count and sum of a channel's values

    def of(self, some: NDArray[np.bool_]) -> FieldTable:
        """Return the table of some of the devices."""
        return FieldTable(self.field, self.cells, self.counts[some], None if self.sums is None else self.sums[some])


def tables(cards: Sequence[Card]) -> list[FieldTable]:
    """Return the fields that the cards tell, those with two cells or more. Channels of another axis than most devices' are left out."""
    fields: dict[str, list[Mapping[Any, int]]] = {"labels": [card.labels for card in cards]}
    fields["hours"] = [dict(enumerate(card.hours)) for card in cards]
    for name in sorted({name for card in cards for name in card.tags}):
        fields[f"tags.{name}"] = [card.tags.get(name, {}) for card in cards]
    out = [table for field, counts in fields.items() if (table := _table(field, counts)) is not None]
    for name in sorted({sketch.channel.name for card in cards for sketch in card.sketches}):
        table = _channel_table(name, [next((s for s in card.sketches if s.channel.name == name), None) for card in cards])
        if table is not None:
            out.append(table)
    return out


def reasons(of: Sequence[FieldTable], members: NDArray[np.bool_], seed: int = 0) -> tuple[Reason, ...]:
    """Return the fields that tell the members from the other devices, the farthest first; none where one side is empty."""
    n, size = len(members), int(members.sum())
    if not 0 < size < n:
        return ()
    rng = np.random.default_rng([seed, n, size])
    drawn = np.zeros((DRAWN, n))
    for row in drawn:
        row[rng.choice(n, size, replace=False)] = 1
    out = []
    for table in of:
        whole = table.counts.sum(0)
        own = members @ table.counts
        psi = float(_psi(own[None], (whole - own)[None])[0])
        some = drawn @ table.counts
        by_chance = np.nan_to_num(_psi(some, whole - some))
        if psi > SHIFTED and (1 + int((by_chance >= psi).sum())) / (DRAWN + 1) <= CHANCE:
            out.append(_reason(table, members, own, whole - own, psi, float(np.quantile(by_chance, 1 - CHANCE))))
    return tuple(sorted(out, key=lambda reason: (-reason.psi, reason.field)))


def shifted(of: Sequence[FieldTable], members: NDArray[np.bool_]) -> frozenset[str]:
    """Return the fields in which the members differ from the others by what is called shifted, chance or not."""
    psi = {table.field: float(_psi((members @ table.counts)[None], (~members @ table.counts)[None])[0]) for table in of}
    return frozenset(field for field, index in psi.items() if index > SHIFTED)


def _runs(hours: Sequence[str]) -> list[str]:
    """Return hours as people say them: 20-23, and not 22, 20, 21, 23."""
    out: list[list[int]] = []
    for hour in sorted(int(one) for one in hours):
        if out and hour == out[-1][-1] + 1:
            out[-1].append(hour)
        else:
            out.append([hour])
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in out]


def _table(field: str, counts: Sequence[Mapping[Any, int]]) -> FieldTable | None:
    total: Counter[Any] = Counter()
    for of in counts:
        total.update(of)
    cells = sorted(cell for cell, n in total.items() if n)
    if len(cells) < 2:
        return None
    kept = cells
    if len(cells) > CELLS:  # 64 values of a tag a device: whoever wants to can send that
        kept = sorted(sorted(cells, key=lambda cell: (-total[cell], cell))[: CELLS - 1])
    place = {cell: k for k, cell in enumerate(kept)}
    table = np.zeros((len(counts), len(kept) + (len(kept) < len(cells))))
    for row, of in zip(table, counts, strict=True):
        for cell, n in of.items():
            if n:
                row[place.get(cell, len(kept))] += n
    return FieldTable(field, (*kept, OTHERS) if len(kept) < len(cells) else tuple(kept), table)


def _channel_table(name: str, sketches: Sequence[Sketch | None]) -> FieldTable | None:
    channel = Counter(s.channel for s in sketches if s is not None).most_common(1)[0][0]
    held = [s if s is not None and s.channel == channel else Sketch(channel) for s in sketches]
    whole = held[0]
    for one in held[1:]:
        whole = merged(whole, one)
    table = _table(f"channels.{name}", [aligned(one, whole)[0] for one in held])
    if table is None:
        return None
    sums = np.array([[one.count, one.mean * one.count if one.count else 0.0] for one in held])
    return FieldTable(table.field, table.cells, table.counts, sums)


def _psi(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the population stability index of each row of a against that of b, as modelwire.cards.card.stability has it; NaN of none."""
    held = (a + b) > 0
    kinds = held.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = ((side + 0.5) / (side.sum(1, keepdims=True) + 0.5 * kinds) for side in (a, b))
        index = np.where(held, (x - y) * np.log(x / y), 0).sum(1)
    return np.where((a.sum(1) > 0) & (b.sum(1) > 0), index, math.nan)


def _reason(
    table: FieldTable, members: NDArray[np.bool_], own: NDArray[np.float64], rest: NDArray[np.float64], psi: float, chance: float
) -> Reason:  # fmt: skip
    if table.sums is not None:
        (n, total), (m, other) = members @ table.sums, ~members @ table.sums
        return Reason(table.field, psi, chance, (), total / n if n else math.nan, other / m if m else math.nan)
    x, y = own / own.sum(), rest / rest.sum()
    more = [int(k) for k in np.argsort(-(x - y), kind="stable") if x[k] > y[k]]
    few = more[:1] + [k for k in more[1:] if x[k] - y[k] > 0.25 * (x[more[0]] - y[more[0]])]
    return Reason(table.field, psi, chance, tuple(str(table.cells[k]) for k in few), float(x[few].sum()), float(y[few].sum()))
