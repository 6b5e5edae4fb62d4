"""Roots whose leaves are kept: the very same as those of hashing everything, for every class of tensor and every way to move a state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire import identity, merkle, storage
from modelwire.errors import ModelWireError
from modelwire.identity import RootParts, root_parts
from modelwire.lattice import exact
from modelwire.lattice.between import exact_sections
from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype, Schema, TensorClass, TensorSpec
from modelwire.update.container import parse, seal
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import AnySection, Kind, Section, invert, section_of, verbatim_section
from tests.keys import FLEET_ID, NO_FILE
from tests.modelwire.models import KEY, empty

SCHEMA = Schema(
    (
        TensorSpec("b16", (300, 250), Dtype.BFLOAT16),  # 3 leaves, and 5 of Q
        TensorSpec("bias", (20_000,), Dtype.INT32),  # verbatim, 2 leaves
        TensorSpec("codes", (2, 40_000), Dtype.INT8),  # 2 leaves
        TensorSpec("f16", (70_001,), Dtype.FLOAT16),
        TensorSpec("f32", (3, 16_384)),  # 3 leaves, the last one full
        TensorSpec("moving_mean", (40_000,), Dtype.FLOAT16),  # exact
        TensorSpec("moving_variance", (16_385,)),  # verbatim; the last leaf holds one entry
        TensorSpec("scalar", ()),
    )
)


def base(*, all_exact: bool = False) -> ModelState:
    rng = np.random.default_rng(5)
    flat: list[Any] = []
    for t in SCHEMA.tensors:
        if t.dtype is Dtype.INT32:
            flat.append(rng.integers(-(1 << 31), 1 << 31, t.size, np.int64).astype(np.int32))
        elif t.dtype is Dtype.INT8:
            flat.append(rng.integers(-100, 101, t.size).astype(np.float32))
        else:
            flat.append(storage.rounded(t.dtype, rng.standard_normal(t.size).astype(np.float32)))
    return ModelState.of_base(manifest_for(SCHEMA, flat, **NO_FILE, exponents={}, exact=all_exact), flat)


BASE = base()


def fully(state: ModelState) -> RootParts:
    """Return what the root is made of, all of it hashed anew."""
    return root_parts(SCHEMA, state.weights, state.exponents, {t: state.integers[t] for t in state.manifest.kept})


def moved(state: ModelState, rng: np.random.Generator, tensors: list[int], count: int) -> tuple[AnySection, ...]:
    """Return sections that move so many entries of some tensors by a little."""
    out: list[AnySection] = []
    for t in sorted(tensors):
        spec = SCHEMA.tensors[t]
        q = np.zeros(spec.size, np.int64)
        at = rng.choice(spec.size, min(count, spec.size), replace=False)
        if state.manifest.exact(t):
            after = state.weights[t].copy()
            after[at] = storage.rounded(spec.dtype, after[at] + np.float32(0.5))
            section: AnySection | None = exact.section_of(t, spec, state.weights[t], after)
        elif state.manifest.verbatim(t):
            q[at] = rng.integers(1, 4, len(at))
            section = verbatim_section(t, q.astype(np.int32))
        else:
            q[at] = rng.choice([-1, 1], len(at))
            section = section_of(t, q, state.exponents[t])
        if section is not None:
            out.append(section)
    return tuple(out)


def sealed(state: ModelState, kind: Kind, sections: Any) -> bytes:
    m = state.manifest
    named = m.commit if kind is Kind.SNAPSHOT else b""
    header = Header(kind, "pi-7", "m", 1, 1, m.commit, m.schema.id, state.root, state.fingerprint, named)
    return seal(header, sections, m.schema, KEY, FLEET_ID).data


def test_the_model_has_a_tensor_of_every_class_and_type() -> None:
    assert {*BASE.manifest.classes} == {*TensorClass}
    assert {t.dtype for t in SCHEMA.tensors} == {*Dtype}
    assert BASE.manifest.kept == (0, 3)


@pytest.mark.slow("hashes models of a megabyte whole beside each of its updates")
@settings(max_examples=25)
@given(
    st.integers(0, 1 << 32),
    st.lists(
        st.tuples(
            st.sampled_from(["sections", "container", "snapshot", "back", "refused", "unit"]),
            st.sets(st.integers(0, 7), min_size=1),
            st.sampled_from([1, 2, 30, 5000]),
        ),
        min_size=1, max_size=8,
    ),
)  # fmt: skip
def test_kept_leaves_give_the_root_that_hashing_everything_gives(seed: int, steps: list[tuple[str, set[int], int]]) -> None:
    rng = np.random.default_rng(seed)
    state = BASE.at_base()
    state.keep_leaves()
    plain = BASE.at_base()
    for way, tensors, count in steps:
        sections = moved(state, rng, [*tensors], count)
        if way == "back":  # there and back: what was touched is hashed again, and comes out as it was
            before = state.root
            for part in (sections, invert(sections)):
                state.apply(Kind.DELTA, part)
            assert state.root == before
            continue
        if way == "refused":
            with pytest.raises(ModelWireError):
                state.apply(Kind.DELTA, sections, expect=(1, 2))
        elif way == "unit":
            kind: Kind = Kind.SNAPSHOT
            whole = (*(s for s in state.snapshot() if s.tensor != 7), empty(7, BASE.exponents[7] + 1))
            state.apply(kind, whole)
            plain.apply(kind, whole)
        else:
            plain.apply(Kind.DELTA, sections)
            kind, said = (Kind.SNAPSHOT, plain.snapshot()) if way == "snapshot" else (Kind.DELTA, sections)
            if way == "sections":
                state.apply(kind, said)
            else:
                state.apply_container(parse(sealed(plain, kind, said)))
        assert state.root_parts == fully(state) == fully(plain) == plain.root_parts
        assert state == plain


def test_a_base_that_is_all_exact_is_hashed_by_what_its_planes_change() -> None:
    state, plain = base(all_exact=True), base(all_exact=True)
    state.keep_leaves()
    for n in range(3):
        weights = [w.copy() for w in state.weights]
        weights[4][n] += np.float32(1)
        sections = exact_sections(state, weights)
        plain.apply(Kind.EXACT, sections)
        state.apply_container(parse(sealed(plain, Kind.EXACT, sections)))
        assert state.root_parts == fully(plain)


def test_a_root_hashes_the_leaves_that_an_update_touched_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    state, plain = BASE.at_base(), BASE.at_base()
    state.keep_leaves()
    assert state.root == BASE.root
    hashed: list[int] = []

    def counted(piece: bytes | memoryview) -> bytes:
        hashed.append(len(piece))
        return merkle.leaf(piece)

    monkeypatch.setattr(identity, "leaf", counted)
    f32, f16 = SCHEMA.index("f32"), SCHEMA.index("f16")
    one = np.ones(1, np.int32)
    sections = (Section(f16, np.array([70_000], np.uint32), one, 1, BASE.exponents[f16]),
                Section(f32, np.array([20_000], np.uint32), one, 1, BASE.exponents[f32]))  # fmt: skip
    plain.apply(Kind.DELTA, sections)
    data = sealed(plain, Kind.DELTA, sections)
    hashed.clear()
    state.apply_container(parse(data))
    assert state.root == parse(data).header.root
    # One leaf of each tensor as it is stored, and one of the Q of the short float: the last ones are not full.
    assert sorted(hashed) == sorted([65_536, 2 * 70_001 - 2 * 65_536, 4 * 70_001 - 4 * 65_536])
    hashed.clear()
    assert state.root == parse(data).header.root
    assert not hashed
