"""A model on the lattice around its base: the state that a device and the centre hold alike, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from . import _core
from .container import Container, Entry, Header
from .errors import IndexOutOfRange, Malformed, ModelWireError, NonFinite, RangeOverflow, RootMismatch, WrongBase
from .identity import root_of
from .manifest import Manifest, suits
from .tensors import F32, I32, Weights
from .update import Kind, Section, Sections, section_of, verbatim_section

_LANE = 0xFFFFFFFFFFFFFFFF
Fingerprint = tuple[int, int]


@dataclass(slots=True)
class ModelState:
    """Base, units and integers, with the weights that follow from them. Changed only by `apply_container`, `apply` and adoption.

    base, weights: float32 flat arrays in schema order; integers: Q (lattice) or difference of bits mod 2^32 (verbatim).
    """

    manifest: Manifest
    base: list[F32]  # shared between states, never written
    exponents: list[int]
    integers: list[I32]
    weights: list[F32]
    fingerprint: Fingerprint
    _held: _core.Model | None = field(default=None, init=False, repr=False, compare=False)  # the arrays as the kernels take them

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
        return cls._at_base(manifest, list(base))

    @classmethod
    def _at_base(cls, manifest: Manifest, base: list[F32]) -> ModelState:
        zeros = [np.zeros(len(b), np.int32) for b in base]
        return cls(manifest, base, list(manifest.exponents), zeros, [b.copy() for b in base], (0, 0))

    def at_base(self) -> ModelState:
        """Return version 0, to be changed alone; the base is shared, and was proven when it was first read."""
        return self._at_base(self.manifest, self.base)

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

    def apply_container(self, update: Container) -> None:
        """Move to the state after a parsed update, in place and as its stream is read, or raise and leave every bit as it was.

        The state: of the parent (delta), or of any version of the same base (snapshot). Raises WrongBase, RootMismatch when the
        fingerprint is not the sender's, and what `apply` raises. Takes no memory that grows with the model.
        """
        header, snapshot = update.header, update.header.kind is Kind.SNAPSHOT
        update.check_schema(self.manifest.schema)
        if snapshot and header.base != self.manifest.commit:
            raise WrongBase(
                what="the snapshot", kind="base", expected=self.manifest.commit.hex()[:16], got=header.base.hex()[:16]
            )
        exponents = self._units_of_snapshot(update.entries) if snapshot else self.exponents
        try:
            self.fingerprint = _core.apply_stream(
                self._model(), exponents, update.table, update.stream,
                snapshot=snapshot, lanes=self.fingerprint, expect=header.fingerprint, progress=update.stream_progress,
            )  # fmt: skip
        except (IndexOutOfRange, RangeOverflow, NonFinite, RootMismatch) as error:
            raise self._named(error, header) from None
        self.exponents = exponents

    def _model(self) -> _core.Model:
        """Return the arrays as the kernels take them: checked once, not at every update."""
        if self._held is None or not self._held.holds(self.base, self.weights, self.integers):
            tensors = self.manifest.schema.tensors
            self._held = _core.Model(
                self.base, self.weights, self.integers,
                dtypes=bytes(t.dtype for t in tensors), kinds=bytes(self.manifest.classes), shapes=[(t.rows, t.columns) for t in tensors],
            )  # fmt: skip
        return self._held

    def _named(self, error: ModelWireError, header: Header) -> ModelWireError:
        """Return the error with names in the place of the kernels' numbers."""
        facts, names = dict(error.facts), self.manifest.schema.tensors
        if "tensor" in facts:
            place = int(str(facts["tensor"]))
            facts["tensor"] = names[place].name if place < len(names) else place
        if isinstance(error, RootMismatch):
            facts["device"] = f"{header.device}/{header.model}"
            facts["what"] = f"{facts['device']}@{header.version}"
        return type(error)(**facts)

    def _units_of_snapshot(self, sections: Sequence[Entry | Section]) -> list[int]:
        """Return each tensor's exponent after a snapshot. Raises Malformed for a unit that does not suit, or a section too many."""
        exponents = list(self.manifest.exponents)
        for s in sections:
            if not 0 <= s.tensor < len(exponents):
                continue
            if s.exponent == exponents[s.tensor]:
                if not s.count:
                    raise Malformed(what="section", reason=f"tensor {s.tensor} has one that says nothing")
            elif not self.manifest.verbatim(s.tensor):
                if not suits(float(np.abs(self.base[s.tensor]).max(initial=0.0)), s.exponent):
                    raise Malformed(what="section", reason=f"a unit of 2^{s.exponent} does not suit tensor {s.tensor}")
                exponents[s.tensor] = s.exponent
        return exponents

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
        fresh = self.at_base()
        fresh.exponents = self._units_of_snapshot(sections)
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
