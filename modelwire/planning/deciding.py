"""The table of what each form would cost, and the choice from it, with one sentence of reason.

J = w_b * bytes + w_e * joules + w_s * stored * months + w_r * recoveries * seconds + w_q * accuracy lost, and what waiting costs:
docs/cost-model.md. Only sums, products, quotients and comparisons of 64-bit floats, in one order: the same bits anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .candidates import Bar, Candidate, Choice
from .conditions import Conditions
from .costs import terms_of
from .notes import PlanNote, coarse_density, source_bits
from .prices import Prices
from .waiting import Outlook, outlook

HYSTERESIS = 0.1  # a form that was chosen before stays until another is cheaper by more than this share


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one J, in the currency of the prices."""

    bytes: float = 0.0
    energy: float = 0.0
    storage: float = 0.0
    recovery: float = 0.0
    accuracy: float = 0.0
    waiting: float = 0.0

    @property
    def total(self) -> float:
        """J: the sum, in the order of the fields."""
        return self.bytes + self.energy + self.storage + self.recovery + self.accuracy + self.waiting


@dataclass(frozen=True, slots=True)
class CostRow:
    """One line of the table. A row that is barred has its J too, so that one sees what it would have cost."""

    name: str  # "delta 0.3 %", "wait"
    choice: Choice
    density: float
    bytes: float  # of this upload; of waiting: 0
    terms: Terms
    total: float
    barred: Bar
    why: str  # why it is barred, or what else is to be said of it; empty when nothing is


@dataclass(frozen=True, slots=True)
class SendPlan:
    """What was decided, why, and the table behind it."""

    choice: Choice
    form: Choice | None  # the kind of update that goes, or would go if it did not wait; None: nothing fits
    density: float  # of that form
    chosen: int | None  # its place among the candidates
    rows: tuple[CostRow, ...]  # the candidates in their order, then waiting
    reason: str
    sources: tuple[tuple[str, float, str], ...]  # each figure that was known: name, value, source
    updates: int  # that wait, this one included
    wait_s: float = 0.0  # how long waiting is expected to last
    source_bits: int = 0

    @property
    def note(self) -> PlanNote:
        """What of it travels with the update."""
        least: dict[Choice, CostRow] = {}
        for row in self.rows:
            held = least.get(row.choice)
            if held is None or (row.barred is not Bar.NONE, row.total) < (held.barred is not Bar.NONE, held.total):
                least[row.choice] = row
        if self.form is not None and self.chosen is not None:
            least[self.form] = self.rows[self.chosen]
        totals = {choice: (row.total if row.barred is Bar.NONE else None, row.barred) for choice, row in least.items()}
        return PlanNote.of(self.choice, self.form, self.density, totals, self.updates, self.source_bits)


def decide(candidates: Sequence[Candidate], conditions: Conditions, prices: Prices, before: PlanNote | None = None) -> SendPlan:
    """Return the cheapest choice among what is allowed, with the table. Never fails: where nothing fits, the update waits.

    candidates: at most one snapshot, exact and recipe, deltas at any number of densities; of two that cost the same the first one is taken.
    before: what was decided last time; its form stays until another is cheaper by more than 10 %. Between waiting and sending there is
    no such favour, as they take turns by nature, and the cheapest form is what speaks for sending.
    """
    rows = [_row(candidate, conditions, prices) for candidate in candidates]
    allowed = [i for i, row in enumerate(rows) if row.barred is Bar.NONE]
    best = min(allowed, key=lambda i: (rows[i].total, i)) if allowed else None
    chosen = _steady(rows, allowed, best, before)
    if best is not None and chosen is not None and chosen != best:
        rows[chosen] = replace(rows[chosen], why=f"as before: {rows[best].name} is not cheaper by more than {100 * HYSTERESIS:.0f} %")
    view = outlook([candidates[i] for i in allowed], conditions, prices)
    terms = Terms(*view.terms)
    wait = CostRow("wait", Choice.WAIT, 1.0, 0.0, terms, terms.total, view.barred, _why_not_wait(view, conditions))
    rows.append(wait)
    form = None if chosen is None else rows[chosen].choice
    waits = best is None or (view.barred is Bar.NONE and wait.total < rows[best].total)
    return SendPlan(
        choice=Choice.WAIT if waits or form is None else form,
        form=form,
        density=1.0 if chosen is None else rows[chosen].density,
        chosen=chosen,
        rows=tuple(rows),
        reason=_reason(rows, chosen, best, waits, view, conditions),
        sources=tuple((name, figure.value, figure.source) for name, figure in conditions.figures()),
        updates=_waiting(conditions),
        wait_s=view.seconds if waits and view.barred is Bar.NONE else 0.0,
        source_bits=source_bits(conditions),
    )


def _waiting(conditions: Conditions) -> int:
    return 1 if conditions.forecast is None else max(1, conditions.forecast.waiting)


