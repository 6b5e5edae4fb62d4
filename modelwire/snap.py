"""Snap a trained model to the lattice: choose the step, adopt the result, keep the residual. Only a device does this.

Nothing here is normative for a reader: threshold, dead zone and rounding are the sender's choice, the integers are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import _core, exact, limits, narrow
from .candidates import Candidates, Residual
from .container import size_of
from .errors import BudgetExhausted, NonFinite
from .held_step import FEWEST, edge_to_send
from .manifest import Manifest
from .state import ModelState, naming
from .tensors import F32, U16, Dtype, Held
from .update import AnySection, Kind, Section, Sections, verbatim_section

DEAD_ZONE = 0.6  # of a step; 0.6 to 0.8 is the good range, 0.5 is worse (facts behind decision 0001)
WIDEN_BY = 3  # a clamped tensor's next unit is 2^3 times as large
LOOKAHEAD = 0.2  # of the residual; 0 adopts, 1 would train a shadow copy (decision 0005 has the figures)
PROBES = 12
BF16_INFINITY = 0x7F80
STEP_SHIFT_USED = 15  # 128 << 15 is the lattice's whole range: a larger step moves nothing


@dataclass(frozen=True, slots=True)
class Step:
    """One absolute step, m * 2^s in weight units, that drives all tensors."""

    m: int  # 1..255
    s: int

    @property
    def size(self) -> float:
        return math.ldexp(self.m, self.s)

    def units(self, exponent: int) -> int:
        """Return the step of a tensor with unit 2^exponent, in units: at least 1, at most what the wire can say."""
        shift = self.s - exponent
        if shift >= 0:
            return self.m << min(shift, STEP_SHIFT_USED)
        return max(1, round(math.ldexp(self.m, shift)))


@dataclass(frozen=True, slots=True)
class Snapped:
    """What one round gives: the state that the device runs from now on, and the update that says so."""

    kind: Kind
    sections: Sections
    state: ModelState
    residual: Residual
    step: Step
    clamped: tuple[int, ...]  # tensors that met the end of the lattice's range: what to widen next


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
        if not state.manifest.stepped(t):  # int8 trains on codes: half of one is none
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
    density: float,
    max_bytes: int,
    held: Step | None = None,
    widen: Sequence[int] = (),
    overhead: int = 0,
) -> Snapped:
    """Return the snapped round: a delta of at most about `density` (kept / all), never above `max_bytes` as a container.

    state and residual are left as they are; the caller takes the new ones when its guard agrees.
    held: the step of the last round that was adopted. It is used again while it sends FEWEST * density to density; without it,
    about `density` is sent.
    widen: tensors that were clamped last time; where a larger unit exists, the update is a snapshot with it, whatever its size.
    overhead: bytes of names and extension that the container will carry.
    Raises NonFinite, and BudgetExhausted when not even the largest difference fits.
    """
    _core.check_rounding()
    manifest = state.manifest
    # Otherwise every second update would be a snapshot in vain.
    widen = [t for t in widen if manifest.stepped(t) and state.exponents[t] < limits.EXPONENT_MAX]
    candidates = Candidates(state, trained, residual, density=density)
    if widen:
        step = _first_step(candidates, max(1, int(density * candidates.count)), held)
        return _widened(state, trained, residual, candidates, step, widen)
    whole = _whole_sections(state, trained, residual, candidates)
    fixed = size_of(whole, manifest.schema) + overhead
    count = max(1, int(density * candidates.count))
    for probe in range(PROBES):
        step = _step_for(candidates, count) if probe else _first_step(candidates, count, held)
        sections, clamped = _lattice_sections(state, candidates, step)
        sent = sum(len(s.index) for s in sections)
        if probe >= PROBES // 2 and sent > count:
            # No step tells equal differences apart, nor those of a tensor whose range lies below the step.
            sections, sent = _largest(sections, count), count
        merged = tuple(sorted((*sections, *whole), key=lambda s: s.tensor))
        size = size_of(merged, manifest.schema) + overhead
        if size <= max_bytes:
            adopted, left = _adopt(state, trained, residual, candidates, sections, whole)
            return Snapped(Kind.DELTA, merged, adopted, left, step, clamped)
        if sent <= 1 and count == 1:
            break
        # Bytes grow a little slower than the count: aim a tenth below the proportional guess, and always go down.
        count = max(1, min(sent - 1, int(sent * 0.9 * max(0, max_bytes - fixed) / max(1, size - fixed))))
        if probe == PROBES - 2:
            count = 1
    raise BudgetExhausted(what="the smallest delta of this round", budget=max_bytes)


def _first_step(candidates: Candidates, count: int, held: Step | None) -> Step:
    """Return the held step, or the nearest that leaves FEWEST * count to count entries outside the dead zone."""
    if held is None or not candidates.count:
        return _step_for(candidates, count)
    most, fewest = (candidates.edge(max(1, min(k, candidates.count))) for k in (count, int(FEWEST * count)))
    drawn = DEAD_ZONE * held.size
    edge = edge_to_send(drawn, most, fewest)
    return held if edge == drawn else _step_at(edge or candidates.least())


def _step_for(candidates: Candidates, count: int) -> Step:
    """Return the largest step that leaves `count` entries outside the dead zone, and one entry at least."""
    n = candidates.count
    return _step_at((candidates.edge(max(1, min(count, n))) or candidates.least()) if n else 1.0)


def _step_at(edge: float) -> Step:
    """Return the largest step whose dead zone ends at `edge` or below."""
    fraction, exponent = math.frexp(edge / DEAD_ZONE)  # 0.5 <= fraction < 1
    step = Step(int(fraction * 256), exponent - 8)  # m in 128..255: under a percent of control over the size
    # Past these ends a step is no unit of any tensor: the finest and the coarsest lattice bound it.
    return Step(step.m, min(max(step.s, limits.EXPONENT_MIN), limits.EXPONENT_MAX + 14))


def _lattice_sections(state: ModelState, candidates: Candidates, step: Step) -> tuple[list[Section], tuple[int, ...]]:
    sections, clamped = [], []
    for t, e in enumerate(state.exponents):
        if not state.manifest.stepped(t):
            continue
        units = step.units(e)
        threshold = float(np.float32(DEAD_ZONE) * np.float32(math.ldexp(units, e)))
        index, value, clipped = candidates.snapped(t, step=units, threshold=threshold)
        if clipped:
            clamped.append(t)
        if len(index):
            sections.append(Section(t, index, value, units, e))
    return sections, tuple(clamped)


def _largest(sections: Sequence[Section], count: int) -> list[Section]:
    """Return the `count` entries that move their weights most; of equal ones the first."""
    moves = np.concatenate([np.ldexp(np.abs(s.dq).astype(np.float64), s.exponent) for s in sections])
    kept = np.zeros(len(moves), bool)
    kept[np.argsort(-moves, kind="stable")[:count]] = True
    parts = zip(sections, np.split(kept, np.cumsum([len(s.index) for s in sections])[:-1]), strict=True)
    return [Section(s.tensor, s.index[keep], s.value[keep], s.step, s.exponent) for s, keep in parts if keep.any()]


def _whole_sections(state: ModelState, trained: Sequence[Held], residual: Residual, candidates: Candidates) -> tuple[AnySection, ...]:
    """Return what no step drives: verbatim and exact tensors, and all changed codes of int8, whose residual goes to `left`."""
    out: list[AnySection | None] = []
    for t, (w, new) in enumerate(zip(state.weights, trained, strict=True)):
        spec = state.manifest.schema.tensors[t]
        with naming(spec.name):
            if state.manifest.exact(t):
                out.append(exact.section_of(t, spec, w, new))
            elif state.manifest.verbatim(t):
                out.append(verbatim_section(t, (new.view(np.uint32) - w.view(np.uint32)).view(np.int32)))
            elif spec.dtype is Dtype.INT8:
                index, value, candidates.left[t] = narrow.changed_codes(w, new, residual[t])
                out.append(Section(t, index, value, 1, 0) if len(index) else None)
    return tuple(s for s in out if s is not None)


def _adopt(
    state: ModelState,
    trained: Sequence[Held],
    residual: Residual,
    candidates: Candidates,
    sections: Sequence[Section],
    whole: Sequence[AnySection],
    leave: Sequence[int] = (),
) -> tuple[ModelState, Residual]:
    """Return the state and the residual after the sections; tensors in `leave` stay, and get no residual of use."""
    after = state.copy()
    left = candidates.left
    lanes = state.fingerprint_after([*sections, *whole])
    sent = {s.tensor: s for s in sections}
    for t in sorted((sent.keys() | candidates.huge) - set(leave)):
        e = state.exponents[t]
        s = sent.get(t) or Section(t, np.zeros(0, np.uint32), np.zeros(0, np.int32), 1, e)
        base, w, q = after.base[t], after.weights[t], after.integers[t]
        with naming(state.manifest.schema.tensors[t].name):
            if t in candidates.huge:
                left[t] = residual[t].copy()
                _core.adopt(base, w, trained[t], left[t], q, s.index, s.value, exponent=e, step=s.step)
            else:
                _core.adopt_sent(base, w, trained[t], residual[t], q, left[t], s.index, s.value, exponent=e, step=s.step)
            spec = state.manifest.schema.tensors[t]
            if spec.dtype is not Dtype.FLOAT32:
                narrow.store(spec, w, s.index)
                left[t][s.index] = narrow.left_over(state.weights[t], trained[t], residual[t], w, s.index)
    after.move(whole)
    after.fingerprint = lanes
    return after, left


def _widened(
    state: ModelState, trained: Sequence[Held], residual: Residual, candidates: Candidates, step: Step, widen: Sequence[int]
) -> Snapped:
    """Snap with larger units for the clamped tensors: their whole state is written anew on the coarser lattice."""
    sections, clamped = _lattice_sections(state, candidates, step)
    still = {t for t in clamped if t not in widen}
    others = [s for s in sections if s.tensor not in widen]
    whole = _whole_sections(state, trained, residual, candidates)
    after, left = _adopt(state, trained, residual, candidates, others, whole, leave=widen)
    for t in widen:
        e = min(state.exponents[t] + WIDEN_BY, limits.EXPONENT_MAX)
        d = np.empty_like(state.weights[t])
        _core.differences(state.weights[t], trained[t], residual[t], d)
        target = state.weights[t].astype(np.float64) + d
        q = np.rint((target - state.base[t].astype(np.float64)) * math.ldexp(1.0, -e))
        after.exponents[t] = e
        after.integers[t] = np.clip(q, -limits.Q_MAX, limits.Q_MAX).astype(np.int32)
        dtype = state.manifest.schema.tensors[t].dtype
        after.weights[t] = narrow.sums(dtype, after.base[t], after.integers[t], e)
        if bool((np.abs(q) > limits.Q_MAX).any()):
            still.add(t)
        with np.errstate(over="ignore"):
            left[t] = _bf16((target - after.weights[t].astype(np.float64)).astype(np.float32))
        infinite = np.flatnonzero(left[t] & BF16_INFINITY == BF16_INFINITY)
        if len(infinite):  # kept, it would turn every later round into NaN
            raise NonFinite(what="the residual", tensor=state.manifest.schema.tensors[t].name, index=int(infinite[0]))
    after.fingerprint = after.measure_fingerprint()
    return Snapped(Kind.SNAPSHOT, after.snapshot(), after, left, step, tuple(sorted(still)))


def _float32(x: U16) -> F32:
    """Return bfloat16 bits as float32."""
    return (x.astype(np.uint32) << 16).view(np.float32)


def _bf16(x: F32) -> U16:
    """Return finite float32 as bfloat16 bits, rounded to nearest even."""
    bits = x.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
