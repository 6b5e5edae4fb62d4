"""A model on the lattice around its base: the state that a device and the centre hold alike, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from . import _core, exact, narrow
from .errors import IndexOutOfRange, Malformed, NonFinite, RangeOverflow, RootMismatch, WrongBase
from .identity import root_of
from .manifest import Manifest, peak_of, suits
from .tensors import I32, Dtype, Held, Weights
from .update import AnySection, Kind, PlaneSection, Section, Sections, section_of, sparse, verbatim_section

Fingerprint = tuple[int, int]


@dataclass(slots=True)
class ModelState:
    """Base, units and integers, with the weights that follow from them. Changed only by `apply` and by adoption.

    base, weights: flat arrays in schema order, held as their types are (storage.py); integers: Q (lattice), difference of bits
    mod 2^32 (verbatim), or none (exact: they follow from the two).
    """

    manifest: Manifest
    base: list[Held]  # shared between states, never written
    exponents: list[int]
    integers: list[I32]
    weights: list[Held]
    fingerprint: Fingerprint

    @classmethod
    def of_base(cls, manifest: Manifest, base: Sequence[Held]) -> ModelState:
        """Return version 0. Raises WrongBase when the weights are not the manifest's, Malformed when its units do not suit them."""
        if root_of(manifest.schema, base) != manifest.root:
            raise WrongBase(what="the base's weights", kind="root", expected=manifest.root.hex()[:16], got="another")
        for t, (b, e) in enumerate(zip(base, manifest.exponents, strict=True)):
            peak, spec = peak_of(b), manifest.schema.tensors[t]
            if not np.isfinite(peak) or (manifest.lattice(t) and not suits(peak, e, spec.dtype)):
                raise Malformed(what="manifest", reason=f"tensor {spec.name}: a unit of 2^{e} does not suit weights of up to {peak:g}")
        return cls(
            manifest,
            list(base),
            list(manifest.exponents),
            [_no_integers(manifest, t) for t in range(len(base))],
            [a.copy() for a in base],
            (0, 0),
        )

    @classmethod
    def of_weights(
        cls,
        manifest: Manifest,
        base: Sequence[Held],
        weights: Sequence[Held],
        exponents: Sequence[int] | None = None,
        integers: Mapping[int, I32] | None = None,
    ) -> ModelState:
        """Return the state whose weights are `weights`: the integers follow back from base and weights.

        integers: Q by tensor, where it doesn't: of float16 and bfloat16 on the lattice, whose stored sums have fewer bits.
        Raises Malformed when an entry is not on the lattice of this base or Q is missing, NonFinite when it is no number.
        """
        _core.check_rounding()
        state = cls.of_base(manifest, base)
        state.exponents = list(exponents if exponents is not None else manifest.exponents)
        state.weights = [np.array(a, spec.dtype.held) for a, spec in zip(weights, manifest.schema.tensors, strict=True)]
        for t, (b, w, q) in enumerate(zip(state.base, state.weights, state.integers, strict=True)):
            spec = manifest.schema.tensors[t]
            if not manifest.lattice(t):
                bad = np.flatnonzero(~np.isfinite(w))
                if len(bad):
                    raise NonFinite(what="the weights", tensor=spec.name, index=int(bad[0]))
                if manifest.verbatim(t):
                    np.subtract(w.view(np.uint32), b.view(np.uint32), out=q.view(np.uint32))
            elif t in manifest.kept:
                state.integers[t] = _given(spec.name, spec.dtype, (integers or {}).get(t), b, w, state.exponents[t])
            else:
                _core.q_from_weights(b, w, q, exponent=state.exponents[t])
        state.fingerprint = state.measure_fingerprint()
        return state

    def copy(self) -> ModelState:
        """Return a state that can be changed alone; the base is shared."""
        return ModelState(
            self.manifest,
            self.base,
            list(self.exponents),
            [q.copy() for q in self.integers],
            [w.copy() for w in self.weights],
            self.fingerprint,
        )

    @property
    def root(self) -> bytes:
        return root_of(self.manifest.schema, self.weights)

    def named(self) -> Weights:
        """Return the weights by name, in their shapes, without copies."""
        return self.manifest.schema.shaped(self.weights)

    def measure_fingerprint(self) -> Fingerprint:
        """Return the fingerprint computed over all integers; `fingerprint` is the same, kept up to date in O(sent)."""
        lanes = (0, 0)
        schema = self.manifest.schema
        for t, (spec, q, start) in enumerate(zip(schema.tensors, self.integers, schema.starts, strict=True)):
            if self.manifest.exact(t):
                part = exact.lanes_between(spec, self.base[t], self.weights[t], start)
            else:
                part = _core.fingerprint(q, start=start, verbatim=self.manifest.verbatim(t))
            lanes = exact.plus(lanes, part)
        return lanes

    def fingerprint_after(self, sections: Sequence[AnySection]) -> Fingerprint:
        """Return the fingerprint that this state will have after the delta `sections`."""
        return exact.plus(self.fingerprint, fingerprint_of(sections, self.manifest))

    def snapshot(self) -> Sections:
        """Return the whole state as sections against the base."""
        out: list[AnySection] = []
        for t, (q, e) in enumerate(zip(self.integers, self.exponents, strict=True)):
            section: AnySection | None
            if self.manifest.exact(t):
                section = exact.section_of(t, self.manifest.schema.tensors[t], self.base[t], self.weights[t])
            elif self.manifest.verbatim(t):
                section = verbatim_section(t, q)
            else:
                section = section_of(t, q.astype(np.int64), e)
                if section is None and e != self.manifest.exponents[t]:
                    section = Section(t, np.zeros(0, np.uint32), np.zeros(0, np.int32), 1, e)
            if section is not None:
                out.append(section)
        return tuple(out)

    def raw_snapshot(self) -> Sections:
        """Return the whole state as sections that need no base to be read."""
        return tuple(exact.raw_section(t, spec, self.weights[t]) for t, spec in enumerate(self.manifest.schema.tensors))

    def apply(self, kind: Kind, sections: Sequence[AnySection], *, expect: Fingerprint | None = None) -> None:
        """Move to the state after the update, or raise and leave everything as it was.

        expect: the fingerprint that the sender says the result has; RootMismatch when it is another.
        Raises IndexOutOfRange, RangeOverflow, NonFinite or Malformed; RoundingMode where exact sums can't be had.
        """
        _core.check_rounding()
        if len({s.tensor for s in sections}) < len(sections):  # each alone might stay within the range, and both together leave it
            raise Malformed(what="update", reason="a tensor has two sections")
        if kind is Kind.SNAPSHOT:
            self._apply_snapshot(sections, expect)
            return
        if (kind is Kind.EXACT) is not self.manifest.all_exact:
            raise Malformed(what="update", reason=f"{kind.name.lower()} is no kind of update that this base's tensors take")
        self._apply_delta(sections, expect)

    def _apply_delta(self, sections: Sequence[AnySection], expect: Fingerprint | None, *, raw: bool = False) -> None:
        after = exact.plus(self.fingerprint, fingerprint_of(sparse(sections), self.manifest))
        for s in sections:  # phase one: nothing is written
            if isinstance(s, PlaneSection):
                after = exact.plus(after, self._look(s, raw))
            else:
                self._check(s)
        if expect is not None and after != expect:
            raise RootMismatch(what="delta", kind="fingerprint", device="DEVICE")
        self.move(sections)
        self.fingerprint = after

    def move(self, sections: Sequence[AnySection]) -> None:
        """Move weights and integers by sections that have been checked; the fingerprint is the caller's to move."""
        for s in sections:
            if isinstance(s, PlaneSection):
                exact.put(self.manifest.schema.tensors[s.tensor], s, self.weights[s.tensor])
                continue
            base, w, q = self.base[s.tensor], self.weights[s.tensor], self.integers[s.tensor]
            if base.dtype == np.int32:
                narrow.move_whole(base, w, q, s)
            elif self.manifest.verbatim(s.tensor):
                _core.apply_verbatim(base.view(np.uint32), w.view(np.uint32), q, s.index, s.value)
            else:
                _core.apply_lattice(base, w, q, s.index, s.value, exponent=s.exponent, step=s.step)
                narrow.store(self.manifest.schema.tensors[s.tensor], w, s.index)

    def _look(self, s: PlaneSection, raw: bool) -> Fingerprint:
        """Return what planes add to the fingerprint, having checked all that they could be refused for."""
        if not 0 <= s.tensor < len(self.base):
            raise IndexOutOfRange(tensor=s.tensor, index=0, size=len(self.base))
        schema = self.manifest.schema
        spec = schema.tensors[s.tensor]
        if not self.manifest.exact(s.tensor) or (s.dtype, s.entries) != (spec.dtype, spec.size) or (s.raw and not raw):
            raise Malformed(what="section", reason=f"tensor {s.tensor} has planes that it can't take")
        with naming(spec.name):
            return exact.look(spec, s, self.weights[s.tensor], schema.starts[s.tensor])

    def _check(self, s: Section) -> None:
        if not 0 <= s.tensor < len(self.base):
            raise IndexOutOfRange(tensor=s.tensor, index=0, size=len(self.base))
        if self.manifest.exact(s.tensor):
            raise Malformed(what="section", reason=f"tensor {s.tensor} is exact and has no planes")
        base, q = self.base[s.tensor], self.integers[s.tensor]
        with naming(self.manifest.schema.tensors[s.tensor].name):
            if self.manifest.verbatim(s.tensor):
                if s.step != 1 or s.exponent != 0:
                    raise Malformed(what="section", reason=f"tensor {s.tensor} is verbatim and has a step or unit")
                if base.dtype == np.int32:
                    narrow.check_whole(len(base), s)
                else:
                    _core.check_verbatim(base.view(np.uint32), q, s.index, s.value)
            elif s.exponent != self.exponents[s.tensor]:
                raise Malformed(
                    what="section", reason=f"tensor {s.tensor} has unit 2^{s.exponent}, the parent has 2^{self.exponents[s.tensor]}"
                )
            else:
                _core.check_lattice(base, q, s.index, s.value, exponent=s.exponent, step=s.step)
                narrow.check(self.manifest.schema.tensors[s.tensor], base, q, s)

    def _apply_snapshot(self, sections: Sequence[AnySection], expect: Fingerprint | None) -> None:
        fresh = ModelState.__new__(ModelState)
        fresh.manifest, fresh.base = self.manifest, self.base
        fresh.exponents = list(self.manifest.exponents)
        fresh.integers = [_no_integers(self.manifest, t) for t in range(len(self.base))]
        fresh.weights = [b.copy() for b in self.base]
        fresh.fingerprint = (0, 0)
        for s in sparse(sections):
            if not len(s.index) and 0 <= s.tensor < len(self.base) and s.exponent == self.manifest.exponents[s.tensor]:
                raise Malformed(what="section", reason=f"tensor {s.tensor} has one that says nothing")
            if 0 <= s.tensor < len(self.base) and self.manifest.lattice(s.tensor):
                if not suits(peak_of(self.base[s.tensor]), s.exponent, self.manifest.schema.tensors[s.tensor].dtype):
                    raise Malformed(what="section", reason=f"a unit of 2^{s.exponent} does not suit tensor {s.tensor}")
                fresh.exponents[s.tensor] = s.exponent
        fresh._apply_delta(sections, expect, raw=True)
        self.exponents, self.integers = fresh.exponents, fresh.integers
        self.weights, self.fingerprint = fresh.weights, fresh.fingerprint


