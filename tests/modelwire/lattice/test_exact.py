"""Exact tensors: any finite weights of any type travel bit for bit, and their updates add, invert, squash and fingerprint exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire import storage
from modelwire.errors import IndexOutOfRange, Malformed, ModelError, NonFinite, WrongBase
from modelwire.lattice.exact import section_of
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.state import ModelState, fingerprint_of
from modelwire.tensors import Dtype, Schema, TensorClass, TensorSpec
from modelwire.update import planes
from modelwire.update.container import parse, seal
from modelwire.update.header import Header
from modelwire.update.manifest import Manifest, manifest_for, parse_manifest
from modelwire.update.sections import Kind, PlaneSection, add, changed, invert
from tests.keys import FLEET_ID, NO_FILE
from tests.modelwire.kernels.test_planes import neighbours, stored
from tests.modelwire.models import KEY, exact_update

SCHEMA = Schema(
    tuple(
        TensorSpec(f"{d.name.lower()}_{kind}", shape, d)
        for d in sorted(Dtype, key=lambda d: d.name)
        for kind, shape in (("matrix", (7, 33)), ("scalar", ()))
    )
)


def drawn(seed: int) -> list[Any]:
    """Return finite weights of every type, all bits drawn at random."""
    rng = np.random.default_rng(seed)
    return [storage.from_bytes(t.dtype, stored(rng, t.dtype.name.lower(), t.size).tobytes()) for t in SCHEMA.tensors]


def trained(seed: int, flat: list[Any], density: float = 0.5) -> list[Any]:
    """Return other weights near `flat`, still finite."""
    rng = np.random.default_rng(seed)
    out = []
    for t, w in zip(SCHEMA.tensors, flat, strict=True):
        before = storage.bits(t.dtype, w)
        after = neighbours(rng, before, density)
        sound = after & before.dtype.type((1 << 8 * t.dtype.width - 1) - 1) < (t.dtype.infinity or 1 << 32)
        out.append(storage.from_bytes(t.dtype, np.where(sound, after, before).tobytes()))
    return out


def base(seed: int = 0, *, exact: bool = True) -> ModelState:
    flat = drawn(seed)
    return ModelState.of_base(manifest_for(SCHEMA, flat, **NO_FILE, exponents={}, exact=exact), flat)


def sealed(state: ModelState, kind: Kind, sections: Any, version: int = 1) -> bytes:
    m = state.manifest
    named = m.commit if kind is Kind.SNAPSHOT else b""
    header = Header(kind, "pi-7", "m", 1, version, m.commit, m.schema.id, state.root, state.fingerprint, named)
    return seal(header, sections, m.schema, KEY, FLEET_ID).data


def same(a: ModelState, b: ModelState) -> bool:
    return a.root == b.root and a.fingerprint == b.fingerprint == b.measure_fingerprint()


@given(st.integers(0, 1 << 32), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_any_finite_weights_of_any_type_travel_bit_for_bit(seed: int, density: float) -> None:
    state = base(seed)
    weights = trained(seed + 1, state.weights, density)
    kind, sections, after = exact_update(state, weights)
    assert [a.tobytes() for a in after.weights] == [w.tobytes() for w in weights]
    assert after.fingerprint == after.measure_fingerprint()
    data = sealed(after, kind, sections)
    assert same(rebuild(state, parse(data)), after)
    assert changed(sections) == sum(
        int((storage.bits(t.dtype, a) != storage.bits(t.dtype, b)).sum())
        for t, a, b in zip(SCHEMA.tensors, weights, state.weights, strict=True)
    )


@given(st.integers(0, 1 << 32))
def test_exact_updates_add_invert_and_squash(seed: int) -> None:
    state = base(seed)
    _, first, one = exact_update(state, trained(seed + 1, state.weights))
    _, second, two = exact_update(one, trained(seed + 2, one.weights))
    _, third, three = exact_update(two, trained(seed + 3, two.weights))
    manifest = state.manifest
    both = add(first, second, manifest)
    assert same(moved(state, both), two)
    left, right = add(both, third, manifest), add(first, add(second, third, manifest), manifest)
    assert same(moved(state, left), three) and [bytes(s.planes) for s in planed(left)] == [bytes(s.planes) for s in planed(right)]
    assert same(moved(two, invert(both)), state)
    assert add(first, invert(first), manifest) == ()
    lanes = fingerprint_of(both, manifest)
    assert state.fingerprint == (0, 0) and lanes == two.fingerprint


def planed(sections: Any) -> list[PlaneSection]:
    assert all(isinstance(s, PlaneSection) for s in sections)
    return list(sections)


def moved(state: ModelState, sections: Any) -> ModelState:
    after = state.copy()
    after.apply(Kind.EXACT, sections)
    return after


@given(st.integers(0, 1 << 32))
def test_a_snapshot_of_an_exact_base_moves_any_version_there(seed: int) -> None:
    state = base(seed)
    _, _, after = exact_update(state, trained(seed + 1, state.weights))
    container = parse(sealed(after, Kind.SNAPSHOT, after.snapshot()))
    _, _, elsewhere = exact_update(state, trained(seed + 2, state.weights))
    assert same(rebuild(elsewhere, container), after)


def test_a_float_that_is_no_number_is_refused_and_named() -> None:
    state = base()
    for t, spec in enumerate(SCHEMA.tensors):
        if spec.dtype.infinity:
            weights = [w.copy() for w in state.weights]
            weights[t][-1] = np.nan
            with pytest.raises(NonFinite) as caught:
                exact_update(state, weights)
            assert caught.value.facts["index"] == spec.size - 1


def test_a_float32_that_a_16_bit_type_does_not_have_is_refused() -> None:
    state = base()
    weights = [w.copy() for w in state.weights]
    weights[SCHEMA.index("float16_matrix")][0] = 0.1
    with pytest.raises(Malformed, match="no value of the tensor's storage type"):
        exact_update(state, weights)


def test_a_refused_update_leaves_every_bit_as_it_was() -> None:
    state = base()
    t = SCHEMA.index("float32_matrix")
    _, near, after = exact_update(state, trained(1, state.weights, 1.0))
    bits = int(after.weights[t].view(np.uint32)[5])
    d = np.zeros(SCHEMA.tensors[t].size, np.uint32)
    d[5] = (0x7F800000 - (bits if bits < 1 << 31 else bits ^ 0x7FFFFFFF)) % (1 << 32)  # to infinity
    infinite = PlaneSection(t, Dtype.FLOAT32, len(d), planes.encode(d, None, 0))
    before = [w.tobytes() for w in after.weights], after.fingerprint
    with pytest.raises(NonFinite) as caught:
        after.apply(Kind.EXACT, (planed(invert(near))[0], infinite))
    assert caught.value.facts["tensor"] == "float32_matrix" and caught.value.facts["index"] == 5
    assert ([w.tobytes() for w in after.weights], after.fingerprint) == before


def test_kinds_and_classes_that_do_not_fit_are_refused() -> None:
    state = base()
    _, sections, _ = exact_update(state, trained(1, state.weights))
    with pytest.raises(Malformed, match="no kind of update"):
        state.copy().apply(Kind.DELTA, sections)
    mixed = base(exact=False)
    with pytest.raises(Malformed, match="no kind of update"):
        mixed.apply(Kind.EXACT, sections)
    with pytest.raises(WrongBase):
        exact_update(mixed, mixed.weights)
    lattice = SCHEMA.index("float16_matrix")
    assert mixed.manifest.lattice(lattice)
    with pytest.raises(Malformed, match="planes that it can't take"):
        mixed.apply(Kind.DELTA, [s for s in planed(sections) if s.tensor == lattice])
    with pytest.raises(IndexOutOfRange):
        state.copy().apply(Kind.EXACT, [replace(planed(sections)[0], tensor=99)])
    with pytest.raises(Malformed, match="two sections"):
        state.copy().apply(Kind.EXACT, [sections[0], sections[0]])


def test_a_base_of_mixed_classes_takes_planes_beside_coded_sections() -> None:
    rng = np.random.default_rng(5)
    schema = Schema((TensorSpec("a", (40, 3)), TensorSpec("b_moving_mean", (12,), Dtype.FLOAT16), TensorSpec("c", (9, 9))))
    flat = [storage.rounded(t.dtype, rng.standard_normal(t.size).astype(np.float32)) for t in schema.tensors]
    manifest = manifest_for(schema, flat, **NO_FILE, exponents={})
    assert [c.name for c in manifest.classes] == ["LATTICE", "EXACT", "LATTICE"]
    state = ModelState.of_base(manifest, flat)
    statistic = section_of(1, schema.tensors[1], flat[1], flat[1] * np.float32(2))
    assert statistic is not None
    moved_by = state.copy()
    moved_by.integers[2][3] = 77
    moved_by.weights[2][3] = flat[2][3] + np.float32(77 * 2.0 ** manifest.exponents[2])
    sections = (statistic, *[s for s in moved_by.snapshot() if s.tensor == 2])
    after = state.copy()
    after.apply(Kind.DELTA, sections)
    assert after.weights[1].tobytes() == (flat[1] * np.float32(2)).tobytes() and after.integers[2][3] == 77
    data = seal(
        Header(Kind.DELTA, "pi-7", "m", 1, 1, manifest.commit, schema.id, after.root, after.fingerprint), sections, schema, KEY, FLEET_ID
    ).data
    assert same(rebuild(state, parse(data)), after)
    assert after.fingerprint == after.measure_fingerprint()


def test_manifests_tell_types_and_classes_and_refuse_what_no_type_has() -> None:
    for exact in (False, True):
        manifest = base(exact=exact).manifest
        assert parse_manifest(manifest.encode()) == manifest and manifest.all_exact is exact
    classes = {t.name: c for t, c in zip(SCHEMA.tensors, base(exact=False).manifest.classes, strict=True)}
    assert classes["int32_matrix"] is TensorClass.VERBATIM
    assert classes["int8_matrix"] is TensorClass.EXACT  # it holds a -128
    codes = [TensorSpec("w", (4,), Dtype.INT8)]
    narrow = manifest_for(Schema(tuple(codes)), [np.array([-127, 0, 3, 127], np.float32)], **NO_FILE, exponents={})
    assert (narrow.classes, narrow.exponents) == ((TensorClass.LATTICE,), (0,))
    for row in (["w", 4, [4], 1, 0], ["w", 5, [4], 0, 0], ["w", 2, [4], 1, 0], ["w", 6, [4], 2, 0], ["w", 1, [4], 3, 0]):
        with pytest.raises(Malformed, match="does not read"):
            parse_manifest(with_row(narrow, row))
    for row in (["w", 4, [4], 0, 1], ["w", 1, [4], 2, -3], ["w", 5, [4], 1, 1]):
        with pytest.raises(Malformed, match="has a unit"):
            parse_manifest(with_row(narrow, row))
    with pytest.raises(ModelError, match="takes no unit"):
        manifest_for(SCHEMA, drawn(0), **NO_FILE, exponents={"float32_matrix": -3}, exact=True)


def with_row(manifest: Manifest, row: list[Any]) -> bytes:
    from modelwire.wire import cbor

    top = cbor.decode(manifest.encode())
    assert isinstance(top, dict)
    return cbor.encode({**top, "tensors": [row]})
