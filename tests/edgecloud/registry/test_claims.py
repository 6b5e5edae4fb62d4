"""What the command key seals about who may enrol is read back whole, and is worth nothing changed, elsewhere, or by another key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgecloud.registry import claims, statements
from edgecloud.registry.claims import SERIALS_MAX, Statement, Withdrawal, check, prove, read, read_withdrawal, seal, withdraw
from modelwire.errors import BadSignature, Malformed, TooLarge, WireError
from modelwire.wire import cbor
from modelwire.wire.claims import read_token, write_token
from modelwire.wire.signing import PrivateKey
from tests.keys import COMMAND, FLEET_ID, RECEIPT, ROOT

ID, SEED = bytes(range(16)), bytes([0xC1]) * 32
TOKEN = read_token(write_token(ID, SEED), "claim")
DEVICE = PrivateKey(bytes(range(32)))
SAID = Statement(ID, TOKEN.key.public, 2, 2000, ("a-1", "a-2", "a-3"), 1000)
KEYS = (ROOT.public, COMMAND.public)


def test_a_statement_reads_back_as_it_was_sealed() -> None:
    for said in (SAID, replace(SAID, serials=()), replace(SAID, count=3), replace(SAID, expiry=1000)):
        sealed = seal(said, COMMAND, FLEET_ID)
        assert read(sealed, FLEET_ID, KEYS) == said
        assert SEED not in sealed


def test_a_long_list_of_serial_numbers_is_held() -> None:
    serials = tuple(f"{n:064}" for n in range(SERIALS_MAX))
    said = replace(SAID, serials=serials, count=SERIALS_MAX)
    assert read(seal(said, COMMAND, FLEET_ID), FLEET_ID, KEYS) == said


def test_every_flipped_byte_of_a_statement_is_refused() -> None:
    sealed = seal(SAID, COMMAND, FLEET_ID)
    for place in range(len(sealed)):
        with pytest.raises(BadSignature):
            read(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :], FLEET_ID, KEYS)
    for length in range(len(sealed)):
        with pytest.raises(BadSignature):
            read(sealed[:length], FLEET_ID, KEYS)


def test_only_a_command_key_of_this_fleet_gives_and_takes_claims() -> None:
    for key, fleet, keys in ((RECEIPT, FLEET_ID, KEYS), (COMMAND, bytes(16), KEYS), (COMMAND, FLEET_ID, (RECEIPT.public,)),
                             (COMMAND, FLEET_ID, ()), (TOKEN.key, FLEET_ID, KEYS)):  # fmt: skip
        with pytest.raises(BadSignature):
            read(seal(SAID, key, fleet), FLEET_ID, keys)
        with pytest.raises(BadSignature):
            read_withdrawal(withdraw(Withdrawal(ID, 1), key, fleet), FLEET_ID, keys)


def test_a_withdrawal_is_no_statement_and_a_statement_no_withdrawal() -> None:
    taken = Withdrawal(ID, 1500)
    sealed = withdraw(taken, COMMAND, FLEET_ID)
    assert read_withdrawal(sealed, FLEET_ID, KEYS) == taken
    with pytest.raises(BadSignature):
        read(sealed, FLEET_ID, KEYS)
    with pytest.raises(BadSignature):
        read_withdrawal(seal(SAID, COMMAND, FLEET_ID), FLEET_ID, KEYS)
    for bad in (Withdrawal(ID[1:], 1), Withdrawal(ID, -1)):
        with pytest.raises(Malformed):
            read_withdrawal(withdraw(bad, COMMAND, FLEET_ID), FLEET_ID, KEYS)


WRONG: list[dict[str, Any]] = [
    {"id": b""}, {"id": bytes(17)}, {"public": bytes(31)}, {"count": 0}, {"count": -1}, {"count": 4}, {"count": 1_000_001, "serials": ()},
    {"expiry": 999}, {"expiry": 1 << 63}, {"at": -1}, {"serials": ("b", "a")}, {"serials": ("a", "a")}, {"serials": ("",) * 2},
    {"serials": ("a", "b" * 65)}, {"serials": ("a\n", "b")}, {"serials": ("a\u202e", "b")}, {"serials": (1, 2)}, {"serials": (b"a", b"b")},
    {"serials": tuple(f"{n:05}" for n in range(SERIALS_MAX + 1))},
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG, ids=lambda change: ",".join(change))
def test_a_statement_out_of_range_is_neither_sealed_nor_read(change: dict[str, Any]) -> None:
    said = replace(SAID, **change)
    with pytest.raises(WireError):
        seal(said, COMMAND, FLEET_ID)
    body = cbor.encode(claims._plain(said), statements._LIMIT)
    with pytest.raises(WireError):
        read(body + COMMAND.sign(claims.GIVEN, FLEET_ID, body), FLEET_ID, KEYS)


@pytest.mark.parametrize(
    "values",
    [None, [], {}, {"id": ID, "at": 1}, {**claims._plain(SAID), "more": 1}, {**claims._plain(SAID), "count": True},
     {**claims._plain(SAID), "serials": "abc"}, {**claims._plain(SAID), "id": "0" * 16}],
)  # fmt: skip
def test_a_statement_of_another_form_is_refused_though_its_signature_holds(values: cbor.Value) -> None:
    body = cbor.encode(values)
    with pytest.raises(Malformed):
        read(body + COMMAND.sign(claims.GIVEN, FLEET_ID, body), FLEET_ID, KEYS)
    with pytest.raises(TooLarge):
        read(bytes(claims.SEALED_MAX + 1), FLEET_ID, KEYS)


def test_a_proof_is_checked_against_the_statement_that_it_names() -> None:
    proof = prove(TOKEN, FLEET_ID, "pi-7", DEVICE.public, "a-2")
    check(proof, SAID, FLEET_ID, "pi-7", DEVICE.public, "a-2")
    check(proof, replace(SAID, serials=()), FLEET_ID, "pi-7", DEVICE.public, "a-2")
    none = prove(TOKEN, FLEET_ID, "pi-7", DEVICE.public, "")
    check(none, replace(SAID, serials=()), FLEET_ID, "pi-7", DEVICE.public, "")
    for said, device, key, serial in (
        (SAID, "pi-8", DEVICE.public, "a-2"), (SAID, "pi-7", COMMAND.public, "a-2"), (SAID, "pi-7", DEVICE.public, "a-1"),
        (replace(SAID, id=bytes(16)), "pi-7", DEVICE.public, "a-2"), (replace(SAID, public=DEVICE.public), "pi-7", DEVICE.public, "a-2"),
    ):  # fmt: skip
        with pytest.raises(BadSignature):
            check(proof, said, FLEET_ID, device, key, serial)
    for serial in ("a-4", ""):
        with pytest.raises(Malformed, match="none that it lists"):
            check(prove(TOKEN, FLEET_ID, "pi-7", DEVICE.public, serial), SAID, FLEET_ID, "pi-7", DEVICE.public, serial)


def test_who_knows_the_id_alone_proves_nothing() -> None:
    guessed = read_token(write_token(ID, bytes(32)), "claim")
    for proof in (ID + bytes(64), prove(guessed, FLEET_ID, "pi-7", DEVICE.public, "a-2")):
        with pytest.raises(BadSignature):
            check(proof, SAID, FLEET_ID, "pi-7", DEVICE.public, "a-2")
