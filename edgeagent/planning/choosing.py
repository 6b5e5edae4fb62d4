"""Decides what becomes of one round's update: how dense its delta is, of which kind it goes, and whether it goes now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelwire.errors import ModelWireError
from modelwire.lattice.snap import Snapped
from modelwire.lattice.thinning import thinned
from modelwire.planning import (
    NOTE_MOST,
    Bar,
    Candidate,
    Choice,
    Conditions,
    CostRow,
    PlanNote,
    RecoverySpeeds,
    SendPlan,
    coalesced_bytes,
    decide,
    decode,
    encode,
    profile_of,
    recovery_s,
)
from modelwire.update.sections import Kind

from .conditions import Basis, conditions, gain_of
from .figures import ENCODE, GAIN, INTERVAL, RAM, STEP
from .plans import KeptPlan, Plans

PLAN = "plan"  # key of an update's extension
ROOM = len(PLAN) + 1 + NOTE_MOST + 2  # bytes that it takes there at most
USUAL = 36  # and usually
THINNER = (0.5, 0.25, 0.125)  # of the density in the settings: the deltas that are weighed beside it
MEASURED_ROUNDS = "measured: rounds"
LEAP = 8.0  # times the known interval: a longer one was no interval; the clock was set, or the board was off


@dataclass(frozen=True, slots=True)
class WeighedUpdate:
    """A decision with all that is kept of it."""

    plan: SendPlan
    kind: Kind | None  # that goes, or would; None: nothing fits
    hold: int  # Unix seconds until which the update waits for others; 0: it goes
    note: bytes  # for the extension
    document: dict[str, Any]

    @property
    def choice(self) -> str:
        """The row that was chosen: a kind of update, or `wait`."""
        return self.plan.choice.name.lower()


@dataclass
class RoundPlanner:
    """The decisions of one round. What it knows is asked for when it is made; it changes nothing by itself."""

    model: str
    basis: Basis
    plans: Plans
    mode: str  # of the round
    trainer_known: bool
    weights: int  # of the model
    dense: float  # density at which the round is snapped
    thin: list[CostRow] = field(default_factory=list)  # deltas that were weighed and not taken

    def density(self, snapped: Snapped, fixed: int) -> float:
        """Return the density at which the round should be snapped: as it was, or less. fixed: bytes that no entry takes."""
        density = self.dense
        stepped = [s for s in snapped.sections if snapped.state.manifest.stepped(s.tensor)]
        if snapped.kind is not Kind.DELTA or not snapped.size or not stepped:
            return density
        if not profile_of(self.basis.profile).joules_per_byte:
            return density  # what the settings say holds where a byte takes no energy: there is nothing to spare
        gain = gain_of(self.basis).value
        candidates = [Candidate(Choice.DELTA, snapped.size, density)]
        for share, one in zip(THINNER, thinned(stepped, size=snapped.size, fixed=fixed, shares=THINNER), strict=True):
            candidates.append(Candidate(Choice.DELTA, one.bytes, share * density, accuracy_lost=gain * (1.0 - one.kept)))
        plan = decide(candidates, self._conditions(waits=False), self.basis.prices, self._before())
        at = plan.chosen or 0
        self.thin = [replace(row, why=row.why or "estimated") for i, row in enumerate(plan.rows[:-1]) if i != at]
        self.dense = candidates[at].density
        return self.dense

    def decide(self, sizes: Mapping[Kind, tuple[int, int]], now: float) -> WeighedUpdate:
        """Return what becomes of an update that was sealed in these kinds.

        sizes: of each its bytes, and those of them that say no weights; now: Unix seconds.
        """
        held, most_s = self.plans.held(), self.basis.update.wait_most
        count = held.updates
        least = min((fixed for _, fixed in sizes.values()), default=0)
        waiting = [max(0.0, held.size - least * held.queued) / count] * count if count else []
        size, fixed = sizes.get(Kind.SNAPSHOT, (0, 0))
        most = size - fixed if Kind.SNAPSHOT in sizes else None
        candidates = [self._candidate(kind, size - fixed, fixed + USUAL, waiting, most) for kind, (size, fixed) in sizes.items()]
        if Kind.RECIPE not in sizes and not self.basis.update.recipes:
            candidates.append(Candidate(Choice.RECIPE, 0, barred=Bar.RECIPES_OFF))
        # What is carried waits since before what carries it: until when says it.
        oldest = max(0.0, now - held.first, most_s - (held.until - now)) if count else 0.0
        plan = decide(candidates, self._conditions(waiting=count + 1, oldest=oldest), self.basis.prices, self._before())
        hold = 0
        if plan.choice is Choice.WAIT:
            hold = int(now + most_s - oldest) + 1
        note = encode(plan.note)
        kind = None if plan.form is None else Kind(plan.form.value)
        return WeighedUpdate(plan, kind, hold, note, as_document(plan, note, self.thin))

    def _candidate(self, kind: Kind, own: float, fixed: int, waiting: Sequence[float], most: float | None) -> Candidate:
        """Return a form that says all that waits, this update included.

        own: bytes of this update's content, `waiting` of those that wait, `most` of one that tells of every weight.
        """
        choice, bar, alone = Choice(int(kind)), Bar.NONE, max(0.0, own)
        if kind is Kind.RECIPE and own + fixed > self.basis.update.max_bytes:
            bar = Bar.TOO_LARGE
        if kind is Kind.SNAPSHOT:
            return Candidate(choice, own + fixed, barred=bar, recover_s=self._recover_s(0.0, own + fixed, 1))
        if kind is Kind.RECIPE or most is None:  # recipes have no sum
            return Candidate(choice, sum(waiting) + own + fixed, alone=alone + fixed, barred=bar, recover_s=self._recover_s(0.0, own, 1))
        full = max(most, own)
        held = coalesced_bytes(sum(waiting) / len(waiting), full, len(waiting)) if waiting else 0.0
        whole = min(full, held + alone * (1.0 - held / full)) if full > 0 else 0.0
        density = self.dense if kind is Kind.DELTA else 1.0
        return Candidate(choice, whole + fixed, density, alone, full + fixed, barred=bar, recover_s=self._recover_s(full, whole, 2))

    def _recover_s(self, kept: float, chain: float, updates: int) -> float:
        """Return the seconds in which the centre recovers the version: an update on a kept state, which it promises to be near."""
        return recovery_s(RecoverySpeeds(), kept=kept, chain=chain, updates=updates, weights=self.weights)

    def _conditions(self, *, waiting: int = 1, oldest: float = 0.0, waits: bool = True) -> Conditions:
        return conditions(
            self.basis, mode=self.mode, waiting=waiting, oldest=oldest, recipes=self.basis.update.recipes, trainer_known=self.trainer_known,
            waits=waits,
        )  # fmt: skip

    def _before(self) -> PlanNote | None:
        return note_of(self.plans.last())


def note_of(kept: KeptPlan | None) -> PlanNote | None:
    """Return the note of a decision that was kept; None where it can't be read."""
    try:
        return decode(bytes.fromhex(str(kept.document["note"]))) if kept is not None else None
    except (KeyError, ValueError, ModelWireError):
        return None


