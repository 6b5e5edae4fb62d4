"""Snap a trained model to the lattice: choose the step, adopt the result, keep the residual. Only a device does this.

Nothing here is normative for a reader: threshold, dead zone and rounding are the sender's choice, the integers are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelwire import _core, limits
from modelwire.errors import BudgetExhausted, ModelWireError, NonFinite
from modelwire.tensors import F32, I32, U16, Held
from modelwire.update.container import size_of
from modelwire.update.manifest import Manifest
from modelwire.update.sections import AnySection, Kind, Sections, invert

from . import narrow
from .between import exact_sections
from .candidates import DEAD_ZONE, Candidates, Residual, Step, Taken, Whole
from .held_step import count_to_send
from .state import ModelState, naming

__all__ = ["DEAD_ZONE", "Snapped", "Step", "no_residual", "snap", "training_start"]

WIDEN_BY = 3  # a clamped tensor's next unit is 2^3 times as large
LOOKAHEAD = 0.2  # of the residual; 0 adopts, 1 would train a shadow copy (decisions 0005 and 0007 have the figures)
AIM = 0.97  # of the budget, where the second probe aims: bits an entry differ a little from what the first one says
ENOUGH = 0.88  # of the budget: with this much of it used there is no second probe
APART = 0.3  # bits more an entry takes when there are half as many; 1 if the coder knew nothing of where they lie (measured)
BITS_GUESSED = 6.0  # an entry sent, before the first probe has told: 5.4 clustered, 10 alone in its tensor
BF16_INFINITY = 0x7F80


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """A tensor as it was before it got larger units."""

    tensor: int
    exponent: int
    integers: I32
    weights: F32


@dataclass(frozen=True, slots=True)
class Snapped:
    """What one round gives: the state, moved, that the device runs from now on, and the update that says so."""

    kind: Kind
    sections: Sections
    state: ModelState  # the one that was given to `snap`
    residual: Residual
    step: Step | None  # None for an exact update
    clamped: tuple[int, ...]  # tensors that met the end of the lattice's range: what to widen next
    moved: Sections  # how the state was moved; the update itself, unless it is a snapshot
    widened: tuple[Before, ...] = ()
    size: int = 0  # bytes of a delta's container, `overhead` included; 0 where they were not counted

    def undo(self) -> None:
        """Take the round back: the state has every bit that it had before. Only the last round of a state can be taken back."""
        for b in self.widened:
            t = b.tensor
            self.state.exponents[t], self.state.integers[t], self.state.weights[t] = b.exponent, b.integers, b.weights
        if self.widened:  # larger units give no difference that could be subtracted
            self.state.fingerprint = self.state.measure_fingerprint()
        self.state.apply(Kind.EXACT if self.state.manifest.all_exact else Kind.DELTA, invert(self.moved))


def exactly(state: ModelState, trained: Sequence[Held], residual: Residual) -> Snapped:
    """Move `state` to the trained weights themselves, as a device does that adopts nothing, and return it with the exact update.

    Raises WrongBase unless all tensors of the base are exact, NonFinite when a weight is no number; the state is as before then.
    """
    sections = exact_sections(state, trained)
    state.apply(Kind.EXACT, sections)
    return Snapped(Kind.EXACT, sections, state, residual, None, (), moved=sections)


def no_residual(manifest: Manifest) -> Residual:
    """Return the residual of a fresh, rolled-back or newly deployed model: nothing."""
    return [
        np.zeros(spec.size if manifest.lattice(t) else 0, np.uint16) for t, spec in enumerate(manifest.schema.tensors)
    ]


def training_start(state: ModelState, residual: Residual) -> tuple[list[Held], Residual]:
    """Return (weights from which to train a round, residual to give to `snap` with the trained weights).

    Training sees a part of the residual, the rest is only carried: from the adopted weights alone a round learns anew
    what still waits to be sent and overshoots; from all of it the device trains a model that it does not run. Decision 0005.
    """
    start: list[Held] = []
    left: Residual = []
    for t, (w, r) in enumerate(zip(state.weights, residual, strict=True)):
        if not state.manifest.stepped(t):  # int8 trains on codes: a part of one is none
            start.append(w.copy())
            left.append(r)
            continue
        whole = _float32(r)
        seen = whole * np.float32(LOOKAHEAD)
        start.append(w + seen)
        left.append(_bf16(whole - seen))
    return start, left


def snap(
    state: ModelState,
    trained: Sequence[Held],
    residual: Residual,
    *,
    density: float = 1.0,
    max_bytes: int = limits.DEFAULT.container,
    step: Step | None = None,
    held: Step | None = None,
    widen: Sequence[int] = (),
    overhead: int = 0,
) -> Snapped:
    """Move `state` by what of the training is worth sending, and return it with the update that says so.

    The update is a delta of at most about `density` (kept / all), never above `max_bytes` as a container: where the density wants more
    than that, it uses most of it. step: of the whole model, where it is known beforehand, in place of one for the density.
    held: the step of the last round that was adopted; it is used again while it sends `held_step.FEWEST` of the density to all of it.
    residual and trained are left as they are; `Snapped.undo` takes the round back. When anything is raised the state is as before.
    widen: tensors that were clamped last time; where a larger unit exists, the update is a snapshot with it, whatever its size.
    overhead: bytes of names and extension that the container will carry.
    Raises NonFinite, and BudgetExhausted when not even the largest difference fits.
    """
    _core.check_rounding()
    candidates = Candidates(state, trained, residual)
    count = max(1, int(density * candidates.count))
    # Otherwise every second update would be a snapshot in vain.
    widen = [t for t in widen if state.manifest.stepped(t) and state.exponents[t] < limits.EXPONENT_MAX]
    if widen:
        return _widened(state, trained, residual, candidates, count, step or held, widen)
    whole = candidates.adopt_whole()
    adopting = _Adopting(state, candidates, whole, step, held, overhead)
    try:
        return _within(max_bytes, adopting, count)
    except ModelWireError:
        adopting.drop()
        candidates.retract_whole(whole)
        raise


@dataclass(slots=True, eq=False)
class _Adopting:
    """What a round has adopted so far, with its coded size."""

    state: ModelState
    candidates: Candidates
    whole: Whole
    step: Step | None
    held: Step | None
    overhead: int
    kept: bool = False  # the held step serves
    taken: Sequence[Taken] = ()
    sections: Sections = ()
    size: int = 0
    clamped: tuple[int, ...] = ()

    @property
    def sent(self) -> int:
        return sum(len(part.index) for part in self.taken)

    def probe(self, count: int) -> None:
        """Adopt about `count` entries and code them."""
        self.drop()
        if self.step is not None:
            self.taken = self.candidates.adopt_step(self.step, expect=count)
        else:
            self._hold_or_choose(count)
        self.clamped = tuple(t for t in range(len(self.state.weights)) if any(part.clamped[t] for part in self.taken))
        self._code()

    def _hold_or_choose(self, count: int) -> None:
        held, self.held, self.kept = self.held, None, False  # it is tried once: after that the budget speaks
        if held is not None:
            self.taken = self.candidates.adopt_step(held, expect=count)
            wanted, sent = count_to_send(self.sent, count), self.sent
            if wanted == sent:
                self.kept = True
                return
            self.drop()
            count = wanted
        self.taken = self.candidates.adopt_count(count)

    def cut(self, count: int) -> None:
        """Keep the `count` largest moves of those that were adopted, and code them."""
        self.taken = self.candidates.keep_largest(self.taken, count)
        self._code()

    def drop(self) -> None:
        self.candidates.retract(self.taken)
        self.taken = ()

    def _code(self) -> None:
        self.sections = self.candidates.sections(self.taken, self.whole)
        self.size = self.size_of(self.sections)

    def size_of(self, sections: Sequence[AnySection]) -> int:
        return size_of(sections, self.state.manifest.schema) + self.overhead

    def done(self) -> Snapped:
        assert self.candidates.step is not None
        return Snapped(
            Kind.DELTA, self.sections, self.state, self.candidates.left, self.candidates.step, self.clamped, moved=self.sections,
            size=self.size,
        )  # fmt: skip


def _within(budget: int, adopting: _Adopting, wanted: int) -> Snapped:
    """Return the round that sends `wanted` entries, or as many as the budget holds; the state is as before when anything is raised."""
    count = max(1, min(wanted, int(8 * max(0, budget) / BITS_GUESSED)))
    adopting.probe(count)
    if adopting.size <= budget and (count >= wanted or adopting.kept or adopting.size >= ENOUGH * budget):
        return adopting.done()
    fixed = adopting.size_of(adopting.candidates.sections((), adopting.whole))
    room = max(0, budget - fixed)
    if adopting.step is None and room:
        sent, first = max(1, adopting.sent), adopting.size
        second = min(wanted, _fitting(8 * AIM * room, sent, 8 * (first - fixed) / sent))
        adopting.probe(second)
        if adopting.size < ENOUGH * budget and second < wanted:
            # Steps of few units are far apart: none comes near the budget from below, so one above it is cut.
            adopting.probe(count if first > budget else min(wanted, 2 * second))
    # Where the probes were off, or no step tells equal differences apart: the largest moves of what they chose, until they fit.
    while adopting.size > budget:
        sent = adopting.sent
        if sent <= 1:
            adopting.drop()
            raise BudgetExhausted(what="the smallest delta of this round", budget=budget)
        adopting.cut(max(1, min(sent - 1, int(0.97 * sent * room / max(1, adopting.size - fixed)))))
    return adopting.done()


def _fitting(bits: float, sent: int, each: float) -> int:
    """Return how many entries take `bits`, when `sent` took `each` of them: fewer lie further apart, and take more bits each."""
    low, high = 1.0, max(2.0, bits)
    for _ in range(60):
        middle = (low + high) / 2
        if middle * max(1.0, each + APART * math.log2(sent / middle)) > bits:
            high = middle
        else:
            low = middle
    return max(1, int(low))


def _widened(
    state: ModelState, trained: Sequence[Held], residual: Residual, candidates: Candidates, count: int, step: Step | None,
    widen: Sequence[int],
) -> Snapped:  # fmt: skip
    """Snap with larger units for the clamped tensors: their whole state is written anew on the coarser lattice."""
    coarser = [_coarser(state, t, trained[t], residual[t]) for t in widen]  # before anything moves: what is refused changes nothing
    whole = candidates.adopt_whole()
    try:
        taken = candidates.adopt_step(step, expect=count, leave=widen) if step else candidates.adopt_count(count, leave=widen)
    except ModelWireError:
        candidates.retract_whole(whole)
        raise
    moved = candidates.sections(taken, whole)
    still = {t for part in taken for t, cut in enumerate(part.clamped) if cut}
    before = []
    for c in coarser:
        t = c.tensor
        before.append(Before(t, state.exponents[t], state.integers[t], state.weights[t]))
        state.exponents[t], state.integers[t], state.weights[t] = c.exponent, c.integers, c.weights
        candidates.left[t][:] = c.left
        if c.clamped:
            still.add(t)
    state.fingerprint = state.measure_fingerprint()
    assert candidates.step is not None
    return Snapped(
        Kind.SNAPSHOT, state.snapshot(), state, candidates.left, candidates.step, tuple(sorted(still)), moved=moved, widened=tuple(before)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Coarser:
    """A tensor on a lattice of larger units."""

    tensor: int
    exponent: int
    integers: I32
    weights: F32
    left: U16
    clamped: bool


def _coarser(state: ModelState, t: int, trained: Held, residual: U16) -> _Coarser:
    name = state.manifest.schema.tensors[t].name
    e = min(state.exponents[t] + WIDEN_BY, limits.EXPONENT_MAX)
    d = np.empty_like(state.weights[t])
    with naming(name):
        _core.differences(state.weights[t], trained, residual, d)
    target = state.weights[t].astype(np.float64) + d
    q = np.rint((target - state.base[t].astype(np.float64)) * math.ldexp(1.0, -e))
    integers = np.clip(q, -limits.Q_MAX, limits.Q_MAX).astype(np.int32)
    with naming(name):
        w = narrow.sums(state.manifest.schema.tensors[t].dtype, state.base[t], integers, e)
    with np.errstate(over="ignore"):
        left = _bf16((target - w.astype(np.float64)).astype(np.float32))
    infinite = np.flatnonzero(left & BF16_INFINITY == BF16_INFINITY)
    if len(infinite):  # kept, it would turn every later round into NaN
        raise NonFinite(what="the residual", tensor=name, index=int(infinite[0]))
    return _Coarser(t, e, integers, w, left, bool((np.abs(q) > limits.Q_MAX).any()))


def _float32(x: U16) -> F32:
    """Return bfloat16 bits as float32."""
    return (x.astype(np.uint32) << 16).view(np.float32)


def _bf16(x: F32) -> U16:
    """Return finite float32 as bfloat16 bits, rounded to nearest even."""
    bits = x.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
