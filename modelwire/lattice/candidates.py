"""A round's arrays in the hands of the kernels: adopt what stands out at a step or a count, in place, and take it back exactly.

Memory beside the results: about 10 bytes an entry that is sent; no array has the model's size but the residual that is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from modelwire import _core, limits
from modelwire.errors import IndexOutOfRange, ModelWireError, NonFinite, RangeOverflow
from modelwire.tensors import I32, U16, U32, Dtype, Held, TensorClass
from modelwire.update.manifest import Manifest
from modelwire.update.sections import AnySection, PlaneSection, Section, Sections, invert

from . import exact
from .lanes import Fingerprint, minus, plus
from .state import ModelState, fingerprint_of, naming

Residual = list[U16]  # bf16 bits a tensor, flat; empty arrays for tensors that are not on the lattice
DEAD_ZONE = 0.6  # of a step; 0.6 to 0.8 is the good range, 0.5 is worse (facts behind decision 0001)
STEP_SHIFT_USED = 15  # 128 << 15 is the lattice's whole range: a larger step moves nothing
CODE_ZONE = 0.5  # of a code: int8 tensors send every entry whose nearest code is another
LINE = 32  # entries of bf16 in a cache line


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


def step_for(edge: float) -> Step:
    """Return the largest step that leaves a difference of `edge` outside the dead zone."""
    fraction, exponent = math.frexp(edge / DEAD_ZONE)  # 0.5 <= fraction < 1
    step = Step(int(fraction * 256), exponent - 8)  # m in 128..255: under a percent of control over the size
    # Past these ends a step is no unit of any tensor: the finest and the coarsest lattice bound it.
    return Step(step.m, min(max(step.s, limits.EXPONENT_MIN), limits.EXPONENT_MAX + 14))


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What of some tensors was adopted: the parts of all of them one after the other, as the kernels give them."""

    index: U32
    value: I32
    ends: list[int]  # where a tensor's part ends, all tensors
    clamped: list[int]  # entries that the lattice's range cut, all tensors
    lanes: Fingerprint  # what it adds to the fingerprint
    steps: list[int]  # in units; 0 where a tensor has no part in this


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """What was adopted of the tensors that no step drives: verbatim and int8 ones, and the planes of exact ones."""

    parts: list[Taken]
    planes: tuple[PlaneSection, ...] = ()