def fingerprint_of(sections: Sequence[AnySection], manifest: Manifest) -> Fingerprint:
    """Return what `sections` add to a fingerprint; it adds like the updates themselves."""
    starts = manifest.schema.starts
    lanes = (0, 0)
    for s in sections:
        if isinstance(s, PlaneSection):
            lanes = exact.plus(lanes, exact.lanes_of(s, starts[s.tensor]))
            continue
        part = _core.fingerprint_sparse(
            s.index, s.value, step=s.step, start=starts[s.tensor], verbatim=manifest.verbatim(s.tensor)
        )
        lanes = exact.plus(lanes, part)
    return lanes


def _no_integers(manifest: Manifest, tensor: int) -> I32:
    return np.zeros(0 if manifest.exact(tensor) else manifest.schema.tensors[tensor].size, np.int32)


def _given(name: str, dtype: Dtype, q: I32 | None, base: Held, w: Held, exponent: int) -> I32:
    """Return a copy of the Q that was given, when it gives these weights. Raises Malformed."""
    if q is None:
        raise Malformed(what="weights", reason=f"tensor {name} is {dtype.name.lower()}: its Q does not follow from them, so give it")
    if narrow.sums(dtype, base, q, exponent).tobytes() != w.tobytes():
        raise Malformed(what="weights", reason=f"tensor {name} is not what its Q gives")
    return q.copy()


class naming:
    """Put the tensor's name into an error that a kernel raised about one array."""

    def __init__(self, tensor: str) -> None:
        self.tensor = tensor

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (IndexOutOfRange, RangeOverflow, NonFinite)):
            error.facts["tensor"] = self.tensor
            error.args = (error.message,)
