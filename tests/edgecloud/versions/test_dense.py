"""Dense kept states: every snapshot comes back as it was, and nothing else is read as one."""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace
from typing import cast
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.registry import LineageRow, VersionRow
from edgecloud.versions import dense, states
from modelwire.errors import ModelWireError, RegistryDamaged
from modelwire.lattice.state import ModelState
from modelwire.tensors import Schema, TensorSpec
from modelwire.update.header import Header
from modelwire.update.manifest import Manifest, manifest_for
from modelwire.update.sections import Kind, Section, section_of
from tests.keys import NO_FILE

SCHEMA = Schema((TensorSpec("kernel", (24, 40)), TensorSpec("last", (40,)), TensorSpec("other", (7,))))
WEIGHTS = [np.random.default_rng(4).standard_normal(spec.size).astype(np.float32) for spec in SCHEMA.tensors]
MANIFEST: Manifest = manifest_for(SCHEMA, WEIGHTS, **NO_FILE, exponents={})
EVER = 1 << 30  # bytes of a usual code that is longer than any


def header_of(state: ModelState, version: int = 3) -> Header:
    return Header(
        Kind.SNAPSHOT, "car", "digits", 1, version, bytes(32), SCHEMA.id, state.root, state.fingerprint, MANIFEST.commit
    )  # fmt: skip


def sections_of(seed: int, share: float, spread: int, factor: int) -> tuple[Section, ...]:
    rng, out = np.random.default_rng(seed), []
    for t, spec in enumerate(SCHEMA.tensors):
        q = np.where(rng.random(spec.size) < share, rng.integers(-spread, spread + 1, spec.size), 0) * factor
        section = section_of(t, q.astype(np.int64), MANIFEST.exponents[t])
        out += [] if section is None else [section]
    return tuple(out)


def state_of(seed: int = 1, share: float = 0.7, spread: int = 300) -> ModelState:
    state = ModelState.of_base(MANIFEST, WEIGHTS)
    state.apply(Kind.SNAPSHOT, sections_of(seed, share, spread, 3))
    return state


@given(st.integers(0, 99), st.floats(0.2, 1), st.sampled_from((1, 2, 300, 70_000)), st.sampled_from((1, 2, 9, 24)))
@settings(max_examples=60, deadline=None)
def test_sections_come_back_as_they_were(seed: int, share: float, spread: int, factor: int) -> None:
    sections = sections_of(seed, share, spread, factor)
    data = dense.encode(header_of(ModelState.of_base(MANIFEST, WEIGHTS)), sections, SCHEMA, EVER)
    if data is None:
        assert dense.LEAST * sum(s.count for s in sections) < SCHEMA.size
        return
    assert dense.is_dense(data)
    front, found = dense.decode(data, SCHEMA)
    assert front.header.version == 3
    assert [(s.tensor, s.step, s.exponent, s.index.tolist(), s.value.tolist()) for s in found] == [
        (s.tensor, s.step, s.exponent, s.index.tolist(), s.value.tolist()) for s in sections
    ]


@pytest.mark.parametrize("value", (-(1 << 31), (1 << 31) - 1, 1, -1))
def test_the_largest_numbers_come_back(value: int) -> None:
    section = Section(0, np.arange(SCHEMA.tensors[0].size, dtype=np.uint32), np.full(SCHEMA.tensors[0].size, value, np.int32), 1, 0)
    data = dense.encode(header_of(ModelState.of_base(MANIFEST, WEIGHTS)), (section,), SCHEMA, EVER)
    assert data is not None
    (found,) = dense.decode(data, SCHEMA)[1]
    assert (found.value == value).all()


def test_a_state_that_moved_in_few_weights_or_would_grow_by_more_than_an_eighth_keeps_the_usual_code() -> None:
    few, header = sections_of(2, 0.05, 9, 1), header_of(state_of())
    assert dense.encode(header, few, SCHEMA, EVER) is None
    many = sections_of(2, 0.9, 300, 1)
    data = dense.encode(header, many, SCHEMA, EVER)
    assert data is not None
    assert dense.encode(header, many, SCHEMA, len(data) * 8 // 9 + 1) == data
    assert dense.encode(header, many, SCHEMA, len(data) * 8 // 9 - 1) is None


def kept(state: ModelState) -> tuple[bytes, LineageRow, VersionRow]:
    """Return a state in the dense code, with the rows that it is kept for."""
    lineage = LineageRow(1, "car", "digits", 3)
    named = SimpleNamespace(
        epoch=1, version=3, parent=bytes(32), root=state.root, base=MANIFEST.commit, fingerprint=struct.pack("<QQ", *state.fingerprint)
    )
    version = cast(VersionRow, named)
    with mock.patch.object(dense, "LONGER", 1):  # of so small a model the front is much of it
        data = states.encode(state, lineage, version)
    assert dense.is_dense(data)
    return data, lineage, version


def test_a_kept_state_gives_the_very_state() -> None:
    state = state_of()
    data, lineage, version = kept(state)
    found = states.decode(data, ModelState.of_base(MANIFEST, WEIGHTS), lineage, version, "here")
    assert found == state and found.root == state.root and found.fingerprint == state.fingerprint


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_what_was_damaged_is_refused_or_the_same_state(data: st.DataObject) -> None:
    state = state_of()
    whole, lineage, version = kept(state)
    bad = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(bad[: data.draw(st.integers(0, len(bad)) | st.just(len(bad)))])
    fresh = ModelState.of_base(MANIFEST, WEIGHTS)
    try:
        found = states.decode(cut, fresh, lineage, version, "here")
    except RegistryDamaged as error:
        assert "car" in error.message or "here" in error.message or "kept state" in error.message
    else:
        assert found.fingerprint == state.fingerprint and (found.root == state.root) is (found == state)


def test_parts_that_unpack_to_more_than_the_model_take_no_memory_for_it() -> None:
    data, *_ = kept(state_of())
    front, at = struct.unpack_from("<I", data, 4)[0], 8
    at += front
    rows = struct.unpack_from("<H", data, at)[0]
    at += 2 + 9 * rows
    lengths = list(struct.unpack_from("<5I", data, at))
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = bomb.compress(bytes(1 << 24)) + bomb.flush()
    rest = data[at + 20 + lengths[0] :]
    lengths[0] = len(part)
    made = data[:at] + struct.pack("<5I", *lengths) + part + rest
    with pytest.raises(ModelWireError, match="not as long as it should be"):
        dense.decode(made, SCHEMA)


def test_a_number_that_comes_round_to_zero_is_refused() -> None:
    state = state_of(share=1.0)
    data, *_ = kept(state)
    front, at = struct.unpack_from("<I", data, 4)[0], 8
    at += front
    rows = struct.unpack_from("<H", data, at)[0]
    total = sum(struct.unpack_from("<HBBbI", data, at + 2 + 9 * k)[-1] for k in range(rows))
    at += 2 + 9 * rows
    bits = data[at + 20 : at + 20 + struct.unpack_from("<I", data, at)[0]]
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    ones = made.compress(b"\xff" * total) + made.flush()
    bad = data[:at] + struct.pack("<5I", len(bits), *([len(ones)] * 4)) + bits + 4 * ones
    with pytest.raises(ModelWireError, match="a number is 0"):
        dense.decode(bad, SCHEMA)