def as_document(plan: SendPlan, note: bytes, thin: Sequence[CostRow] = ()) -> dict[str, Any]:
    """Return a decision as it is kept and as `why` tells it: rows, figures with their sources, the reason."""
    return {
        "choice": plan.choice.name.lower(), "form": None if plan.form is None else plan.form.name.lower(), "density": plan.density,
        "reason": plan.reason, "updates": plan.updates, "wait_s": plan.wait_s, "note": note.hex(),
        "rows": [_row(row, i == plan.chosen) for i, row in enumerate(plan.rows)] + [_row(row, False) for row in thin],
        "sources": [[name, value, source] for name, value, source in plan.sources],
    }  # fmt: skip


def _row(row: CostRow, goes: bool) -> dict[str, Any]:
    t = row.terms
    return {
        "name": row.name, "bytes": round(row.bytes), "of_bytes": t.bytes, "of_energy": t.energy, "of_storage": t.storage,
        "of_recovery": t.recovery, "of_accuracy": t.accuracy, "of_waiting": t.waiting, "total": row.total, "goes": goes,
        "barred": row.barred.name.lower() if row.barred is not Bar.NONE else "", "why": row.why,
    }  # fmt: skip


def note_round(
    basis: Basis, *, mode: str, step_s: float, memory: int, weights: int, encode_s: float, gain: float | None, apart: float | None,
    now: float,
) -> None:  # fmt: skip
    """Fold in what a round that was kept came to. gain: of accuracy; apart: seconds since the version before; None where not known."""
    values = {STEP + mode: step_s, RAM + mode: float(max(0, memory))}
    if encode_s > 0:
        values[ENCODE] = weights / encode_s
    if gain is not None:
        values[GAIN] = max(0.0, gain)
    if apart is not None and apart > 0:
        known = basis.figures.get(INTERVAL)
        values[INTERVAL] = min(apart, LEAP * (basis.every if known is None else known.value))
    basis.figures.note_all(values, MEASURED_ROUNDS, now)
