"""A model on the lattice around its base: the state that a device and the centre hold alike, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from modelwire import _core
from modelwire.errors import IndexOutOfRange, Malformed, ModelWireError, NonFinite, RangeOverflow, RootMismatch, WrongBase
from modelwire.identity import RootParts, no_integers, root_parts
from modelwire.tensors import I32, U16, U32, Dtype, Held, Weights
from modelwire.update.container import CODEC_RANGE, Container, Entry
from modelwire.update.header import Header
from modelwire.update.manifest import Manifest, peak_of, suits
from modelwire.update.sections import AnySection, Kind, PlaneSection, Section, Sections, section_of, sparse, verbatim_section

from . import exact, narrow
from .lanes import Fingerprint, minus, plus
from .leaves import RootLeaves

# What `_core.apply_stream` counts by: a code for each entry of the model, a factor for each tensor, and 256 sums.
Counted: TypeAlias = tuple[U16, U32, U32]


@dataclass(slots=True, eq=False)
class ModelState:
    """Base, units and integers, with the weights that follow from them. Changed only by `apply_container`, `apply` and adoption.

    base, weights: flat arrays in schema order, held as their types are (storage.py); integers: Q (lattice), difference of bits
    mod 2^32 (verbatim), or none (exact: they follow from the two).
    """

    manifest: Manifest
    base: list[Held]  # shared between states, never written
    exponents: list[int]
    integers: list[I32]
    weights: list[Held]
    fingerprint: Fingerprint
    _held: _core.Model | None = field(default=None, init=False, repr=False, compare=False)  # the arrays as the kernels take them
    _leaves: RootLeaves | None = field(default=None, init=False, repr=False, compare=False)  # of the root, where they are kept

    def __repr__(self) -> str:
        return f"<model state on the base {self.manifest.commit.hex()[:8]}: {self.manifest.schema.counted}>"

    def __eq__(self, other: object) -> bool:
        """Whether both are of one base and alike, bit for bit."""
        if not isinstance(other, ModelState):
            return NotImplemented
        pairs = zip((*self.weights, *self.integers), (*other.weights, *other.integers), strict=True)
        same = self.manifest == other.manifest and self.exponents == other.exponents
        return same and all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)

    @classmethod
    def of_base(cls, manifest: Manifest, base: Sequence[Held]) -> ModelState:
        """Return version 0. Raises WrongBase when the weights are not the manifest's, Malformed when its units do not suit them,
        NonFinite for a weight that is no number.
        """
        zeros, peaks = no_integers({t: len(base[t]) for t in manifest.kept}), [peak_of(b) for b in base]
        for b, peak, spec in zip(base, peaks, manifest.schema.tensors, strict=True):
            if not np.isfinite(peak):
                raise NonFinite(what="the base", tensor=spec.name, index=int(np.flatnonzero(~np.isfinite(b))[0]))
        if root_parts(manifest.schema, base, manifest.exponents, zeros).root != manifest.root:
            raise WrongBase(what="the base's weights", kind="root", expected=manifest.root.hex()[:16], got="another")
        for t, (peak, e, spec) in enumerate(zip(peaks, manifest.exponents, manifest.schema.tensors, strict=True)):
            if manifest.lattice(t) and not suits(peak, e, spec.dtype):
                raise Malformed(what="manifest", reason=f"tensor {spec.name}: a unit of 2^{e} does not suit weights of up to {peak:g}")
        return cls._at_base(manifest, list(base))

    @classmethod
    def _at_base(cls, manifest: Manifest, base: list[Held]) -> ModelState:
        zeros = [np.zeros(0 if manifest.exact(t) else len(b), np.int32) for t, b in enumerate(base)]
        return cls(manifest, base, list(manifest.exponents), zeros, [b.copy() for b in base], (0, 0))

    def at_base(self) -> ModelState:
        """Return version 0, to be changed alone; the base is shared, and was proven when it was first read."""
        return self._at_base(self.manifest, self.base)

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
        return self.root_parts.root

    @property
    def root_parts(self) -> RootParts:
        """What the root is the digest of: its weights node alone proves a bare `.tflite`."""
        if self._leaves is not None:
            return self._leaves.parts(self.weights, self.exponents, self.integers)
        kept = {t: self.integers[t] for t in self.manifest.kept}
        return root_parts(self.manifest.schema, self.weights, self.exponents, kept)

    def keep_leaves(self) -> None:
        """Let the next roots hash only what `apply` and `apply_container` touch. Nobody else may change this state from now on."""
        if self._leaves is None:
            self._leaves = RootLeaves(self.manifest)

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
            lanes = plus(lanes, part)
        return lanes

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

    def apply_container(self, update: Container, *, counted: Counted | None = None) -> None:
        """Move to the state after a parsed update, in place and as its stream is read, or raise and leave every bit as it was.

        The state: of the parent (delta), or of any version of the same base (snapshot). Raises WrongBase, RootMismatch when the
        fingerprint is not the sender's, and what `apply` raises. Takes no memory that grows with the model.
        counted: sums that grow with what the stream moves, as `_core.apply_stream` says.
        """
        header, snapshot = update.header, update.header.kind is Kind.SNAPSHOT
        update.check_schema(self.manifest.schema)
        if snapshot and header.base != self.manifest.commit:
            raise WrongBase(
                what="the snapshot", kind="base", expected=self.manifest.commit.hex()[:16], got=header.base.hex()[:16]
            )
        self._check_kind(header.kind)
        exponents = self._units_of_snapshot(update.entries) if snapshot else self.exponents
        planes, lanes = self._look_at_planes(update)
        wanted = minus(header.fingerprint, lanes)
        try:
            _core.apply_stream(
                self._model(), exponents, update.coded_table, update.stream,
                snapshot=snapshot, lanes=self.fingerprint, expect=wanted, progress=update.stream_progress,
                counted=counted,
            )  # fmt: skip
        except (IndexOutOfRange, RangeOverflow, NonFinite, RootMismatch) as error:
            raise self._named(error, header) from None
        self.fingerprint = header.fingerprint
        self.exponents = exponents
        self._put_planes(planes, snapshot)
        if self._leaves is not None:
            if snapshot:
                self._leaves.touch_all()
            else:
                self._leaves.touch_by(update)

    def _look_at_planes(self, update: Container) -> tuple[dict[int, PlaneSection], Fingerprint]:
        """Return an update's planes, by tensor, and what they add to the fingerprint, having checked all they could be refused for."""
        manifest, snapshot = self.manifest, update.header.kind is Kind.SNAPSHOT
        planes = update.plane_sections(manifest.schema)
        if planes or manifest.some_exact:
            for e in update.entries:
                if e.tensor < len(self.base) and (e.codec == CODEC_RANGE) is manifest.exact(e.tensor):
                    raise Malformed(what="section", reason=f"tensor {e.tensor} is {manifest.classes[e.tensor].name.lower()}: another codec")
        lanes = (0, 0)
        for s in planes.values():
            lanes = plus(lanes, self._look(s, snapshot))
        return planes, lanes

    def _put_planes(self, planes: Mapping[int, PlaneSection], snapshot: bool) -> None:
        """Move the exact tensors by planes that were looked at; a snapshot moves all of them, from the base."""
        for t, spec in enumerate(self.manifest.schema.tensors if planes or snapshot else ()):
            if snapshot and self.manifest.exact(t):
                self.weights[t][:] = self.base[t]
            if t in planes:
                exact.put(spec, planes[t], self.weights[t])

    def _look(self, s: PlaneSection, snapshot: bool) -> Fingerprint:
        """Return what planes add to the fingerprint, having checked all that they could be refused for."""
        if not 0 <= s.tensor < len(self.base):
            raise IndexOutOfRange(tensor=s.tensor, index=0, size=len(self.base))
        schema = self.manifest.schema
        spec = schema.tensors[s.tensor]
        if not self.manifest.exact(s.tensor) or (s.dtype, s.entries) != (spec.dtype, spec.size):
            raise Malformed(what="section", reason=f"tensor {s.tensor} has planes that it can't take")
        with naming(spec.name):
            return exact.look(spec, s, (self.base if snapshot else self.weights)[s.tensor], schema.starts[s.tensor])

    def _check_kind(self, kind: Kind) -> None:
        if kind is Kind.RECIPE:
            raise Malformed(what="update", reason="a recipe is replayed on its parent and not applied: modelwire.lattice.rebuild does both")
        if kind is not Kind.SNAPSHOT and (kind is Kind.EXACT) is not self.manifest.all_exact:
            raise Malformed(what="update", reason=f"{kind.name.lower()} is no kind of update that this base's tensors take")

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
            if not 0 <= s.tensor < len(exponents) or self.manifest.exact(s.tensor):
                continue
            if s.exponent == exponents[s.tensor]:
                if not s.count:
                    raise Malformed(what="section", reason=f"tensor {s.tensor} has one that says nothing")
            elif not self.manifest.verbatim(s.tensor):
                if not suits(peak_of(self.base[s.tensor]), s.exponent, self.manifest.schema.tensors[s.tensor].dtype):
                    raise Malformed(what="section", reason=f"a unit of 2^{s.exponent} does not suit tensor {s.tensor}")
                exponents[s.tensor] = s.exponent
        return exponents

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
        self._check_kind(kind)
        self._apply_delta(sections, expect)

    def _apply_delta(self, sections: Sequence[AnySection], expect: Fingerprint | None, *, snapshot: bool = False) -> None:
        after = plus(self.fingerprint, fingerprint_of(sparse(sections), self.manifest))
        for s in sections:  # phase one: nothing is written
            if isinstance(s, PlaneSection):
                after = plus(after, self._look(s, snapshot))
            else:
                self._check(s)
        if expect is not None and after != expect:
            raise RootMismatch(what="delta", kind="fingerprint", device="DEVICE")
        self.move(sections)
        self.fingerprint = after

    def move(self, sections: Sequence[AnySection]) -> None:
        """Move weights and integers by sections that have been checked; the fingerprint is the caller's to move."""
        if self._leaves is not None:
            self._leaves.touch(sections)
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
        fresh = self.at_base()
        fresh.exponents = self._units_of_snapshot(sparse(sections))
        fresh._apply_delta(sections, expect, snapshot=True)
        self.exponents, self.integers = fresh.exponents, fresh.integers
        self.weights, self.fingerprint = fresh.weights, fresh.fingerprint
        if self._leaves is not None:
            self._leaves.touch_all()


def fingerprint_of(sections: Sequence[AnySection], manifest: Manifest) -> Fingerprint:
    """Return what `sections` add to a fingerprint; it adds like the updates themselves."""
    starts = manifest.schema.starts
    lanes = (0, 0)
    for s in sections:
        if isinstance(s, PlaneSection):
            lanes = plus(lanes, exact.lanes_of(s, starts[s.tensor]))
            continue
        part = _core.fingerprint_sparse(
            s.index, s.value, step=s.step, start=starts[s.tensor], verbatim=manifest.verbatim(s.tensor)
        )
        lanes = plus(lanes, part)
    return lanes


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
