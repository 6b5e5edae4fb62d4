"""A claim's token is read by its kind alone, and what it proves holds for one device, one key and one serial number of one fleet."""

from __future__ import annotations

import hashlib

import pytest

from modelwire.errors import BadSignature, Malformed, WrongKeyKind
from modelwire.wire.claims import PROOF_BYTES, claim_id, prove, read_token, verify, write_token
from modelwire.wire.keys import KeyKind, read_key, write_key
from modelwire.wire.records import Enrol, encode
from modelwire.wire.signing import PrivateKey
from tests.keys import FLEET_ID

ID, SEED = bytes(range(16)), bytes([0xC1]) * 32
LINE = write_token(ID, SEED)
TOKEN = read_token(LINE, "claim")
DEVICE = PrivateKey(bytes(range(32)))


def test_a_token_reads_back_as_it_was_written() -> None:
    assert f"edge-claim:{(ID + SEED).hex()}" == LINE and len(LINE) == len("edge-claim:") + 96
    assert (TOKEN.id, TOKEN.key.public) == (ID, PrivateKey(SEED).public)
    assert read_token(f" \t{LINE}\r\n", "claim").id == ID


@pytest.mark.parametrize("kind", KeyKind, ids=lambda kind: kind.prefix)
def test_a_key_is_no_token_and_a_token_no_key(kind: KeyKind) -> None:
    with pytest.raises(WrongKeyKind, match=kind.title):
        read_token(write_key(kind, bytes(kind.value[2])), "claim")
    with pytest.raises(WrongKeyKind):
        read_key(LINE, kind, "it")


@pytest.mark.parametrize(
    "text",
    ["", ":", "edge-claim", "edge-claim:", LINE[:-1], LINE + "0", LINE[:-2], LINE.upper(), LINE.replace("c1", "C1"), LINE[:-1] + "g",
     LINE.replace(":", ": "), "\u00a0" + LINE, LINE.replace("c1c1", "c1 c1"), f"{LINE}\n{LINE}"],
)  # fmt: skip
def test_what_is_no_token_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises((WrongKeyKind, Malformed)) as refused:
        read_token(text, "claim")
    assert "c1c1c1" not in refused.value.message and "c1c1c1" not in str(refused.value.facts)


def test_a_proof_holds_for_what_it_was_given_for_alone() -> None:
    proof = prove(TOKEN, FLEET_ID, "pi-7", DEVICE.public, "00a1")
    public = TOKEN.key.public
    verify(proof, public, FLEET_ID, "pi-7", DEVICE.public, "00a1")
    assert claim_id(proof) == ID and len(proof) == PROOF_BYTES == 80
    for device, key, serial, fleet in (
        ("pi-8", DEVICE.public, "00a1", FLEET_ID), ("pi-7", public, "00a1", FLEET_ID), ("pi-7", DEVICE.public, "00a2", FLEET_ID),
        ("pi-7", DEVICE.public, "", FLEET_ID), ("pi-70", DEVICE.public, "0a1", FLEET_ID), ("pi-7", DEVICE.public, "00a1", bytes(16)),
    ):  # fmt: skip
        with pytest.raises(BadSignature):
            verify(proof, public, fleet, device, key, serial)
    with pytest.raises(BadSignature):
        verify(proof, DEVICE.public, FLEET_ID, "pi-7", DEVICE.public, "00a1")


def test_every_bit_of_a_proof_counts_and_every_length_but_its_own_is_refused() -> None:
    proof = prove(TOKEN, FLEET_ID, "pi-7", DEVICE.public, "00a1")
    for bit in range(8 * len(proof)):
        flipped = bytearray(proof)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSignature):
            verify(bytes(flipped), TOKEN.key.public, FLEET_ID, "pi-7", DEVICE.public, "00a1")
    for length in [*range(len(proof)), len(proof) + 1, 256]:
        with pytest.raises(Malformed):
            verify((proof + bytes(200))[:length], TOKEN.key.public, FLEET_ID, "pi-7", DEVICE.public, "00a1")


def test_a_proof_has_the_same_bytes_in_every_release() -> None:
    proof = prove(TOKEN, FLEET_ID, "pi-7", DEVICE.public, "00a1")
    # id, then Ed25519 over "edgecloud claimed 1", 0, fleet id, id, public key, 4, "pi-7", "00a1"; computed apart.
    assert hashlib.sha256(proof).hexdigest() == "cddbd1593c212702edaddd092c86f69b1521680d9c6f8885fa5d1bd08c3acd6b"
    record = encode(Enrol("barn", "pi-7", "all", 1, DEVICE.public, proof, "00a1", "0.1.0"), DEVICE, FLEET_ID)
    assert SEED not in record, "the token stays on the board"
