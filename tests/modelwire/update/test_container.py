"""The container reads back exactly what was sealed, and nothing else."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire import _core
from modelwire.errors import BadSignature, DigestMismatch, Malformed, ModelWireError, NotUnderstood, TooLarge, WrongBase
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.limits import EXPONENT_MAX, Limits
from modelwire.tensors import Schema, TensorSpec
from modelwire.update.container import commit_of, parse, seal, size_of, with_extension
from modelwire.update.header import Header, commit_from
from modelwire.update.sections import Kind, Section, section_of
from modelwire.wire import cbor, signing
from tests.keys import FLEET_ID, NO_FILE
from tests.modelwire.models import KEY, empty, flat, model, noisy, sealed


def one_update(seed: int = 0) -> tuple[ModelState, tuple[Section, ...], bytes]:
    manifest, base = model(seed)
    state = ModelState.of_base(manifest, base)
    s = snap(state, noisy(state, seed, 0.01), no_residual(manifest), density=0.05, max_bytes=1 << 20)
    return s.state, s.sections, sealed(s.state, s.sections, extension={"loss_after": 0.25, "samples": 64})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_was_sealed_is_what_is_read(seed: int) -> None:
    state, sections, data = one_update(seed)
    got = parse(data)
    got.verify(KEY.public, FLEET_ID)
    assert (got.header.device, got.header.model, got.header.version) == ("pi-7", "digits", 1)
    assert got.header.root == state.root and got.header.fingerprint == state.fingerprint
    assert got.header.extension == {"loss_after": 0.25, "samples": 64}
    assert got.commit == commit_of(data) == by_hand(data)
    assert got.size == len(data)
    back = got.sections(state.manifest.schema)
    assert len(back) == len(sections)
    for a, b in zip(sections, back, strict=True):
        assert (a.tensor, a.exponent, a.dq.tolist(), a.index.tolist()) == (b.tensor, b.exponent, b.dq.tolist(), b.index.tolist())


def by_hand(data: bytes) -> bytes:
    """Return the commit as the page has it."""
    header, extension = struct.unpack_from("<II", data, 12)
    at, end = 32 + header, len(data) - 96
    parts = hashlib.sha256(data[at : at + extension]).digest() + hashlib.sha256(data[at + extension : end]).digest()
    return hashlib.sha256(b"\x04" + data[:at] + parts).digest()


def test_whoever_seals_knows_header_and_commit_without_parsing() -> None:
    state, sections, _ = one_update()
    m = state.manifest
    header = Header(Kind.DELTA, "pi-7", "digits", 1, 1, m.commit, m.schema.id, state.root, state.fingerprint, extension={"samples": 64})
    made = seal(header, sections, m.schema, KEY, FLEET_ID)
    read = parse(made.data)
    assert (made.header, made.commit) == (read.header, read.commit)


@pytest.mark.parametrize("beside", [{}, {"plan": b"x" * 48}, {"card": b"c" * 2000, "samples": 3}])
def test_another_extension_is_the_same_update_sealed_anew(beside: dict[str, cbor.Value]) -> None:
    state, sections, _ = one_update()
    schema, header = state.manifest.schema, header_of(state)
    one = seal(header, sections, schema, KEY, FLEET_ID)
    other = with_extension(one, beside, KEY, FLEET_ID)
    assert other == seal(replace(header, extension=beside), sections, schema, KEY, FLEET_ID), "as if it had been sealed so at first"
    parse(other.data).verify(KEY.public, FLEET_ID)
    assert with_extension(other, header.extension, KEY, FLEET_ID) == one


@pytest.mark.parametrize("extension", [{"!new": 1}, {"note": "x" * 20_000}])
def test_another_extension_that_no_reader_takes_is_refused(extension: dict[str, cbor.Value]) -> None:
    state, sections, _ = one_update()
    one = seal(header_of(state), sections, state.manifest.schema, KEY, FLEET_ID)
    with pytest.raises((NotUnderstood, TooLarge)):
        with_extension(one, extension, KEY, FLEET_ID)


def header_of(state: ModelState) -> Header:
    """Return the header of an update to a state, from any parent."""
    schema_id = state.manifest.schema.id
    return Header(Kind.DELTA, "pi-7", "digits", 1, 2, bytes(32), schema_id, state.root, state.fingerprint, b"", {"note": "n"})


def test_a_snapshot_names_its_base() -> None:
    state, _, _ = one_update()
    data = sealed(state, state.snapshot(), kind=Kind.SNAPSHOT)
    got = parse(data)
    assert got.header.base == state.manifest.commit
    again = ModelState.of_base(state.manifest, state.base)
    again.apply(got.header.kind, got.sections(state.manifest.schema), expect=got.header.fingerprint)
    assert again.root == state.root


def test_a_signed_update_of_one_section_costs_300_bytes_at_most_beside_its_content() -> None:
    schema = Schema((TensorSpec("w", (64, 64)),))
    base = [np.ones(64 * 64, np.float32)]
    from modelwire.update.manifest import manifest_for

    manifest = manifest_for(schema, base, **NO_FILE, exponents={})
    state = ModelState.of_base(manifest, base)
    dq = np.zeros(64 * 64, np.int64)
    dq[5] = 3
    section = section_of(0, dq, manifest.exponents[0])
    assert section is not None
    state.apply(Kind.DELTA, (section,))
    data = sealed(state, (section,))
    stream = len(parse(data).stream)
    assert len(data) - stream <= 300
    assert size_of((section,), schema) + len("pi-7digits") == len(data)


def test_another_key_or_another_use_of_the_key_is_refused() -> None:
    _state, _sections, data = one_update()
    got = parse(data)
    with pytest.raises(BadSignature):
        got.verify(signing.PrivateKey(bytes(32)).public, FLEET_ID)
    with pytest.raises(BadSignature):
        got.verify(KEY.public, bytes(16))
    body = data[:-64]
    for domain in (signing.LINK, *(role.domain for role in signing.Role)):
        with pytest.raises(BadSignature):
            parse(body + KEY.sign(domain, FLEET_ID, got.commit)).verify(KEY.public, FLEET_ID)


def test_another_schema_is_refused() -> None:
    _, _, data = one_update()
    with pytest.raises(WrongBase):
        parse(data).sections(Schema((TensorSpec("w", (2,)),)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_change_of_the_bytes_behind_the_magic_is_refused_by_a_digest(data: st.DataObject) -> None:
    _, _, good = one_update()
    at = data.draw(st.integers(8, len(good) - 65))
    bit = data.draw(st.integers(0, 7))
    bad = bytearray(good)
    bad[at] ^= 1 << bit
    with pytest.raises(DigestMismatch):
        parse(bytes(bad))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.raises(ModelWireError):
        parse(data)


def test_a_truncated_or_lengthened_container_is_refused() -> None:
    _, _, good = one_update()
    for n in (0, 1, 31, 200, len(good) - 1):
        with pytest.raises((DigestMismatch, Malformed)):
            parse(good[:n])
    with pytest.raises(Malformed, match="more than one"):
        parse(good + b"\0")


@pytest.mark.parametrize("extension", [{"!later": 1}, {"samples": 64, "!": None}])
def test_an_extension_with_a_critical_key_is_not_read_and_not_sealed(extension: dict[str, cbor.Value]) -> None:
    state, sections, data = one_update()
    with pytest.raises(NotUnderstood, match="critical key '!"):
        sealed(state, sections, extension=extension)
    header, plain = struct.unpack_from("<II", data, 12)
    content = data[32 + header + plain : -96]
    further = cbor.encode(extension)
    front = bytearray(data[: 32 + header])
    struct.pack_into("<I", front, 16, len(further))
    struct.pack_into("<I", front, 24, len(front) + len(further) + len(content) + 96)
    struct.pack_into("<I", front, 28, _core.crc32c(bytes(front[:28])))
    commit = commit_from(bytes(front), hashlib.sha256(further).digest(), hashlib.sha256(content).digest())
    with pytest.raises(NotUnderstood, match="critical key '!"):
        parse(bytes(front) + further + content + commit + bytes(64))


def test_a_container_over_the_limit_is_refused_before_it_is_hashed() -> None:
    _, _, good = one_update()
    with pytest.raises(TooLarge):
        parse(good, Limits(container=len(good) - 1))


@pytest.mark.parametrize("extension", [{"note": "x" * 20_000}, {"clamped": [1] * 4096}, {"a": [[[[1]]]]}])
def test_an_extension_that_no_reader_takes_is_not_sealed(extension: dict[str, cbor.Value]) -> None:
    manifest, base = model(0)
    with pytest.raises((TooLarge, Malformed)):
        sealed(ModelState.of_base(manifest, base), (), extension=extension)


def test_a_container_that_no_reader_takes_is_not_sealed() -> None:
    state = flat([1.0] * 4096)
    s = snap(state, noisy(state, 0, 0.1), no_residual(state.manifest), density=1.0, max_bytes=1 << 20)
    schema = state.manifest.schema
    header = Header(Kind.DELTA, "pi-7", "digits", 1, 1, state.manifest.commit, schema.id, s.state.root, s.state.fingerprint)
    size = len(seal(header, s.sections, schema, KEY, FLEET_ID).data)
    assert len(seal(header, s.sections, schema, KEY, FLEET_ID, Limits(container=size)).data) == size
    with pytest.raises(TooLarge):
        seal(header, s.sections, schema, KEY, FLEET_ID, Limits(container=size - 1))
    with pytest.raises(Malformed, match="unit"):
        seal(header, (empty(0, EXPONENT_MAX + 1),), schema, KEY, FLEET_ID)
