"""Records, parts, topics and CBOR: one form each, and every other form refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire import limits
from modelwire.errors import BadSignature, DigestMismatch, Malformed, ModelWireError, TooLarge
from modelwire.wire import cbor, parts, records, topics
from modelwire.wire.records import Adopt, Command, Hello, Level, Presence, Receipt, Record, Response, Transfer, Wanted, Welcome
from modelwire.wire.signing import PrivateKey

KEY = PrivateKey(bytes(range(32)))
WHO = ("demo", "pi-7", "digits", 1_700_000_000)
EXAMPLES: list[Record] = [
    Hello(*WHO, bytes(32), bytes(16), bytes(32), 0, 0, bytes(32), "litert 2.3.0; x86_64; auto; 1 thread", "0.1.0"),
    Welcome(*WHO, bytes(16), "ok", 1, 12, bytes(32), 12, 11),
    Command(*WHO, 7, "snapshot"),
    Response(*WHO, 7, True, "queued as version 13"),
    Receipt(*WHO, 1, 12, bytes(32), Level.STORED, "", b"", 0),
    Receipt(*WHO, 1, 12, bytes(32), Level.REFUSED, "stale parent", bytes(32), 9),
    Presence(*WHO, 4, False),
    Transfer(*WHO, bytes(32), 200_000, 98_000, bytes(96)),
    Wanted(*WHO, bytes(32), b"\x05"),
    Adopt(*WHO, 8, bytes(range(200))),
]

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=300) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@given(values)
def test_cbor_reads_back_what_it_wrote(value: cbor.Value) -> None:
    try:
        data = cbor.encode(value)
    except Malformed as error:
        assert "deep" in str(error)
        return
    back = cbor.decode(data)
    assert back == value and type(back) is type(value)
    assert cbor.encode(back) == data


@settings(max_examples=500)
@given(st.binary(max_size=80))
def test_whatever_cbor_accepts_it_would_write_the_same_way(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except (Malformed, TooLarge):
        return
    assert cbor.encode(value) == data


@pytest.mark.parametrize(
    "data",
    ["1800", "190017", "5f4101ff", "a2616201616102", "a26161016161 02", "c001", "fb7ff8000000000000", "fb7ff0000000000000",
     "f93c00", "8181818181818100", "9bffffffffffffffff", "7b7fffffffffffffff", "", "0000", "a10001", "62ff00", "f7"],
)  # fmt: skip
def test_cbor_refuses_every_other_form(data: str) -> None:
    with pytest.raises((Malformed, TooLarge)):
        cbor.decode(bytes.fromhex(data))


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda r: r.KIND)
def test_a_record_reads_back_and_proves_its_signer(record: Record) -> None:
    data = records.encode(record, KEY)
    signed = records.parse(data)
    assert signed.record == record
    signed.verify(KEY.public, "pi-7")
    with pytest.raises(BadSignature):
        signed.verify(PrivateKey(bytes(32)).public, "pi-7")


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda r: r.KIND)
def test_a_changed_record_is_refused(record: Record) -> None:
    data = records.encode(record, KEY)
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 0x10
        with pytest.raises(ModelWireError):
            records.parse(bytes(bad)).verify(KEY.public, "pi-7")


@pytest.mark.parametrize(
    "changes",
    [{"device": "Pi 7"}, {"device": "../x"}, {"epoch": -1}, {"commit": b"short"}, {"reason": "x" * 1001}, {"good": b"1"},
     {"reason": "a\nb"}, {"model": ""}, {"version": 1 << 63}],
)  # fmt: skip
def test_a_field_out_of_range_is_refused(changes: dict[str, object]) -> None:
    from dataclasses import replace

    with pytest.raises(Malformed):
        records.encode(replace(EXAMPLES[4], **changes), KEY)  # type: ignore[arg-type]


def test_a_record_with_a_wrong_type_missing_or_unknown_field_is_refused() -> None:
    import struct

    def forged(**changes: cbor.Value) -> bytes:
        fields: dict[str, cbor.Value] = {
            "kind": "command", "fleet": "demo", "device": "pi-7", "model": "digits", "at": 1, "id": 7, "verb": "snapshot"
        }  # fmt: skip
        fields.update(changes)
        content = cbor.encode({k: v for k, v in fields.items() if v != "gone"})
        body = struct.pack("<4sHH", records.MAGIC, 1, len(content)) + content
        return body + KEY.sign(b"modelwire record 1\0", body)

    assert records.parse(forged()).record == Command("demo", "pi-7", "digits", 1, 7, "snapshot")
    for changes in ({"id": "7"}, {"id": True}, {"verb": "gone"}, {"extra": 1}, {"kind": "order"}, {"at": 1.0}):
        with pytest.raises(Malformed):
            records.parse(forged(**changes))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(100, 900), st.randoms())
def test_parts_join_in_any_order(size: int, part: int, rng: random.Random) -> None:
    whole = rng.randbytes(size)
    transfer = parts.describe(whole, fleet="demo", device="pi-7", model="digits", at=1, part=part)
    n = parts.count(transfer)
    order = list(range(n))
    rng.shuffle(order)
    held: dict[int, bytes] = {}
    for i in order:
        assert i in parts.missing(parts.bitmap(set(held), n), n)
        message = parts.cut(whole, transfer, i)
        assert len(message) <= part
        piece = parts.parse(message)
        parts.check(transfer, piece)
        held[piece.index] = piece.data
    assert parts.missing(parts.bitmap(set(held), n), n) == []
    assert parts.join(transfer, held) == whole
    del held[order[0]]
    with pytest.raises(Malformed):
        parts.join(transfer, held)


def test_a_part_that_is_not_the_one_named_is_refused() -> None:
    whole = bytes(1000)
    transfer = parts.describe(whole, fleet="demo", device="pi-7", model="digits", at=1, part=300)
    good = parts.parse(parts.cut(whole, transfer, 0))
    with pytest.raises(DigestMismatch):
        parts.check(transfer, parts.Part(good.id, 3, good.data))
    with pytest.raises(Malformed):
        parts.check(transfer, parts.Part(bytes(32), 0, good.data))
    with pytest.raises(Malformed):
        parts.check(transfer, parts.Part(good.id, 99, good.data))


@pytest.mark.parametrize(
    ("size", "part_size", "hashes"),
    [(0, 10, 0), (1 << 40, 10, 1), (100, 0, 1), (100, 1 << 30, 1), (100, 10, 9), (20000, 1, 20000)],
)
def test_a_transfer_whose_numbers_lie_is_refused(size: int, part_size: int, hashes: int) -> None:
    with pytest.raises((Malformed, TooLarge)):
        parts.count(Transfer(*WHO, bytes(32), size, part_size, bytes(32 * hashes)))


def test_topics_read_back() -> None:
    assert topics.up("demo", "pi-7", "digits", "update") == "e1/demo/pi-7/digits/up/update"
    t = topics.parse("e1/demo/pi-7/digits/dn/receipt")
    assert (t.fleet, t.device, t.model, t.way, t.leaf) == ("demo", "pi-7", "digits", "dn", "receipt")
    assert str(t) == "e1/demo/pi-7/digits/dn/receipt"


@pytest.mark.parametrize(
    "bad",
    ["", "e1/demo/pi-7/digits/up", "e2/demo/pi-7/digits/up/update", "e1/demo/+/digits/up/update", "e1/demo/pi-7/digits/up/receipt",
     "e1/demo/pi-7/digits/up/#", "e1/demo/PI/digits/up/update", "e1/demo/pi-7/digits/up/update/x", "e1//pi-7/digits/up/update"],
)  # fmt: skip
def test_other_topics_are_refused(bad: str) -> None:
    with pytest.raises(Malformed):
        topics.parse(bad)


def test_a_record_that_no_reader_takes_is_not_written() -> None:
    for n in (limits.DEFAULT.record, 1 << 16, 1 << 17):
        with pytest.raises(TooLarge):
            records.encode(Wanted(*WHO, bytes(32), bytes(n)), KEY)
