"""Which key speaks for a device, and what numbers a device can go on from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelwire.errors import BadSignature, Malformed, UnknownDevice, WrongFleet, WrongRole
from modelwire.wire import devices, records
from modelwire.wire.records import Enrol, Hello, Presence, Record, Report, Response, Welcome
from modelwire.wire.signing import PrivateKey, Role
from modelwire.wire.welcome import EPOCHS, VERSIONS, check_numbers
from tests import keys
from tests.modelwire.wire.examples import DEVICE, example

STRANGER = PrivateKey(b"\x66" * 32)


def said(record: Record, key: PrivateKey = DEVICE, fleet: bytes = keys.FLEET_ID, role: Role = Role.DEVICE) -> records.Signed:
    return records.parse(records.encode(record, key, fleet, role=role))


@pytest.mark.parametrize("kind", [Hello, Enrol])
def test_who_says_who_it_is_signs_by_the_key_that_it_names(kind: type[Record]) -> None:
    devices.verify(said(example(kind)), (), keys.FLEET_ID)
    for known in ((), (STRANGER.public,)):
        with pytest.raises(BadSignature):
            devices.verify(said(example(kind), STRANGER), known, keys.FLEET_ID)


@pytest.mark.parametrize("kind", [Presence, Response, Report])
def test_all_else_is_signed_by_a_key_that_is_known(kind: type[Record]) -> None:
    devices.verify(said(example(kind)), (STRANGER.public, DEVICE.public), keys.FLEET_ID)
    for known in ((), (STRANGER.public,)):
        with pytest.raises(UnknownDevice, match="pi-7"):
            devices.verify(said(example(kind)), known, keys.FLEET_ID)


def test_role_and_fleet_come_before_every_key() -> None:
    for known in ((), (DEVICE.public,)):
        with pytest.raises(WrongFleet):
            devices.verify(said(example(Response), fleet=bytes(16)), known, keys.FLEET_ID)
        with pytest.raises(WrongRole):
            devices.verify(said(example(Response), keys.RECEIPT, role=Role.RECEIPT), known, keys.FLEET_ID)


def test_a_welcome_leaves_room_to_count_on() -> None:
    welcome = example(Welcome)
    assert isinstance(welcome, Welcome)
    check_numbers(replace(welcome, epoch=EPOCHS - 1, version=VERSIONS - 1))
    for beyond in ({"epoch": EPOCHS}, {"version": VERSIONS}):
        with pytest.raises(Malformed):
            check_numbers(replace(welcome, **beyond))  # type: ignore[arg-type]
