"""Which keys speak for the centre: as the root has signed it, in order, with an overlap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelwire.errors import BadSignature, Malformed, WrongFleet, WrongRole
from modelwire.wire import records
from modelwire.wire.records import Trust, Welcome
from modelwire.wire.signing import PrivateKey, Role
from modelwire.wire.trust import Trusted
from tests import keys
from tests.modelwire.wire.examples import KEYS, example

NEXT = PrivateKey(b"\x11" * 32)
NEW_ROOT = PrivateKey(b"\x12" * 32)


def signed(record: Trust, key: PrivateKey = keys.ROOT, fleet: bytes = keys.FLEET_ID) -> records.Signed:
    return records.parse(records.encode(record, key, fleet))


def welcome(key: PrivateKey) -> records.Signed:
    return records.parse(records.encode(example(Welcome), key, keys.FLEET_ID))


def test_nobody_speaks_before_the_root_has_said_who() -> None:
    fresh = Trusted(keys.FLEET)
    for role in (Role.RECEIPT, Role.COMMAND, Role.DIRECTOR, Role.ACT):
        assert fresh.keys(role, 0) == ()
    with pytest.raises(BadSignature):
        fresh.verify(welcome(keys.RECEIPT), 0)


def test_another_fleet_is_named_so_by_a_device_that_believes_nobody_yet() -> None:
    other = records.parse(records.encode(example(Welcome), keys.RECEIPT, bytes(16)))
    for trusted in (Trusted(keys.FLEET), Trusted(keys.FLEET).take(signed(keys.trust("demo")))):
        with pytest.raises(WrongFleet):
            trusted.verify(other, 0)


def test_a_record_of_another_key_fleet_or_number_is_refused() -> None:
    first = Trusted(keys.FLEET).take(signed(keys.trust("demo")))
    first.verify(welcome(keys.RECEIPT), 0)
    with pytest.raises(BadSignature):
        first.take(signed(keys.trust("demo", number=2), keys.RECEIPT))
    with pytest.raises(WrongFleet):
        first.take(signed(keys.trust("demo", number=2), fleet=bytes(16)))
    for number in (1,):
        with pytest.raises(Malformed, match="does not follow"):
            first.take(signed(keys.trust("demo", number=number)))
    with pytest.raises(Malformed, match="ends before"):
        first.take(signed(keys.trust("demo", number=2, since=10, until=10)))
    with pytest.raises(BadSignature):  # a receipt key signs receipts alone
        first.verify(welcome(keys.COMMAND), 0)


def test_the_keys_before_are_good_for_the_overlap_and_no_longer() -> None:
    first = Trusted(keys.FLEET).take(signed(keys.trust("demo")))
    both = first.take(signed(replace(keys.trust("demo", number=2, since=1000, overlap=500), receipt=NEXT.public)))
    assert both.number == 2
    for time in (0, 999, 1500):
        both.verify(welcome(keys.RECEIPT), time)
        both.verify(welcome(NEXT), time)
    with pytest.raises(BadSignature):
        both.verify(welcome(keys.RECEIPT), 1501)
    both.verify(welcome(NEXT), 1501)


def test_a_record_that_has_ended_names_no_keys() -> None:
    one = Trusted(keys.FLEET).take(signed(keys.trust("demo", since=1, until=2000)))
    one.verify(welcome(keys.RECEIPT), 2000)
    with pytest.raises(BadSignature):
        one.verify(welcome(keys.RECEIPT), 2001)
    again = one.take(signed(keys.trust("demo", number=5, since=2001)))
    again.verify(welcome(keys.RECEIPT), 2001)


def test_a_new_root_is_named_by_the_old_one_and_signs_from_then_on() -> None:
    first = Trusted(keys.FLEET).take(signed(replace(keys.trust("demo"), root=NEW_ROOT.public)))
    with pytest.raises(BadSignature):
        first.take(signed(keys.trust("demo", number=2)))
    second = first.take(signed(replace(keys.trust("demo", number=3), root=NEW_ROOT.public), NEW_ROOT))
    assert (second.number, second.root) == (3, NEW_ROOT.public)


def test_a_device_never_speaks_for_the_centre() -> None:
    one = Trusted(keys.FLEET).take(signed(keys.trust("demo")))
    for role, kind in ((Role.DEVICE, records.Hello), (Role.ACT, records.Act)):
        with pytest.raises(WrongRole):
            one.verify(records.parse(records.encode(example(kind), KEYS[role], keys.FLEET_ID)), 0)