class Candidates:
    """The arrays of one round. What is adopted moves the state's weights, integers and fingerprint; all of it can be taken back.

    Raises KernelError when an array is not as the manifest says. The arrays must not change otherwise while this lives.
    """

    count: int  # entries of all tensors that move by steps
    left: Residual  # what the round leaves; of use once something was adopted

    def __init__(self, state: ModelState, trained: Sequence[Held], residual: Residual) -> None:
        manifest = state.manifest
        self._state, self._trained = state, trained
        dtypes = [spec.dtype for spec in manifest.schema.tensors]
        lattice = [c is TensorClass.LATTICE for c in manifest.classes]
        self._codes = [on and dtype is Dtype.INT8 for on, dtype in zip(lattice, dtypes, strict=True)]
        self._stepped = [on and not codes for on, codes in zip(lattice, self._codes, strict=True)]
        self.count = sum(len(w) for w, stepped in zip(state.weights, self._stepped, strict=True) if stepped)
        self.left = room_for([len(w) if on else 0 for w, on in zip(state.weights, lattice, strict=True)])
        # Whoever gives the weights themselves asks what is left of the residual alone; they move while the round is taken over.
        apart = [
            new.copy() if new is w or ((new.base is not None or w.base is not None) and np.may_share_memory(new, w)) else new
            for new, w in zip(trained, state.weights, strict=True)
        ]
        self._round = _core.Round(
            state.base, state.weights, state.integers, apart, residual, self.left, exponents=state.exponents,
            kinds=manifest.classes, dtypes=dtypes, starts=manifest.schema.starts,
        )  # fmt: skip
        self.step: Step | None = None

    def adopt_count(self, k: int, *, leave: Sequence[int] = ()) -> list[Taken]:
        """Adopt at the largest step that leaves the k largest differences outside the dead zone, one at least.

        leave: tensors of which nothing is sent. Raises NonFinite, and then nothing has changed.
        """
        with self._naming():
            index, d, ends, edge, bar = self._round.collect(max(1, k))
            if not edge:  # fewer than k differ at all
                edge = float(np.abs(d.view(np.float32)).min(initial=1.0))
            self.step = step_for(edge)
            steps, thresholds = self._choices(self.step, leave)
            # In a tensor of coarse units the step is rounded, and may send what was not collected: such a one is passed over again.
            finer = [bool(s) and threshold < bar for s, threshold in zip(steps, thresholds, strict=True)]
            above = [0 if fine else s for s, fine in zip(steps, finer, strict=True)]
            taken = [self._count(Taken(*self._round.adopt(index, d, ends, steps=above, thresholds=thresholds), above))]
            if any(finer):
                below = [s if fine else 0 for s, fine in zip(steps, finer, strict=True)]
                try:
                    taken.append(self._adopt_known(below, thresholds, k))
                except ModelWireError:
                    self.retract(taken)
                    raise
        return taken

    def adopt_step(self, step: Step, *, expect: int = 0, leave: Sequence[int] = ()) -> list[Taken]:
        """Adopt at a step that is known, in one pass. expect: about how many entries will be sent."""
        self.step = step
        with self._naming():
            return [self._adopt_known(*self._choices(step, leave), expect)]

    def adopt_whole(self) -> Whole:
        """Adopt all that no step drives: verbatim and exact tensors as they are, int8 ones at their nearest codes.

        Raises NonFinite, and then nothing has changed.
        """
        manifest = self._state.manifest
        parts = [self._adopt_verbatim()]
        try:
            if any(self._codes):
                parts.append(self._adopt_codes())
            planes = []
            for t, spec in enumerate(manifest.schema.tensors):
                if manifest.exact(t):
                    with naming(spec.name):
                        planes.append(exact.section_of(t, spec, self._state.weights[t], self._trained[t]))
        except ModelWireError:
            self.retract(parts)
            raise
        whole = Whole(parts, tuple(s for s in planes if s is not None))
        self._move_planes(whole.planes)
        return whole

    def retract_whole(self, whole: Whole) -> None:
        """Take back what `adopt_whole` gave."""
        self.retract(whole.parts)
        self._move_planes(tuple(s for s in invert(whole.planes) if isinstance(s, PlaneSection)))

    def _move_planes(self, planes: Sequence[PlaneSection]) -> None:
        self._state.move(planes)
        self._state.fingerprint = plus(self._state.fingerprint, fingerprint_of(planes, self._state.manifest))

    def _adopt_verbatim(self) -> Taken:
        with self._naming():
            index, value, ends, lanes = self._round.adopt_verbatim()
        steps = [int(self._state.manifest.verbatim(t)) for t in range(len(ends))]
        return self._count(Taken(index, value, ends, [0] * len(ends), lanes, steps))

    def _adopt_codes(self) -> Taken:
        with self._naming():
            steps = [int(codes) for codes in self._codes]
            taken = self._adopt_known(steps, [CODE_ZONE] * len(steps), 0)
        return replace(taken, clamped=[0] * len(steps))  # no larger unit would help

    def retract(self, taken: Sequence[Taken]) -> None:
        """Take back what was adopted: state and `left` have their bits again. `value` holds the bits of the differences now."""
        for part in taken:
            self._round.retract(part.index, part.value, part.ends, steps=[s or 1 for s in part.steps])
            self._state.fingerprint = minus(self._state.fingerprint, part.lanes)

    def keep_largest(self, taken: Sequence[Taken], count: int) -> list[Taken]:
        """Adopt again, of what is adopted, only the `count` entries that move their weights most; of equal ones the first."""
        moves = np.concatenate([self._moves(part) for part in taken])
        kept = np.zeros(len(moves), bool)
        kept[np.argsort(-moves, kind="stable")[:count]] = True
        self.retract(taken)
        assert self.step is not None
        _, thresholds = self._choices(self.step, ())
        out, first = [], 0
        for part in taken:
            keep = kept[first : first + len(part.index)]
            first += len(part.index)
            ends = np.concatenate([[0], np.cumsum(keep)])[part.ends].tolist()
            with self._naming():
                again = self._round.adopt(part.index[keep], part.value[keep], ends, steps=part.steps, thresholds=thresholds)
            out.append(self._count(Taken(again[0], again[1], again[2], part.clamped, again[4], part.steps)))
        return out

    def sections(self, taken: Sequence[Taken], whole: Whole) -> Sections:
        """Return what was adopted as sections, in the order of the tensors."""
        out: list[AnySection] = list(whole.planes)
        for part in (*taken, *whole.parts):
            start = 0
            for t, end in enumerate(part.ends):
                if end > start:
                    e = self._state.exponents[t] if self._state.manifest.lattice(t) else 0
                    out.append(Section(t, part.index[start:end], part.value[start:end], part.steps[t], e))
                    start = end
        return tuple(sorted(out, key=lambda s: s.tensor))

    def _adopt_known(self, steps: list[int], thresholds: list[float], expect: int) -> Taken:
        return self._count(Taken(*self._round.adopt_known(steps=steps, thresholds=thresholds, room=expect), steps))

    def _count(self, taken: Taken) -> Taken:
        self._state.fingerprint = plus(self._state.fingerprint, taken.lanes)
        return taken

    def _choices(self, step: Step, leave: Sequence[int]) -> tuple[list[int], list[float]]:
        """Return each tensor's step in units, 0 for none, and the least difference that it sends."""
        of_unit = {e: step.units(e) for e in set(self._state.exponents)}
        least = {e: float(np.float32(DEAD_ZONE) * np.float32(math.ldexp(units, e))) for e, units in of_unit.items()}
        steps = [of_unit[e] if stepped else 0 for e, stepped in zip(self._state.exponents, self._stepped, strict=True)]
        for t in leave:
            steps[t] = 0
        return steps, [least[e] for e in self._state.exponents]

    def _moves(self, part: Taken) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return by how much each entry moves its weight."""
        sizes = [math.ldexp(s, e) for s, e in zip(part.steps, self._state.exponents, strict=True)]
        counts = np.diff([0, *part.ends])
        return np.abs(part.value.astype(np.float64)) * np.repeat(np.array(sizes, np.float64), counts)

    def _naming(self) -> naming_tensors:
        return naming_tensors(self._state.manifest)


class naming_tensors:
    """Put the tensor's name into an error that a kernel raised about a whole model."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (IndexOutOfRange, RangeOverflow, NonFinite)):
            number = error.facts["tensor"]
            if isinstance(number, int):
                error.facts["tensor"] = self._manifest.schema.tensors[number].name
                error.args = (error.message,)


def room_for(sizes: Sequence[int]) -> Residual:
    """Return room for a residual of these entries: one piece of memory, each tensor at the start of a cache line."""
    whole = np.empty(sum(-(-n // LINE) * LINE for n in sizes) + LINE, np.uint16)
    start = -whole.ctypes.data // 2 % LINE
    out = []
    for n in sizes:
        out.append(whole[start : start + n])
        start += -(-n // LINE) * LINE
    return out
