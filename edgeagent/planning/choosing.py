"""Decides what becomes of one round's update: how dense its delta is, of which kind it goes, and whether it goes now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelwire.errors import ModelWireError
from modelwire.lattice.snap import Snapped
from modelwire.lattice.thinning import thinned
from modelwire.planning import NOTE_MOST, Bar, Candidate, Choice, Conditions, CostRow, Plan, PlanNote, decide, decode, encode
from modelwire.update.sections import Kind

from .conditions import Basis, conditions, gain_of
from .figures import ENCODE, GAIN, INTERVAL, RAM, STEP
from .plans import KeptPlan, Plans

PLAN = "plan"  # key of an update's extension
ROOM = len(PLAN) + 1 + NOTE_MOST + 2  # bytes that it takes there at most
THINNER = (0.5, 0.25, 0.125)  # of the density in the settings: the deltas that are weighed beside it
MEASURED_ROUNDS = "measured: rounds"


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with all that is kept of it."""

    plan: Plan
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
        gain = gain_of(self.basis).value
        candidates = [Candidate(Choice.DELTA, snapped.size, density)]
        for share, one in zip(THINNER, thinned(stepped, size=snapped.size, fixed=fixed, shares=THINNER), strict=True):
            candidates.append(Candidate(Choice.DELTA, one.bytes, share * density, accuracy_lost=gain * (1.0 - one.kept)))
        plan = decide(candidates, self._conditions(waits=False), self.basis.prices, self._before())
        at = plan.chosen or 0
        self.thin = [replace(row, why=row.why or "estimated") for i, row in enumerate(plan.rows[:-1]) if i != at]
        self.dense = candidates[at].density
        return self.dense

    def decide(self, sizes: Mapping[Kind, int], now: float) -> Decided:
        """Return what becomes of an update that was sealed in these kinds. sizes: bytes of each; now: Unix seconds."""
        count, held, first = self.plans.held()
        full = sizes.get(Kind.SNAPSHOT)
        candidates = [self._candidate(kind, size + ROOM, held, full) for kind, size in sizes.items()]
        if Kind.RECIPE not in sizes and not self.basis.update.recipes:
            candidates.append(Candidate(Choice.RECIPE, 0, barred=Bar.RECIPES_OFF))
        oldest = max(0.0, now - first) if count else 0.0
        plan = decide(candidates, self._conditions(waiting=count + 1, oldest=oldest), self.basis.prices, self._before())
        hold = 0
        if plan.choice is Choice.WAIT:
            hold = int((first if count else now) + self.basis.update.wait_most) + 1
        note = encode(plan.note)
        kind = None if plan.form is None else Kind(plan.form.value)
        return Decided(plan, kind, hold, note, as_document(plan, note, self.thin))

    def _candidate(self, kind: Kind, size: int, held: int, full: int | None) -> Candidate:
        """Return a form that says all that waits, this update included."""
        choice, bar = Choice(int(kind)), Bar.NONE
        if kind is Kind.RECIPE and size > self.basis.update.max_bytes:
            bar = Bar.TOO_LARGE
        if kind is Kind.SNAPSHOT:
            return Candidate(choice, size, barred=bar, recover_s=self._read_s())
        most = full if kind in (Kind.DELTA, Kind.EXACT) and full is not None else None
        whole = size if most is None or not held else held + size * max(0.0, 1.0 - held / max(most, 1))
        if most is None:
            whole = held + size
        return Candidate(
            choice, whole, self.dense if kind is Kind.DELTA else 1.0, alone=size, full=None if most is None else max(most, whole),
            barred=bar, recover_s=2 * self._read_s(),
        )  # fmt: skip

    def _read_s(self) -> float:
        """Return the seconds in which a state is decoded: about those in which it is encoded. The centre keeps every version in two."""
        rate = self.basis.figures.get(ENCODE)
        return self.weights / rate.value if rate is not None and rate.value > 0 else 0.0

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


def as_document(plan: Plan, note: bytes, thin: Sequence[CostRow] = ()) -> dict[str, Any]:
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
    basis: Basis, *, mode: str, step_s: float, memory: int, weights: int, encode_s: float, gain: float | None, apart: float | None, now: float
) -> None:
    """Fold in what a round that was kept came to. gain: of accuracy; apart: seconds since the version before; None where not known."""
    values = {STEP + mode: step_s, RAM + mode: float(max(0, memory))}
    if encode_s > 0:
        values[ENCODE] = weights / encode_s
    if gain is not None:
        values[GAIN] = max(0.0, gain)
    if apart is not None and apart > 0:
        values[INTERVAL] = apart
    basis.figures.note_all(values, MEASURED_ROUNDS, now)
