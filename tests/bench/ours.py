"""Our own side of the bench: the adopt pass, the whole encode and the apply, called as a device and the centre call them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from modelwire import _core, kernels
from modelwire.candidates import Candidates
from modelwire.container import Header, parse, seal
from modelwire.rebuild import apply_many
from modelwire.snap import DEAD_ZONE, Snapped, Step, snap
from modelwire.state import ModelState
from modelwire.update import Kind, Sections, invert
from tests.bench.chain import KEY
from tests.bench.material import MAX_BYTES, Case


class Adopting:
    """The adopt pass of one case, in place: difference, dead zone, residual, adopt. `reset` puts the arrays back."""

    def __init__(self, case: Case) -> None:
        manifest = case.manifest
        self.case = case
        self.tensors = [t for t in range(len(manifest.schema.tensors)) if not manifest.verbatim(t)]
        self.w = [case.state.weights[t].copy() for t in self.tensors]
        self.q = [case.state.integers[t].copy() for t in self.tensors]
        self.left = [np.empty_like(case.residual[t]) for t in self.tensors]
        size = max(len(w) for w in self.w)
        self.index, self.d = np.empty(size, np.uint32), np.empty(size, np.float32)
        self.step = snap(case.state, case.trained, case.residual, density=case.density, max_bytes=MAX_BYTES).step

    def reset(self) -> None:
        for i, t in enumerate(self.tensors):
            self.w[i][:], self.q[i][:] = self.case.state.weights[t], self.case.state.integers[t]

    def known_step(self) -> None:
        """Adopt with the step of an earlier round."""
        for i, t in enumerate(self.tensors):
            e = self.case.state.exponents[t]
            units = self.step.units(e)
            threshold = float(np.float32(DEAD_ZONE) * np.float32(math.ldexp(units, e)))
            w, new, residual = self.w[i], self.case.trained[t], self.case.residual[t]
            kept = _core.collect(w, new, residual, self.left[i], self.index, self.d, least=threshold)
            assert kept is not None  # there is room for all of it
            found, q = kept[0], self.q[i]
            index, value, _ = _core.quantise(q, self.index[:found], self.d[:found], exponent=e, step=units, threshold=threshold)
            _core.adopt_sent(self.case.state.base[t], w, new, residual, q, self.left[i], index, value, exponent=e, step=units)

    def exact_count(self) -> None:
        """Adopt with the step that keeps exactly the case's density."""
        case = self.case
        candidates = Candidates(case.state, case.trained, case.residual, density=case.density)
        edge = candidates.edge(max(1, int(case.density * candidates.count)))
        fraction, exponent = math.frexp(edge / DEAD_ZONE)
        step = Step(max(1, int(fraction * 256)), exponent - 8) if edge > 0 else self.step
        for i, t in enumerate(self.tensors):
            e = case.state.exponents[t]
            units = step.units(e)
            threshold = float(np.float32(DEAD_ZONE) * np.float32(math.ldexp(units, e)))
            index, value, _ = candidates.snapped(t, step=units, threshold=threshold)
            base, w, q = case.state.base[t], self.w[i], self.q[i]
            _core.adopt_sent(base, w, case.trained[t], case.residual[t], q, candidates.left[t], index, value, exponent=e, step=units)


class Applying:
    """The centre's apply of one sealed update, with all validation but the signature. `reset` takes the update back."""

    def __init__(self, case: Case) -> None:
        self.state = case.state.copy()
        self.fingerprint = self.state.fingerprint
        sections = case.sections()
        self.schema = case.manifest.schema
        self.sealed = sealed(case, sections)
        self.back = invert(sections)
        self.applied = False

    def apply(self) -> None:
        container = parse(self.sealed)
        self.state.apply(container.header.kind, container.sections(self.schema), expect=container.header.fingerprint)
        self.applied = True

    def reset(self) -> None:
        if self.applied:
            self.state.apply(Kind.DELTA, self.back, expect=self.fingerprint)
            self.applied = False


class ApplyingChain:
    """The centre's walk along sealed updates, with all validation but signatures and roots. `reset` goes back to the base."""

    def __init__(self, base: ModelState, sealed: Sequence[bytes]) -> None:
        self.base, self.sealed, self.state = base, sealed, base.copy()

    def apply(self) -> None:
        apply_many(self.state, (parse(body) for body in self.sealed))

    def reset(self) -> None:
        self.state = self.base.copy()


def encode(case: Case) -> Snapped:
    """Return the whole encode as a device runs it: choice of the step, adopt pass, range coder, the size against the budget."""
    return snap(case.state, case.trained, case.residual, density=case.density, max_bytes=MAX_BYTES)


def sealed(case: Case, sections: Sections) -> bytes:
    """Return the signed container of an update of this case."""
    after = case.state.copy()
    after.apply(Kind.DELTA, sections)
    schema = case.manifest.schema
    header = Header(Kind.DELTA, "pi-7", "digits", 1, 1, case.manifest.commit, schema.id, after.root, after.fingerprint)
    return seal(header, sections, schema, KEY)


def payload(case: Case, sections: Sections) -> bytes:
    """Return the range coder's stream alone."""
    rows = [case.manifest.schema.tensors[s.tensor] for s in sections]
    return _core.encode_sections([(r.rows, r.columns, s.index, s.value) for r, s in zip(rows, sections, strict=True)])


@contextmanager
def portable() -> Iterator[None]:
    """Compute in portable C inside the block; call only where `compiled()`."""
    from modelwire._core import kernel

    chosen = kernel.kernel_name()
    kernel.choose("generic")
    try:
        yield
    finally:
        kernel.choose(chosen)


def compiled() -> bool:
    """Return whether this process runs the C kernels and not their numpy twin."""
    return kernels.describe() != "reference"
