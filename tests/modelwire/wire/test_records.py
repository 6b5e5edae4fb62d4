"""Records have one form each, and every other form is refused; a record of one role or fleet is never taken for another's."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from modelwire import limits
from modelwire.errors import BadSignature, Malformed, ModelWireError, NotUnderstood, TooLarge, WrongFleet, WrongRole
from modelwire.wire import cbor, records
from modelwire.wire.records import Command, Receipt, Record, Unknown, Wanted
from modelwire.wire.signing import PrivateKey, Role
from tests.keys import FLEET_ID
from tests.modelwire.wire.examples import DAY, DEVICE, EXAMPLES, KEYS, WHO, example

OTHER = bytes(16)
CASES = [(record, role) for record in EXAMPLES for role in record.ROLES]


def encoded(record: Record, role: Role | None = None, fleet: bytes = FLEET_ID) -> bytes:
    role = role or record.ROLES[0]
    return records.encode(record, KEYS[role], fleet, role=role)


def forged(values: dict[str, cbor.Value], role: int = Role.COMMAND, key: PrivateKey | None = None, domain: bytes | None = None) -> bytes:
    """Return a record with a good signature, whatever it says."""
    content = cbor.encode(values)
    body = struct.pack("<4sBBH16s", records.MAGIC, 1, role, len(content), FLEET_ID) + content
    known = Role(role) if role in tuple(Role) else Role.DEVICE
    return body + (key or KEYS[known]).sign(domain or known.domain, FLEET_ID, body)


def said(record: Record) -> dict[str, cbor.Value]:
    top = cbor.decode(encoded(record)[24:-64])
    assert isinstance(top, dict)
    return top


@pytest.mark.parametrize(("record", "role"), CASES, ids=lambda v: v.KIND if isinstance(v, Record) else v.name)
def test_a_record_reads_back_and_proves_its_signer(record: Record, role: Role) -> None:
    signed = records.parse(encoded(record, role))
    assert signed.record == record and signed.role is role
    signed.verify(KEYS[role].public, FLEET_ID, "who", role)
    with pytest.raises(BadSignature):
        signed.verify(PrivateKey(bytes(32)).public, FLEET_ID, "who", role)
    with pytest.raises(WrongFleet):
        signed.verify(KEYS[role].public, OTHER, "who", role)
    for other in set(Role) - {role}:  # a device's key that says it is the centre
        with pytest.raises(WrongRole):
            signed.verify(KEYS[role].public, FLEET_ID, "who", other)


def test_there_is_an_example_of_every_kind() -> None:
    assert {type(record) for record in EXAMPLES} == set(records.KINDS.values())


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda r: r.KIND)
def test_a_changed_record_is_refused(record: Record) -> None:
    data = encoded(record)
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 0x10
        with pytest.raises(ModelWireError):
            signed = records.parse(bytes(bad))
            signed.verify(KEYS[record.ROLES[0]].public, FLEET_ID, "who", record.ROLES[0])


def test_no_role_speaks_for_another_and_no_fleet_for_a_namesake() -> None:
    """Every record, said again in every other role, by every key, in another fleet: none is taken."""
    tried = 0
    for record in EXAMPLES:
        for role in Role:
            for signer in Role:
                data = forged(said(record), role, KEYS[signer])
                good = role in record.ROLES and KEYS[signer] is KEYS[role]
                tried += 1
                if role not in record.ROLES:
                    with pytest.raises(WrongRole):
                        records.parse(data)
                elif good:
                    records.parse(data).verify(KEYS[role].public, FLEET_ID, "who", role)
                else:
                    with pytest.raises(BadSignature):
                        records.parse(data).verify(KEYS[role].public, FLEET_ID, "who", role)
                if not good:
                    continue
                for domain in Role:  # the envelope says one role, the signature was made for another
                    if domain is not role:
                        with pytest.raises(BadSignature):
                            records.parse(forged(said(record), role, domain=domain.domain)).verify(KEYS[role].public, FLEET_ID, "who", role)
    assert tried == len(EXAMPLES) * len(Role) ** 2


@pytest.mark.parametrize(
    "changes",
    [{"device": "Pi 7"}, {"device": "../x"}, {"epoch": -1}, {"commit": b"short"}, {"reason": "x" * 1001}, {"good": b"1"},
     {"reason": "a\nb"}, {"model": ""}, {"version": 1 << 63}, {"device": "all"}, {"model": "all"}, {"more": {"!": 1}}],
)  # fmt: skip
def test_a_field_out_of_range_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises((Malformed, NotUnderstood)):
        encoded(replace(example(Receipt), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [{"number": "7"}, {"number": True}, {"number": 0}, {"verb": None}, {"extra": 1}, {"at": 1.0}, {"body": []}, {"state": b"1"},
     {"parent": bytes(31)}, {"more": {}}, {"more": 7}, {"kind": 7}],
)  # fmt: skip
def test_a_record_with_a_wrong_type_missing_or_unknown_field_is_refused(changes: dict[str, cbor.Value]) -> None:
    values = said(example(Command))
    assert records.parse(forged(values)).record == example(Command)
    with pytest.raises(Malformed):
        records.parse(forged(values | changes))
    for name in sorted(values):
        with pytest.raises(Malformed):
            records.parse(forged({key: value for key, value in values.items() if key != name}))


def test_what_later_releases_say_is_kept_unless_it_must_be_understood() -> None:
    values = said(example(Command))
    assert records.parse(forged(values | {"more": {"new": [1]}})).record.more == {"new": [1]}
    with pytest.raises(NotUnderstood, match="!new"):
        records.parse(forged(values | {"more": {"!new": 1, "old": 2}}))


def test_a_kind_that_is_not_known_can_be_answered() -> None:
    common: dict[str, cbor.Value] = {"kind": "order-66", "fleet": "demo", "device": "pi-7", "model": "digits", "at": 5}
    signed = records.parse(forged(common | {"number": 9, "whatever": [1, 2]}))
    assert signed.record == Unknown("demo", "pi-7", "digits", 5, "order-66", 9)
    signed.verify(KEYS[Role.COMMAND].public, FLEET_ID, "who", Role.COMMAND)
    assert records.parse(forged(common)).record == Unknown("demo", "pi-7", "digits", 5, "order-66", 0)
    assert records.parse(forged(common | {"number": "nine"})).record == Unknown("demo", "pi-7", "digits", 5, "order-66", 0)
    for changes in ({"device": "../x"}, {"at": "now"}, {"kind": "a\nb"}, {"kind": "k" * 65}):
        with pytest.raises(Malformed):
            records.parse(forged(common | changes))
    with pytest.raises(NotUnderstood):
        records.parse(forged(common | {"more": {"!x": 1}}))


def test_a_role_that_is_none_is_refused() -> None:
    for role in (0, 7, 255):
        with pytest.raises(Malformed, match="no role"):
            records.parse(forged(said(example(Command)), role))
    with pytest.raises(WrongRole):
        records.encode(example(Command), DEVICE, FLEET_ID, role=Role.DEVICE)


def test_a_record_that_no_reader_takes_is_not_written() -> None:
    for n in (limits.DEFAULT.record, 1 << 16, 1 << 17):
        with pytest.raises(TooLarge):
            encoded(Wanted(*WHO, DAY, bytes(n)))


def test_a_critical_key_comes_before_the_fields_in_every_kind() -> None:
    for kind in ("hello", "tomorrow"):
        with pytest.raises(NotUnderstood):
            records.parse(forged({"kind": kind, "more": {"!x": 1}}, Role.DEVICE))
