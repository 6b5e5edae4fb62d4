"""A model on the lattice around its base: the state that a device and the centre hold alike, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import _core
from .errors import IndexOutOfRange, Malformed, NonFinite, RangeOverflow, RootMismatch, WrongBase
from .identity import root_of
from .manifest import Manifest, suits
from .tensors import F32, I32, Weights
from .update import Kind, Section, Sections, section_of, verbatim_section

_LANE = 0xFFFFFFFFFFFFFFFF
Fingerprint = tuple[int, int]


@dataclass(slots=True)
class ModelState:
    """Base, units and integers, with the weights that follow from them. Changed only by `apply` and by adoption.

    base, weights: float32 flat arrays in schema order; integers: Q (lattice) or difference of bits mod 2^32 (verbatim).
    """

    manifest: Manifest
    base: list[F32]  # shared between states, never written
    exponents: list[int]
    integers: list[I32]
    weights: list[F32]
    fingerprint: Fingerprint

    @classmethod
    def of_base(cls, manifest: Manifest, base: Sequence[F32]) -> ModelState:
        """Return version 0. Raises WrongBase when the weights are not the manifest's, Malformed when its units do not suit them."""
        if root_of(manifest.schema, base) != manifest.root:
            raise WrongBase(what="the base's weights", kind="root", expected=manifest.root.hex()[:16], got="another")
        for t, (b, e) in enumerate(zip(base, manifest.exponents, strict=True)):
            peak = float(np.abs(b).max(initial=0.0))
            if not np.isfinite(peak) or not (manifest.verbatim(t) or suits(peak, e)):
                name = manifest.schema.tensors[t].name
                raise Malformed(what="manifest", reason=f"tensor {name}: a unit of 2^{e} does not suit weights of up to {peak:g}")
        return cls(
            manifest,
            list(base),
            list(manifest.exponents),
            [np.zeros(len(a), np.int32) for a in base],
            [a.copy() for a in base],
            (0, 0),
        )

    @classmethod
    def of_weights(
        cls, manifest: Manifest, base: Sequence[F32], weights: Sequence[F32], exponents: Sequence[int] | None = None
    ) -> ModelState:
        """Return the state whose weights are `weights`: the integers follow back from base and weights.

        Raises Malformed when an entry is not on the lattice of this base, NonFinite when it is no number.
        """
        _core.check_rounding()
        state = cls.of_base(manifest, base)
        state.exponents = list(exponents if exponents is not None else manifest.exponents)
        state.weights = [np.array(a, np.float32) for a in weights]
        for t, (b, w, q) in enumerate(zip(state.base, state.weights, state.integers, strict=True)):
            if manifest.verbatim(t):
                bad = np.flatnonzero(~np.isfinite(w))
                if len(bad):
                    raise NonFinite(what="the weights", tensor=manifest.schema.tensors[t].name, index=int(bad[0]))
                np.subtract(w.view(np.uint32), b.view(np.uint32), out=q.view(np.uint32))
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
        for t, (q, start) in enumerate(zip(self.integers, self.manifest.schema.starts, strict=True)):
            lanes = _plus(lanes, _core.fingerprint(q, start=start, verbatim=self.manifest.verbatim(t)))
        return lanes

    def fingerprint_after(self, sections: Sequence[Section]) -> Fingerprint:
        """Return the fingerprint that this state will have after the delta `sections`."""
        return _plus(self.fingerprint, fingerprint_of(sections, self.manifest))

    def snapshot(self) -> Sections:
        """Return the whole state as sections against the base."""
        out = []
        for t, (q, e) in enumerate(zip(self.integers, self.exponents, strict=True)):
            if self.manifest.verbatim(t):
                section = verbatim_section(t, q)
            else:
                section = section_of(t, q.astype(np.int64), e)
                if section is None and e != self.manifest.exponents[t]:
                    section = Section(t, np.zeros(0, np.uint32), np.zeros(0, np.int32), 1, e)
            if section is not None:
                out.append(section)
        return tuple(out)

    def apply(self, kind: Kind, sections: Sequence[Section], *, expect: Fingerprint | None = None) -> None:
        """Move to the state after the update, or raise and leave everything as it was.

        expect: the fingerprint that the sender says the result has; RootMismatch when it is another.
        Raises IndexOutOfRange, RangeOverflow, NonFinite or Malformed; RoundingMode where exact sums can't be had.
        """
        _core.check_rounding()
        if len({s.tensor for s in sections}) < len(sections):  # each alone might stay within the range, and both together leave it
            raise Malformed(what="update", reason="a tensor has two sections")
        if kind is Kind.SNAPSHOT:
            self._apply_snapshot(sections, expect)
        else:
            self._apply_delta(sections, expect)

    def _apply_delta(self, sections: Sequence[Section], expect: Fingerprint | None) -> None:
        for s in sections:  # phase one: nothing is written
            self._check(s)
        after = self.fingerprint_after(sections)
        if expect is not None and after != expect:
            raise RootMismatch(what="delta", kind="fingerprint", device="DEVICE")
        for s in sections:
            base, w, q = self.base[s.tensor], self.weights[s.tensor], self.integers[s.tensor]
            if self.manifest.verbatim(s.tensor):
                _core.apply_verbatim(base.view(np.uint32), w.view(np.uint32), q, s.index, s.value)
            else:
                _core.apply_lattice(base, w, q, s.index, s.value, exponent=s.exponent, step=s.step)
        self.fingerprint = after

    def _check(self, s: Section) -> None:
        if not 0 <= s.tensor < len(self.base):
            raise IndexOutOfRange(tensor=s.tensor, index=0, size=len(self.base))
        base, q = self.base[s.tensor], self.integers[s.tensor]
        with naming(self.manifest.schema.tensors[s.tensor].name):
            if self.manifest.verbatim(s.tensor):
                if s.step != 1 or s.exponent != 0:
                    raise Malformed(what="section", reason=f"tensor {s.tensor} is verbatim and has a step or unit")
                _core.check_verbatim(base.view(np.uint32), q, s.index, s.value)
            elif s.exponent != self.exponents[s.tensor]:
                raise Malformed(
                    what="section", reason=f"tensor {s.tensor} has unit 2^{s.exponent}, the parent has 2^{self.exponents[s.tensor]}"
                )
            else:
                _core.check_lattice(base, q, s.index, s.value, exponent=s.exponent, step=s.step)

    def _apply_snapshot(self, sections: Sequence[Section], expect: Fingerprint | None) -> None:
        fresh = ModelState.__new__(ModelState)
        fresh.manifest, fresh.base = self.manifest, self.base
        fresh.exponents = list(self.manifest.exponents)
        fresh.integers = [np.zeros(len(b), np.int32) for b in self.base]
        fresh.weights = [b.copy() for b in self.base]
        fresh.fingerprint = (0, 0)
        for s in sections:
            if not len(s.index) and 0 <= s.tensor < len(self.base) and s.exponent == self.manifest.exponents[s.tensor]:
                raise Malformed(what="section", reason=f"tensor {s.tensor} has one that says nothing")
            if 0 <= s.tensor < len(self.base) and not self.manifest.verbatim(s.tensor):
                if not suits(float(np.abs(self.base[s.tensor]).max(initial=0.0)), s.exponent):
                    raise Malformed(what="section", reason=f"a unit of 2^{s.exponent} does not suit tensor {s.tensor}")
                fresh.exponents[s.tensor] = s.exponent
        fresh._apply_delta(sections, expect)
        self.exponents, self.integers = fresh.exponents, fresh.integers
        self.weights, self.fingerprint = fresh.weights, fresh.fingerprint


def fingerprint_of(sections: Sequence[Section], manifest: Manifest) -> Fingerprint:
    """Return what `sections` add to a fingerprint; it adds like the updates themselves."""
    starts = manifest.schema.starts
    lanes = (0, 0)
    for s in sections:
        part = _core.fingerprint_sparse(
            s.index, s.value, step=s.step, start=starts[s.tensor], verbatim=manifest.verbatim(s.tensor)
        )
        lanes = _plus(lanes, part)
    return lanes


def _plus(a: Fingerprint, b: Fingerprint) -> Fingerprint:
    return (a[0] + b[0]) & _LANE, (a[1] + b[1]) & _LANE


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
