"""Transfers in parts that find no room, come before a hello, are cut anew, stolen, or rest for long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgecloud.intake.decision import Bounds, Result
from edgecloud.registry import SqliteStore
from modelwire.wire import parts
from modelwire.wire.records import Level, Wanted
from tests.edgecloud.centre import Centre, admit
from tests.edgecloud.device import BULK, PART, Base, ScriptedDevice


def wanted(centre: Centre, count: int) -> list[int]:
    (said,) = [r for r in centre.said() if isinstance(r, Wanted)]
    return parts.missing(said.have, count)


def test_an_orphan_in_parts_that_found_no_room_is_taken_when_its_parent_has_come(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(parked_bytes=1000))
    device = centre.meet(ScriptedDevice(base))
    first, second = device.train(extension=BULK), device.snapshot(extension=BULK)
    _, manifest, pieces = device.transfer(second, PART)
    centre.take(manifest)
    assert [centre.take(p).result for p in pieces][-1] is Result.DROPPED
    centre.deliver(device, first)
    centre.said()
    again = [centre.take(manifest)] + [centre.take(pieces[i]) for i in wanted_or_nothing(centre, len(pieces))]
    assert Result.STORED in [o.result for o in again]
    assert centre.head(device) == second.version and store.transfers.all() == []


def wanted_or_nothing(centre: Centre, count: int) -> list[int]:
    said = [r for r in centre.said() if isinstance(r, Wanted)]
    return parts.missing(said[-1].have, count) if said else []


def test_an_update_in_parts_before_any_hello_is_taken_after_it(centre: Centre, base: Base) -> None:
    device = ScriptedDevice(base)
    admit(centre.store, device.name, device.key.public, 1)
    device.epoch = 1
    sent = device.train(extension=BULK)
    _, manifest, pieces = device.transfer(sent, PART)
    for message in (manifest, *pieces):
        centre.take(message)
    centre.greet(device)
    centre.said()
    again = [centre.take(manifest)] + [centre.take(pieces[i]) for i in wanted_or_nothing(centre, len(pieces))]
    assert Result.STORED in [o.result for o in again]


@pytest.mark.parametrize("other", [PART + 1024, PART + 5000])
def test_a_device_that_cuts_an_update_anew_is_asked_for_the_new_parts(centre: Centre, device: ScriptedDevice, other: int) -> None:
    sent = device.train(extension=BULK)
    _, manifest, pieces = device.transfer(sent, PART)
    centre.take(manifest)
    centre.take(pieces[-1])
    centre.said()
    said, manifest, pieces = device.transfer(sent, other)
    centre.take(manifest)
    assert wanted(centre, parts.count(said)) == list(range(len(pieces)))
    assert [centre.take(p).result for p in pieces][-1] is Result.STORED


def test_a_device_can_not_hold_up_the_transfer_of_another(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    thief = centre.meet(ScriptedDevice(base, name="pi-8"))
    said, manifest, pieces = device.transfer(device.train(extension=BULK), PART)
    stolen = replace(said, device="pi-8", tree=bytes(32))
    centre.take(thief.say("part", stolen))
    centre.take(manifest)
    centre.take(thief.say("part", stolen))
    assert [centre.take(p).result for p in pieces][-1] is Result.STORED


def test_a_transfer_that_rests_makes_room_when_all_places_are_taken(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(transfers_total=2))
    devices = [centre.meet(ScriptedDevice(base, name=f"pi-{n}")) for n in range(4)]
    opened = [d.transfer(d.train(extension=BULK), PART) for d in devices]
    for _, manifest, _ in opened[:2]:
        centre.take(manifest)
    centre.now += 3600
    centre.take(opened[1][2][0])  # this one goes on, the first one has left
    assert centre.take(opened[2][1]).result is Result.NOTED
    assert centre.take(opened[3][1]).result is Result.DROPPED
    assert [t.device for t in store.transfers.all()] == ["pi-1", "pi-2"]


def test_what_follows_an_update_in_parts_waits_as_long_as_parts_come(centre: Centre, device: ScriptedDevice) -> None:
    first, second = device.snapshot(extension=BULK), device.train(extension=BULK)
    _, manifest, pieces = device.transfer(first, PART)
    centre.take(manifest)
    centre.deliver(device, second)
    for piece in pieces:  # a slow link: each part takes most of a minute
        centre.now += 50
        (outcome,) = centre.deliver(device, second)
        assert outcome.result is Result.PARKED
        centre.take(piece)
    assert centre.receipts()[-2:] == [(1, Level.STORED), (2, Level.STORED)]


def test_bytes_that_another_device_sent_as_its_own_are_still_taken_from_their_own_device(
    centre: Centre, device: ScriptedDevice, base: Base
) -> None:
    """A registered device that has seen another's container on the broker can send it as its own; it only harms itself."""
    thief = centre.meet(ScriptedDevice(base, name="pi-8"))
    said, manifest, pieces = device.transfer(device.train(extension=BULK), PART)
    stolen = replace(said, device="pi-8")
    centre.take(thief.say("part", stolen))
    for _, data in pieces:
        centre.take((thief.topic("part"), data))
    assert "came on" in centre.store.refusals.last(1)[0].reason
    centre.take(manifest)
    assert [centre.take(p).result for p in pieces][-1] is Result.STORED
