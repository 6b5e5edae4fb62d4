"""Updates to the bit: exact planes of freely trained floats, and int8 tensors whose every changed code is sent, beside file differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelwire import storage
from modelwire.lattice import exact
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype, Held, Schema, TensorSpec
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind, Sections
from tests.bench.chain import KEY
from tests.bench.material import MAX_BYTES, Case, codes
from tests.keys import FLEET_ID, NO_FILE
from tests.modelwire.models import exact_update

FLOATS = (Dtype.FLOAT32, Dtype.FLOAT16, Dtype.BFLOAT16)


@dataclass(frozen=True)
class Typed:
    """A case's weights in one storage type, before and after the training."""

    name: str
    state: ModelState
    trained: list[Held]

    @property
    def all_layers(self) -> bool:
        return " all " in self.name

    @property
    def dtype(self) -> Dtype:
        return self.state.manifest.schema.tensors[0].dtype

    def files(self) -> tuple[bytes, bytes]:
        """Return (before, after) as files of bare weights."""
        old, new = (b"".join(storage.to_bytes(self.dtype, w) for w in side) for side in (self.state.weights, self.trained))
        return old, new


def floats(case: Case, dtype: Dtype) -> Typed:
    """Return the case as a device sends it that adopts nothing."""
    old, new = ([w if dtype is Dtype.FLOAT32 else storage.rounded(dtype, w) for w in side] for side in (case.state.weights, case.trained))
    return Typed(f"{case.name} {dtype.name.lower()}", _state(case, dtype, old, exact=True), new)


def int8(case: Case) -> Typed:
    """Return the case in codes, one scale a tensor, the base's."""
    old, new = codes(case.state.weights, case.state.weights), codes(case.trained, case.state.weights)
    return Typed(f"{case.name} int8", _state(case, Dtype.INT8, old, exact=False), new)


def planes(typed: Typed) -> Sections:
    """Return the exact update's sections: the encode alone, without the state that follows."""
    state = typed.state
    found = (
        exact.section_of(t, spec, w, new)
        for t, (spec, w, new) in enumerate(zip(state.manifest.schema.tensors, state.weights, typed.trained, strict=True))
    )
    return tuple(s for s in found if s is not None)


def exact_bytes(typed: Typed) -> int:
    """Return the bytes of the signed container of the exact update."""
    kind, sections, after = exact_update(typed.state, typed.trained)
    return len(_sealed(kind, sections, after))


def int8_bytes(typed: Typed) -> int:
    """Return the bytes of the signed container of a delta that holds every changed code."""
    state = typed.state
    snapped = snap(state.copy(), typed.trained, no_residual(state.manifest), density=1.0, max_bytes=MAX_BYTES)
    after = state.at_base()
    after.apply(snapped.kind, snapped.sections)
    assert all((w == new).all() for w, new in zip(after.weights, typed.trained, strict=True)), "int8 is exact"
    return len(_sealed(snapped.kind, snapped.sections, after))


def _state(case: Case, dtype: Dtype, weights: Sequence[Held], *, exact: bool) -> ModelState:
    schema = Schema(tuple(TensorSpec(t.name, t.shape, dtype) for t in case.manifest.schema.tensors))
    manifest = manifest_for(schema, list(weights), **NO_FILE, exponents={}, exact=exact)
    return ModelState.of_base(manifest, list(weights))


def _sealed(kind: Kind, sections: Sections, after: ModelState) -> bytes:
    schema, commit = after.manifest.schema, after.manifest.commit
    base = commit if kind is Kind.SNAPSHOT else b""
    header = Header(kind, "pi-7", "digits", 1, 1, commit, schema.id, after.root, after.fingerprint, base)
    return seal(header, sections, schema, KEY, FLEET_ID).data
