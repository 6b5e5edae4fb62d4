"""Records have one form each, and every other form is refused."""

from __future__ import annotations

import pytest

from modelwire import limits
from modelwire.errors import BadSignature, Malformed, ModelWireError, TooLarge
from modelwire.wire import cbor, records
from modelwire.wire.records import Command, Record, Wanted
from modelwire.wire.signing import PrivateKey
from tests.modelwire.wire.examples import EXAMPLES, WHO

KEY = PrivateKey(bytes(range(32)))


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


def test_a_record_that_no_reader_takes_is_not_written() -> None:
    for n in (limits.DEFAULT.record, 1 << 16, 1 << 17):
        with pytest.raises(TooLarge):
            records.encode(Wanted(*WHO, bytes(32), bytes(n)), KEY)
