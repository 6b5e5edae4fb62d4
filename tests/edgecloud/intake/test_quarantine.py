"""Unknown keys and bases: answered, kept within bounds, taken in when the operator adds what was missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.intake.decision import Bounds, Result
from edgecloud.registry import SqliteStore
from modelwire.wire.records import Level, Receipt, Welcome
from tests.edgecloud.centre import Centre, add_base, admit, make_registry, revoke
from tests.edgecloud.device import Base, ScriptedDevice, key_of


def welcomes(centre: Centre) -> list[tuple[str, int]]:
    return [(r.status, r.epoch) for r in centre.said() if isinstance(r, Welcome)]


def test_an_unknown_device_is_told_that_it_waits_and_is_welcomed_when_it_is_added(centre: Centre, base: Base) -> None:
    device = ScriptedDevice(base)
    assert centre.take(device.hello()).result is Result.QUARANTINED
    assert welcomes(centre) == [("quarantine", 0)]
    assert centre.store.lineages.all() == []
    assert centre.tick() == []
    admit(centre.store, "pi-7", device.key.public, 5)
    assert [o.result for o in centre.tick()] == [Result.CHALLENGED]
    assert welcomes(centre) == [("challenge", 0)]
    assert centre.greet(device).result is Result.WELCOMED
    assert welcomes(centre) == [("ok", 1)]
    assert centre.tick() == [] and centre.store.inbox.held() == []


def test_a_device_that_is_added_is_on_line_when_it_said_so_while_it_waited(centre: Centre, base: Base) -> None:
    device = ScriptedDevice(base)
    centre.take(device.presence(True, 4))
    centre.take(device.hello())
    admit(centre.store, "pi-7", device.key.public, 5)
    assert [o.result for o in centre.tick()] == [Result.CHALLENGED]
    centre.greet(device)
    assert [o.result for o in centre.tick()] == [Result.NOTED]
    assert centre.store.lineages.presence(1).online


def test_another_key_for_a_known_device_waits_like_a_stranger(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    stranger = ScriptedDevice(base, life=1)
    stranger.key = key_of("mallory")
    assert centre.take(stranger.hello()).result is Result.QUARANTINED
    stranger.epoch = 1
    forged = stranger.train()
    assert centre.take(stranger.update(forged)).result is Result.QUARANTINED
    assert welcomes(centre) == [("quarantine", 0)]
    assert [o.result for o in centre.tick()] == []
    assert (centre.statuses(device), centre.head(device)) == ({}, 0)


def test_updates_of_an_unknown_key_are_taken_in_after_their_hello_when_the_key_is_added(centre: Centre, base: Base) -> None:
    device = ScriptedDevice(base)
    device.epoch = 1  # it was welcomed by a registry that has been lost
    sent = [device.train() for _ in range(3)]
    for s in (sent[2], sent[0], sent[1]):
        assert centre.take(device.update(s)).result is Result.QUARANTINED
    centre.take(device.hello())
    centre.said()
    admit(centre.store, "pi-7", device.key.public, 5)
    assert [o.result for o in centre.tick()] == [Result.CHALLENGED]
    assert centre.greet(device).result is Result.WELCOMED
    assert [o.result for o in centre.tick()] == [Result.PARKED, Result.STORED, Result.STORED]
    stored = [r.version for r in centre.said() if isinstance(r, Receipt) and r.level is Level.STORED]
    assert stored == [1, 2, 3]


def test_an_unknown_base_is_told_and_welcomed_when_it_is_added(tmp_path: Path, base: Base) -> None:
    store = make_registry(tmp_path / "fleet.db", None)
    centre = Centre(store)
    device = ScriptedDevice(base)
    admit(store, "pi-7", device.key.public, 1)
    centre.take(device.hello())
    assert welcomes(centre) == [("unknown-base", 0)]
    assert centre.tick() == []
    add_base(store, base)
    centre.tick()
    assert welcomes(centre) == [("challenge", 0)]
    centre.greet(device)
    assert welcomes(centre) == [("ok", 1)]
    store.close()


def test_a_revoked_key_is_not_heard_any_more_and_history_stays(centre: Centre, device: ScriptedDevice) -> None:
    one, two = device.train(), device.train()
    centre.deliver(device, one)
    centre.rebuild()
    revoke(centre.store, "pi-7", 50)
    centre.said()
    assert centre.deliver(device, two)[0].result is Result.DROPPED
    assert centre.take(device.hello()).result is Result.QUARANTINED
    assert welcomes(centre) == [("quarantine", 0)]
    assert centre.statuses(device) == {1: "verified"}
    centre.store.devices.add("pi-7", device.key.public, 60)  # a row that no act of the operator's stands behind
    centre.tick()
    assert welcomes(centre) == [("quarantine", 0)]
    assert centre.deliver(device, two)[0].result is Result.DROPPED
    device.key = key_of("pi-7", 1)
    admit(centre.store, "pi-7", device.key.public, 61)
    assert centre.take(device.hello()).result is Result.WELCOMED
    assert welcomes(centre) == [("ok", 1)]
    assert centre.deliver(device, device.snapshot(one.commit))[0].result is Result.STORED


def test_a_board_that_was_set_up_anew_goes_on_under_its_new_key(centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, device.train(), device.train())
    device.reflash()
    device.key = key_of("pi-7", 1)
    centre.take(device.hello())
    revoke(centre.store, "pi-7", 50)
    admit(centre.store, "pi-7", device.key.public, 50)
    centre.said()
    centre.tick()
    centre.greet(device)
    for record in centre.said():
        device.hear(record)
    assert (device.epoch, device.version) == (2, 2)
    assert centre.deliver(device, device.train())[0].result is Result.STORED
    centre.rebuild()
    assert centre.statuses(device) == {1: "verified", 2: "verified", 3: "verified"}


def test_quarantine_is_bounded_by_device_and_in_all(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(held_count=3, held_total=5))
    for name in ("pi-1", "pi-2"):
        device = ScriptedDevice(base, name=name)
        device.epoch = 1
        for _ in range(4):
            centre.deliver(device, device.train())
    assert [store.inbox.held_size(n, "update")[0] for n in ("pi-1", "pi-2")] == [3, 2]
    assert store.inbox.held_total("update")[0] == 5
    assert {r.error for r in store.refusals.last(9)} == {"BadSignature"}


@pytest.mark.parametrize("bounds", [Bounds(held_bytes=700), Bounds(held_total_bytes=700)])
def test_quarantine_is_bounded_in_bytes(store: SqliteStore, base: Base, bounds: Bounds) -> None:
    centre = Centre(store, bounds)
    device = ScriptedDevice(base)
    device.epoch = 1
    for _ in range(5):
        centre.deliver(device, device.train())
    assert 0 < store.inbox.held_total("update")[1] <= 700


def test_a_flood_of_hellos_pushes_the_oldest_out_and_a_real_board_asks_again(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(held_total=4))
    devices = [ScriptedDevice(base, name=f"pi-{n}") for n in range(6)]
    for device in devices:
        centre.take(device.hello())
        centre.take(device.hello())  # one board has one place, however often it asks
    assert [m.device for m in store.inbox.held()] == ["pi-2", "pi-3", "pi-4", "pi-5"]
    assert centre.take(devices[0].hello()).result is Result.QUARANTINED
    assert "pi-0" in [m.device for m in store.inbox.held()]


def test_one_name_can_not_fill_the_quarantine_with_keys(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(held_count=3))
    device = ScriptedDevice(base)
    for n in range(6):
        device.key = key_of("mallory", n)
        centre.take(device.hello())
    assert store.inbox.held_size("pi-7", "hello")[0] == 3


def test_what_waits_for_too_long_is_forgotten(centre: Centre, base: Base) -> None:
    centre.take(ScriptedDevice(base).hello())
    centre.now += 31 * 24 * 3600
    centre.tick()
    assert centre.store.inbox.held() == []


def test_a_hello_that_its_own_key_did_not_sign_is_dropped_without_an_answer(centre: Centre, base: Base) -> None:
    device = ScriptedDevice(base)
    topic, data = device.hello()
    assert centre.take((topic, data[:-1] + bytes([data[-1] ^ 1]))).result is Result.DROPPED
    assert centre.said() == [] and centre.store.inbox.held() == []


def test_a_flood_of_keys_under_one_name_does_not_keep_the_true_board_from_being_seen(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(held_count=4))
    for n in range(8):
        liar = ScriptedDevice(base, name="pi-9")
        liar.key = key_of(f"mallory {n}")
        centre.take(liar.hello())
    board = ScriptedDevice(base, name="pi-9")
    centre.said()
    centre.take(board.hello())
    assert [r.status for r in centre.said() if isinstance(r, Welcome)] == ["quarantine"]
    assert board.key.public in [w.mark for w in store.inbox.held("pi-9")]
    assert len(store.inbox.held("pi-9")) == 4