def _row(candidate: Candidate, conditions: Conditions, prices: Prices) -> CostRow:
    size, updates = np.array([float(candidate.bytes)]), np.array([float(_waiting(conditions))])
    terms = Terms(*terms_of(candidate, size, updates, conditions, prices, awake=conditions.awake)[:, 0].tolist())
    barred, why = _bar(candidate, conditions)
    return CostRow(candidate.name, candidate.choice, candidate.density, candidate.bytes, terms, terms.total, barred, why)


def _bar(candidate: Candidate, conditions: Conditions) -> tuple[Bar, str]:
    if candidate.barred is not Bar.NONE:
        return candidate.barred, SAID[candidate.barred]
    if candidate.choice is Choice.RECIPE and not conditions.recipes:
        return Bar.RECIPES_OFF, SAID[Bar.RECIPES_OFF]
    if candidate.choice is Choice.RECIPE and not conditions.trainer_known:
        return Bar.TRAINER, SAID[Bar.TRAINER]
    free, rate, left, promise = conditions.free_memory, conditions.rate, conditions.window_left_s, conditions.promise_s
    if free is not None and candidate.memory > free.value:
        return Bar.MEMORY, f"takes {candidate.memory:,.0f} bytes of memory, and {free.value:,.0f} are free"
    if promise is not None and candidate.recover_s > promise.value:
        return Bar.PROMISE, f"would take {candidate.recover_s:.3g} s to recover, and {promise.value:.3g} s are promised"
    if left is not None and not left.value:
        return Bar.WINDOW, "there is no connection"
    on_air = float(conditions.link.on_air(np.array([float(candidate.bytes)]))[0])
    if left is not None and rate is not None and on_air > left.value * rate.value:
        return Bar.WINDOW, f"{on_air:,.0f} bytes do not go through in the {left.value:.3g} s that the connection lasts"
    return Bar.NONE, ""


SAID = {
    Bar.NONE: "", Bar.WINDOW: "it would not be through before the connection ends", Bar.MEMORY: "there is not the memory for it",
    Bar.PROMISE: "it could not be recovered in the time that is promised",
    Bar.RECIPES_OFF: "update.recipes is off: features do not leave the board",
    Bar.TRAINER: "the centre does not know this board's version of the trainer", Bar.TOO_LARGE: "it is larger than an update may be",
    Bar.ALWAYS_ON: "nothing waits on a link that is always on", Bar.WAITED: "it has waited for as long as it may",
    Bar.UNTOLD: "nothing is known of when the next update comes", Bar.SETTINGS: "the settings ask for another kind",
    Bar.NOTHING: "there is no such form",
}  # fmt: skip


def _why_not_wait(view: Outlook, conditions: Conditions) -> str:
    if view.barred is Bar.ALWAYS_ON:
        return f"nothing waits on {conditions.link.name}, which is always on"
    return SAID[view.barred]


def _steady(rows: Sequence[CostRow], allowed: Sequence[int], best: int | None, before: PlanNote | None) -> int | None:
    """Return the place of the form that goes: the best one, or the one before where the best is not better by enough."""
    if best is None or before is None or before.form is None:
        return best
    for i in allowed:
        same = rows[i].choice is before.form and (before.form is not Choice.DELTA or coarse_density(rows[i].density) == before.density_ppm)
        if same:
            return best if rows[best].total < (1.0 - HYSTERESIS) * rows[i].total else i
    return best


def _reason(
    rows: Sequence[CostRow], chosen: int | None, best: int | None, waits: bool, view: Outlook, conditions: Conditions
) -> str:
    wait = rows[-1]
    if chosen is None or best is None:
        said = "; ".join(f"{row.name}: {row.why}" for row in rows[:-1]) or "no form was offered"
        return f"nothing fits, so it waits: {said}"
    row = rows[chosen]
    if waits:
        return (
            f"waits about {said_seconds(view.seconds)}, to go with {view.updates - view.now:.1f} more: beyond what that time costs anyway"
            f" it comes to {wait.total:.3g}, {row.name} now to {row.total:.3g}"
        )
    others = [r for i, r in enumerate(rows[:-1]) if i != chosen and r.barred is Bar.NONE]
    said = f"{row.name} now, for {row.total:.3g}"
    if chosen != best:
        return f"{said}, {row.why}"
    if others:
        next_best = min(others, key=lambda r: r.total)
        said += f": {next_best.name} would come to {next_best.total:.3g}"
    if wait.barred is Bar.NONE:
        return f"{said}, waiting to {wait.total:.3g}" if others else f"{said}: waiting would come to {wait.total:.3g}"
    return f"{said}; {wait.why}"


def said_seconds(seconds: float) -> str:
    """Return a duration as people say it: `40 s`, `5 min`, `7.5 h`, `2 days`."""
    for unit, length, most in (("s", 1.0, 90.0), ("min", 60.0, 5400.0), ("h", 3600.0, 172800.0)):
        if seconds < most:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400.0:.3g} days"
