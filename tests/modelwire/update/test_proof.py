"""What is left when content is gone still proves: headers and two digests a history, the weights node a bare model file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelwire.errors import BadSignature, DigestMismatch, Malformed, ModelWireError, RootMismatch, TooLarge, UnknownParent
from modelwire.identity import RootParts, parse_root_parts, weights_node
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.tflite.file import parse_trainable, read_tensors, write_weights
from modelwire.update.container import parse
from modelwire.update.manifest import manifest_of
from modelwire.update.proof import HeaderProof, check_chain, header_proof, parse_header_proof
from modelwire.update.sections import Kind
from modelwire.wire.signing import PrivateKey
from tests.keys import FLEET_ID
from tests.modelwire.models import KEY, model, noisy, sealed

TINY = Path(__file__).parents[2] / "models" / "tiny.tflite"


def chain(length: int = 20) -> tuple[ModelState, list[bytes]]:
    """Return a base and containers that follow from it, a snapshot among them."""
    manifest, base = model(0)
    state = start = ModelState.of_base(manifest, base)
    residual, parent, out = no_residual(manifest), manifest.commit, []
    for version in range(1, length + 1):
        snapped = snap(state, noisy(state, version, 0.01), residual, density=0.05, max_bytes=1 << 20)
        state = snapped.state
        kind, sections = (Kind.SNAPSHOT, state.snapshot()) if version == 7 else (Kind.DELTA, snapped.sections)
        extension = {"samples": version} if version % 2 else {}
        out.append(sealed(state, sections, kind=kind, version=version, parent=parent, extension=extension))
        parent = parse(out[-1]).commit
    return start, out


def proofs_of(containers: list[bytes]) -> list[HeaderProof]:
    return [parse_header_proof(header_proof(data)) for data in containers]


def test_a_thinned_chain_of_twenty_versions_is_proven_by_headers_and_digests_alone() -> None:
    start, containers = chain()
    left = [header_proof(data) for data in containers]
    proofs = [parse_header_proof(data) for data in left]
    assert all(len(data) < 400 for data in left)
    for proof, data in zip(proofs, containers, strict=True):
        whole = parse(data)
        assert (proof.commit, proof.signature, proof.name) == (whole.commit, whole.signature, whole.name)
        assert proof.header == replace(whole.header, extension={})
    assert check_chain(proofs, start.manifest.commit, KEY.public, FLEET_ID) == parse(containers[-1]).commit


def test_a_chain_with_a_gap_a_swap_or_another_signer_is_refused() -> None:
    start, containers = chain(5)
    good = proofs_of(containers)
    base = start.manifest.commit
    for broken in (good[1:], [good[0], *good[2:]], [good[1], good[0]]):
        with pytest.raises(UnknownParent):
            check_chain(broken, base, KEY.public, FLEET_ID)
    with pytest.raises(BadSignature):
        check_chain(good, base, PrivateKey(bytes(32)).public, FLEET_ID)
    with pytest.raises(BadSignature):
        check_chain(good, base, KEY.public, bytes(16))
    with pytest.raises(BadSignature):
        check_chain([replace(good[0], signature=bytes(64))], base, KEY.public, FLEET_ID)


def test_every_bit_of_a_header_proof_counts() -> None:
    _, (data,) = chain(1)
    good = header_proof(data)
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        with pytest.raises(ModelWireError):
            parse_header_proof(bytes(bad)).verify(KEY.public, FLEET_ID)
    for short in (good[:-1], good + b"\0", good[:100], b""):
        with pytest.raises(Malformed):
            parse_header_proof(short)
    with pytest.raises(TooLarge):
        parse_header_proof(good + bytes(3000))
    with pytest.raises(DigestMismatch):
        header_proof(data[:-70] + b"\0" + data[-69:])


def test_a_bare_model_file_is_proven_by_the_weights_node() -> None:
    file = TINY.read_bytes()
    manifest = manifest_of(file)
    schema, flat = read_tensors(parse_trainable(file))
    state = ModelState.of_base(manifest, flat)
    snapped = snap(state, noisy(state, 3, 0.01), no_residual(manifest), density=0.5, max_bytes=1 << 20)
    served = write_weights(file, snapped.state.named())
    said = snapped.state.root_parts.encode()  # what the centre says beside a version's root

    parts = parse_root_parts(said)
    parts.prove(snapped.state.root)
    _, found = read_tensors(parse_trainable(served))
    assert parts.weights == weights_node(schema, found) != weights_node(schema, flat)
    with pytest.raises(RootMismatch):
        parts.prove(manifest.root)
    for other in (
        replace(parts, weights=weights_node(schema, flat)), replace(parts, schema_id=bytes(32)), replace(parts, integers=bytes(32)),
        replace(parts, units=(parts.units[0] + 1, *parts.units[1:])),
    ):  # fmt: skip
        with pytest.raises(RootMismatch):
            other.prove(snapped.state.root)
    assert parse_root_parts(RootParts(bytes(32), bytes(32), (-96, 100), bytes(32)).encode()).units == (-96, 100)
    for bad in (said[:96], b"\x02" + said[1:], b""):
        with pytest.raises(Malformed):
            parse_root_parts(bad)
