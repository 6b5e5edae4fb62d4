"""Our own side of the bench: the adopt pass, the whole encode and the apply, called as a device and the centre call them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from modelwire import _core, kernels
from modelwire.lattice.candidates import Candidates, Taken
from modelwire.lattice.rebuild import apply_many
from modelwire.lattice.snap import Snapped, snap
from modelwire.lattice.state import ModelState
from modelwire.update.container import parse, seal
from modelwire.update.header import Header
from modelwire.update.sections import Kind, Sections, invert
from tests.bench.chain import KEY
from tests.bench.material import MAX_BYTES, Case
from tests.keys import FLEET_ID


class Adopting:
    """The adopt pass of one case, in place: difference, dead zone, residual, adopt. `reset` puts the arrays back."""

    def __init__(self, case: Case) -> None:
        manifest = case.manifest
        self.case = case
        self.state = case.state.copy()
        self.tensors = [t for t in range(len(manifest.schema.tensors)) if not manifest.verbatim(t)]
        self.w = [self.state.weights[t] for t in self.tensors]
        self.q = [self.state.integers[t] for t in self.tensors]
        self.step = snap(case.state.copy(), case.trained, case.residual, density=case.density, max_bytes=MAX_BYTES).step
        self.count = max(1, int(case.density * sum(map(len, self.w))))
        self.adopted: tuple[Candidates, Sequence[Taken]] | None = None

    def reset(self) -> None:
        if self.adopted is not None:
            candidates, taken = self.adopted
            candidates.retract(taken)
            self.adopted = None

    def known_step(self) -> None:
        """Adopt with the step of an earlier round."""
        candidates = Candidates(self.state, self.case.trained, self.case.residual)
        self.adopted = candidates, candidates.adopt_step(self.step, expect=self.count)

    def exact_count(self) -> None:
        """Adopt with the step that keeps exactly the case's density."""
        candidates = Candidates(self.state, self.case.trained, self.case.residual)
        self.adopted = candidates, candidates.adopt_count(self.count)


class Applying:
    """The centre's apply of one sealed update, with all validation but the signature. `reset` takes the update back."""

    def __init__(self, case: Case) -> None:
        self.state = case.state.copy()
        self.fingerprint = self.state.fingerprint
        sections = case.sections()
        self.sealed = sealed(case, sections)
        self.back = invert(sections)
        self.applied = False

    def apply(self) -> None:
        self.state.apply_container(parse(self.sealed))
        self.applied = True

    def reset(self) -> None:
        if self.applied:
            self.state.apply(Kind.DELTA, self.back, expect=self.fingerprint)
            self.applied = False


class Encoding:
    """The whole encode as a device runs it: choice of the step, adopt pass, range coder, the size against the budget.

    It moves the state; `reset` takes the round back.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.state = case.state.copy()
        self.snapped: Snapped | None = None

    def encode(self) -> Snapped:
        case = self.case
        self.snapped = snap(self.state, case.trained, case.residual, density=case.density, max_bytes=MAX_BYTES)
        return self.snapped

    def reset(self) -> None:
        if self.snapped is not None:
            self.snapped.undo()
            self.snapped = None

    def again(self) -> None:
        self.encode()
        self.reset()


class ApplyingChain:
    """The centre's walk along sealed updates, with all validation but signatures and roots. `reset` goes back to the base."""

    def __init__(self, base: ModelState, sealed: Sequence[bytes]) -> None:
        self.base, self.sealed, self.state = base, sealed, base.copy()

    def apply(self) -> None:
        apply_many(self.state, (parse(body) for body in self.sealed))

    def reset(self) -> None:
        self.state = self.base.copy()


def sealed(case: Case, sections: Sections) -> bytes:
    """Return the signed container of an update of this case."""
    after = case.state.copy()
    after.apply(Kind.DELTA, sections)
    schema = case.manifest.schema
    header = Header(Kind.DELTA, "pi-7", "digits", 1, 1, case.manifest.commit, schema.id, after.root, after.fingerprint)
    return seal(header, sections, schema, KEY, FLEET_ID).data


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
