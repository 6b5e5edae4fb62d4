"""Tensors of every storage type on one base: what a device adopts is what the cloud rebuilds, to the bit, and adds and inverts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.state.slots import pack, unpack
from modelwire import storage
from modelwire.errors import Malformed, NonFinite, RangeOverflow
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype, Schema, TensorClass, TensorSpec
from modelwire.update.container import parse, seal
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind, Section, add, invert, sparse
from tests.keys import FLEET_ID, NO_FILE
from tests.modelwire.models import KEY

SCHEMA = Schema(
    (
        TensorSpec("b16", (20, 30), Dtype.BFLOAT16),
        TensorSpec("bias", (9,), Dtype.INT32),
        TensorSpec("codes", (17, 8), Dtype.INT8),
        TensorSpec("f16", (20, 30), Dtype.FLOAT16),
        TensorSpec("f32", (20, 30)),
        TensorSpec("moving_mean", (30,), Dtype.FLOAT16),
    )
)
F16, CODES, BIAS = SCHEMA.index("f16"), SCHEMA.index("codes"), SCHEMA.index("bias")


def base(seed: int = 0) -> ModelState:
    rng = np.random.default_rng(seed)
    flat: list[Any] = []
    for t in SCHEMA.tensors:
        if t.dtype is Dtype.INT32:
            flat.append(rng.integers(-(1 << 31), 1 << 31, t.size, np.int64).astype(np.int32))
        elif t.dtype is Dtype.INT8:
            flat.append(rng.integers(-127, 128, t.size).astype(np.float32))
        else:
            flat.append(storage.rounded(t.dtype, rng.standard_normal(t.size).astype(np.float32)))
    return ModelState.of_base(manifest_for(SCHEMA, flat, **NO_FILE, exponents={}), flat)


def trained(seed: int, state: ModelState) -> list[Any]:
    rng = np.random.default_rng(seed)
    out: list[Any] = []
    for t, w in zip(SCHEMA.tensors, state.weights, strict=True):
        if t.dtype is Dtype.INT32:
            out.append(w + rng.integers(-500, 500, t.size).astype(np.int32))
        elif t.dtype is Dtype.INT8:
            out.append(w + rng.standard_normal(t.size).astype(np.float32) * np.float32(2))
        else:
            new = w + rng.standard_normal(t.size).astype(np.float32) * np.float32(0.01)
            out.append(storage.rounded(t.dtype, new) if t.name == "moving_mean" else new)
    return out


def sealed(state: ModelState, kind: Kind, sections: Any) -> bytes:
    m = state.manifest
    named = m.commit if kind is Kind.SNAPSHOT else b""
    header = Header(kind, "pi-7", "m", 1, 1, m.commit, m.schema.id, state.root, state.fingerprint, named)
    return seal(header, sections, m.schema, KEY, FLEET_ID).data


def same(a: ModelState, b: ModelState) -> bool:
    return (
        [w.tobytes() for w in a.weights] == [w.tobytes() for w in b.weights]
        and [q.tobytes() for q in a.integers] == [q.tobytes() for q in b.integers]
        and a.fingerprint == b.fingerprint == a.measure_fingerprint()
    )


@pytest.mark.slow("rebuilds chains of updates of all types")
@given(st.integers(0, 1 << 32))
def test_a_chain_of_updates_of_all_types_is_rebuilt_adds_and_inverts(seed: int) -> None:
    state, start = base(seed), base(seed)
    residual = no_residual(state.manifest)
    total: Any = ()
    for version in range(3):
        parent = state.copy()
        s = snap(state, trained(seed + version, state), residual, density=0.2, max_bytes=1 << 20)
        assert s.kind is Kind.DELTA
        assert same(rebuild(parent, parse(sealed(s.state, s.kind, s.sections))), s.state)
        for t, w in zip(SCHEMA.tensors, s.state.weights, strict=True):
            assert storage.from_bytes(t.dtype, storage.to_bytes(t.dtype, w)).tobytes() == w.tobytes()
        total = add(total, s.sections, state.manifest)
        state, residual = s.state, s.residual
        before = state.copy()
        snap(state, trained(seed + version + 100, state), residual, density=0.2, max_bytes=1 << 20).undo()
        assert same(state, before)
    summed = start.copy()
    summed.apply(Kind.DELTA, total)
    assert same(summed, state)
    summed.apply(Kind.DELTA, invert(total))
    assert same(summed, start)
    assert same(rebuild(start, parse(sealed(state, Kind.SNAPSHOT, state.snapshot()))), state)
    private = pack(state.exponents, residual, [state.integers[t] for t in state.manifest.kept])
    exponents, _, integers = unpack(private, state.manifest)
    assert same(ModelState.of_weights(state.manifest, start.base, state.weights, exponents, integers), state)


def test_the_classes_of_the_types() -> None:
    manifest = base().manifest
    lattice, exact, verbatim = TensorClass.LATTICE, TensorClass.EXACT, TensorClass.VERBATIM
    assert manifest.classes == (lattice, verbatim, lattice, lattice, lattice, exact)
    assert manifest.exponents[CODES] == 0 and manifest.kept == (0, F16)


def test_what_adopting_a_float16_left_is_in_the_residual() -> None:
    state = base()
    new = trained(1, state)
    s = snap(state, new, no_residual(state.manifest), density=1.0, max_bytes=1 << 20)
    left = (s.residual[F16].astype(np.uint32) << 16).view(np.float32)
    missing = new[F16] - s.state.weights[F16]
    assert np.abs(left - missing).max() <= np.abs(missing).max() * 2.0**-8
    assert np.abs(left).max() > 1e-4  # the types differ by that much: it was not dropped


def test_every_changed_code_is_sent_and_stops_at_127() -> None:
    state = base()
    new = [w.copy() for w in state.weights]
    new[CODES] = np.full(len(new[CODES]), 126.4, np.float32)
    new[CODES][:3] = [150.0, -150.0, state.weights[CODES][2] + 0.4]
    s = snap(state, new, no_residual(state.manifest), density=0.001, max_bytes=1 << 20)
    codes = s.state.weights[CODES]
    assert codes[:3].tolist() == [127, -127, state.weights[CODES][2]] and set(codes[3:].tolist()) == {126.0}
    left = (s.residual[CODES].astype(np.uint32) << 16).view(np.float32)
    assert left[:2].tolist() == [23, -23] and np.allclose(left[2:], 0.4, atol=1 / 256)
    assert [(x.step, x.exponent) for x in sparse(s.sections) if x.tensor == CODES] == [(1, 0)]


def test_a_code_beyond_127_and_a_float16_beyond_its_end_are_refused_and_nothing_moves() -> None:
    state = base()
    before = state.copy()
    index = np.array([4], np.uint32)
    first = Section(0, index, np.array([3], np.int32), 1, state.exponents[0])
    step = 128 - int(state.weights[CODES][4])
    with pytest.raises(RangeOverflow) as caught:
        state.apply(Kind.DELTA, (first, Section(CODES, index, np.array([step], np.int32), 1, 0)))
    assert caught.value.facts["tensor"] == "codes" and caught.value.facts["index"] == 4
    assert same(state, before)
    coarse = manifest_for(SCHEMA, state.base, **NO_FILE, exponents={"f16": 0})
    wide = ModelState.of_base(coarse, state.base)
    with pytest.raises(NonFinite) as named:
        wide.apply(Kind.DELTA, (first, Section(F16, index, np.array([65535], np.int32), 1, 0)))
    assert named.value.facts["tensor"] == "f16" and named.value.facts["index"] == 4


def test_the_q_of_16_bit_types_has_to_be_given_and_to_be_right() -> None:
    state = base()
    s = snap(state, trained(1, state), no_residual(state.manifest), density=0.5, max_bytes=1 << 20).state
    kept = {t: s.integers[t] for t in s.manifest.kept}
    assert same(ModelState.of_weights(s.manifest, s.base, s.weights, s.exponents, kept), s)
    with pytest.raises(Malformed, match="does not follow"):
        ModelState.of_weights(s.manifest, s.base, s.weights, s.exponents)
    wrong = {t: (q + 4096 * (q != 0)).astype(np.int32) for t, q in kept.items()}
    with pytest.raises(Malformed, match="not what its Q gives"):
        ModelState.of_weights(s.manifest, s.base, s.weights, s.exponents, wrong)


def test_whole_numbers_whose_bits_would_be_no_float_travel_too() -> None:
    state = base()
    new = [w.copy() for w in state.weights]
    new[BIAS] = np.full(9, -1, np.int32)  # as a float32 that is no number
    s = snap(state, new, no_residual(state.manifest), density=0.01, max_bytes=1 << 20)
    assert s.state.weights[BIAS].tolist() == [-1] * 9
    assert same(rebuild(base(), parse(sealed(s.state, s.kind, s.sections))), s.state)
