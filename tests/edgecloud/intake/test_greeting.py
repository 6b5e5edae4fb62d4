"""A hello opens an epoch, closes the one before, and says where the head is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from edgecloud.intake.decision import Bounds, Result
from edgecloud.intake.greeting import TRUSTS_AT_ONCE
from edgecloud.registry import SqliteStore, TrustRow
from modelwire.errors import BadSignature
from modelwire.wire.records import Level, Receipt, encode, parse
from modelwire.wire.signing import Fleet, PrivateKey
from modelwire.wire.trust import Trusted
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import FLEET, Base, ScriptedDevice
from tests.keys import FLEET as IDENTITY
from tests.keys import FLEET_ID, ROOT, trust

REFUSED = Level.REFUSED


def test_a_new_state_gets_the_next_epoch_and_closes_the_one_before(centre: Centre, device: ScriptedDevice) -> None:
    sent = [device.train() for _ in range(4)]
    centre.deliver(device, sent[0], sent[1], sent[3])
    centre.said()
    old_epoch = device.epoch
    device.reflash()
    centre.greet(device)
    said = centre.said()
    closed = [r for r in said if isinstance(r, Receipt)]
    assert [(r.version, r.level, r.reason) for r in closed] == [(4, REFUSED, "epoch 1 is closed")]
    for record in said:
        device.hear(record)
    assert (device.epoch, device.version) == (old_epoch + 1, 4)  # numbers go on after the highest ever used
    first = device.train()
    assert centre.deliver(device, first)[0].result is Result.STORED
    # What the old state had on its way is refused; what is stored stays and is still answered.
    assert centre.deliver(device, sent[2])[0].reason == "epoch 1 is closed"
    assert centre.deliver(device, sent[1])[0].result is Result.REPEATED
    centre.rebuild()
    assert centre.statuses(device) == {1: "verified", 2: "verified", 5: "verified"}


def test_a_hello_that_is_repeated_changes_nothing_and_says_where_the_head_is(centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, device.train(), device.train())
    centre.rebuild()
    centre.deliver(device, device.train())
    centre.said()
    for _ in range(3):
        assert centre.take(device.hello()).result is Result.WELCOMED
    welcomes = centre.said()
    w = welcomes[0]
    assert (w.status, w.epoch, w.version, w.head, w.head_version, w.verified) == ("ok", 1, 3, device.head, 3, 2)
    assert [(x.epoch, x.version, x.head_version) for x in welcomes] == [(1, 3, 3)] * 3


def test_an_old_state_that_speaks_again_keeps_its_closed_epoch(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    other = ScriptedDevice(base, life=1)
    centre.meet(other)
    assert other.epoch == 2
    centre.take(device.hello())
    (welcome,) = centre.said()
    assert (welcome.status, welcome.epoch) == ("ok", 1)


def test_a_device_can_not_open_models_without_end(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(models_of_device=2))
    for model in ("a", "b"):
        centre.meet(ScriptedDevice(base, model=model))
    third = ScriptedDevice(base, model="c")
    assert centre.take(third.hello()).result is Result.DROPPED
    assert [x.model for x in store.lineages.all()] == ["a", "b"]


def test_a_device_that_slept_through_a_new_root_gets_every_record_in_between(centre: Centre, device: ScriptedDevice) -> None:
    new_root = PrivateKey(b"\x21" * 32)
    second = replace(trust(FLEET, number=2), root=new_root.public)
    third = replace(trust(FLEET, number=5, since=10, overlap=20), root=new_root.public)
    for record, key in ((second, ROOT), (third, new_root)):
        centre.store.trusts.add(TrustRow(record.number, encode(record, key, FLEET_ID)))
    held = Trusted(IDENTITY).take(parse(encode(trust(FLEET), ROOT, FLEET_ID)))
    device.trust = 1
    outcome = centre.take(device.hello())
    sealed = [reply.sealed for reply in outcome.replies if reply.leaf == "trust"]
    assert [type(r.record).__name__ for r in outcome.replies] == ["Trust", "Trust", "Welcome"]  # before what rests on them
    for one in sealed:
        held = held.take(parse(one))
    assert (held.number, held.root) == (5, new_root.public)
    device.trust = 5
    assert [reply.leaf for reply in centre.take(device.hello()).replies] == ["cmd"]


def rotated(centre: Centre, changes: str) -> list[PrivateKey]:
    """Keep a trust record for each letter: of a new root key for "r", of another one for all else. Return the root keys in order."""
    roots = [ROOT]
    for number, letter in enumerate(changes, 2):
        root = PrivateKey(bytes([number]) * 32) if letter == "r" else roots[-1]
        record = replace(trust(FLEET, number=number), root=root.public, receipt=bytes([number]) * 32)
        centre.store.trusts.add(TrustRow(number, encode(record, roots[-1], FLEET_ID)))
        roots += [root] if letter == "r" else []
    return roots


def caught_up(centre: Centre, device: ScriptedDevice, held: Trusted) -> tuple[Trusted, int]:
    """Say hello until no trust record comes; return what the device holds then, and how many hellos that took."""
    for hellos in range(1, 20):
        device.trust = held.number
        told = [reply.sealed for reply in centre.take(device.hello()).replies if reply.leaf == "trust"]
        assert len(told) <= TRUSTS_AT_ONCE
        before = held
        for one in told:
            with suppress(BadSignature):  # a board with a newer fleet.pub has no use for what came before
                held = held.take(parse(one))
        if held == before:
            return held, hellos
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("changes", ["k", "kk", "k" * 20, "r", "rr", "krkrk", "r" * 20, "r" * 40, "k" * 20 + "r" + "k" * 20])
@pytest.mark.parametrize("asleep_at", [0, 1])
def test_a_device_catches_up_however_many_changes_it_slept_through(
    centre: Centre, device: ScriptedDevice, changes: str, asleep_at: int
) -> None:
    rotated(centre, changes)
    rows = centre.store.trusts.all()
    held = Trusted(IDENTITY)
    for row in rows[:asleep_at]:
        held = held.take(parse(row.record))
    held, hellos = caught_up(centre, device, held)
    assert held.number == len(changes) + 1 and held.newest == parse(rows[-1].record).record
    if len(changes) > 1 or asleep_at:
        assert held.before == parse(rows[-2].record).record, "whose keys are good for a while beside it"
    assert hellos <= 2 + changes.count("r") // 13


@pytest.mark.parametrize("changes", ["rk", "rkrk", ("rk") * 20, "k" * 30 + "rk"])
def test_a_board_that_was_given_a_new_fleet_pub_is_not_stopped_by_what_came_before(
    centre: Centre, device: ScriptedDevice, changes: str
) -> None:
    roots = rotated(centre, changes)
    held, _ = caught_up(centre, device, Trusted(Fleet(roots[-1].public, FLEET_ID)))
    assert held.number == len(changes) + 1
