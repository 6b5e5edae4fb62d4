"""A key that was stolen opens few epochs a day and burns none for the board that comes after it; the operator sees it and can help."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from edgecloud.intake.decision import Bounds, Result
from edgecloud.registry import open_registry
from modelwire.wire.keys import KeyKind, fingerprint, write_key
from modelwire.wire.records import Welcome
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice, key_of

DAY = 24 * 3600


@pytest.fixture
def centre(desk: Desk) -> Iterator[Centre]:
    """A centre of which the operator's commands are those of the command line, at the present time."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    made = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=int(time.time()) - 1000)
    yield made
    made.store.close()


def board(centre: Centre, base: Base, **other: Any) -> ScriptedDevice:
    return ScriptedDevice(base, fleet_id=centre.store.identity.id, **other)


def burn(centre: Centre, device: ScriptedDevice, count: int, first: int = 1) -> list[Result]:
    """Say hello as so many state folders that nobody has seen before."""
    out = []
    for life in range(first, first + count):
        device.life, device.answer = life, b""
        out.append(centre.greet(device).result)
        centre.said()
    return out


def test_a_stolen_key_opens_24_epochs_a_day_however_often_it_says_hello(desk: Desk, centre: Centre, base: Base) -> None:
    thief = board(centre, base)
    said = burn(centre, thief, 300)
    assert said == [Result.WELCOMED] * 24 + [Result.WAITS] * 276
    (lineage,) = centre.store.lineages.all()
    newest = centre.store.lineages.current(lineage.id)
    assert newest is not None and newest.epoch == 24
    assert centre.store.refusals.count() == 0, "and leaves no row for each"


def test_who_may_open_no_more_is_told_so_and_when_to_ask_again(desk: Desk, centre: Centre, base: Base) -> None:
    device = board(centre, base)
    centre.now += 2000  # behind the admission, which may otherwise lie within the day that is looked at
    burn(centre, device, 24)
    device.life = 99
    outcome = centre.take(device.hello())
    (welcome,) = [r for r in centre.said() if isinstance(r, Welcome)]
    assert (welcome.status, welcome.epoch, welcome.state, welcome.challenge) == ("epochs", 0, device.state_id, b"")
    assert welcome.wait == Bounds().epochs_wait, "not for the whole day: the operator may help before"
    assert "24 times in a day" in outcome.reason
    centre.now += DAY - 60
    centre.take(device.hello())
    (welcome,) = [r for r in centre.said() if isinstance(r, Welcome)]
    assert welcome.wait == 60


def test_what_has_its_epoch_is_welcome_all_the_same(desk: Desk, centre: Centre, base: Base) -> None:
    device = board(centre, base)
    burn(centre, device, 30)
    device.life = 24
    assert centre.greet(device).result is Result.WELCOMED
    other = board(centre, base, model="other")
    assert centre.greet(other).result is Result.WELCOMED, "each model has its own"


def test_after_a_day_one_more_may_be_opened_for_each_that_is_old(desk: Desk, centre: Centre, base: Base) -> None:
    device, began = board(centre, base), centre.now + 2000
    centre.now = began  # behind the admission, as above
    burn(centre, device, 20)
    centre.now = began + 3600
    burn(centre, device, 4, first=21)
    centre.now = began + DAY - 1
    assert burn(centre, device, 1, first=50) == [Result.WAITS]
    centre.now = began + DAY
    assert burn(centre, device, 22, first=60) == [Result.WELCOMED] * 20 + [Result.WAITS] * 2


def test_ten_thousand_epochs_of_a_life_are_no_end(desk: Desk, centre: Centre, base: Base) -> None:
    device = board(centre, base)
    burn(centre, device, 1)
    (lineage,) = centre.store.lineages.all()
    centre.store.database.run(
        "INSERT INTO epoch SELECT ?, 20000, ?, base, 0, 5 FROM epoch WHERE epoch = 1", lineage.id, bytes(16)
    )
    assert burn(centre, device, 1, first=2) == [Result.WELCOMED]
    newest = centre.store.lineages.current(lineage.id)
    assert newest is not None and newest.epoch == 20001


def test_a_new_key_after_a_revocation_starts_anew_and_the_stolen_one_opens_nothing(desk: Desk, centre: Centre, base: Base) -> None:
    thief = board(centre, base)
    burn(centre, thief, 30)
    desk.ok("devices", "revoke", "pi-7")
    desk.ok("devices", "add", "pi-7", write_key(KeyKind.DEVICE, key_of("pi-7", 1).public))
    centre.now = int(time.time()) + 1
    assert burn(centre, thief, 2, first=40) == [Result.QUARANTINED] * 2
    new = board(centre, base)
    new.key = key_of("pi-7", 1)
    assert burn(centre, new, 25, first=50) == [Result.WELCOMED] * 24 + [Result.WAITS]


def test_a_reset_starts_anew_under_the_same_key_and_is_sealed(desk: Desk, centre: Centre, base: Base) -> None:
    device = board(centre, base)
    burn(centre, device, 30)
    said = desk.json("devices", "reset", "pi-7")
    assert said["device"] == "pi-7" and said["fingerprints"] == [fingerprint(device.key.public)]
    assert [a.verb for a in centre.store.acts.of("pi-7")] == ["admit", "admit"]
    centre.now = int(time.time()) + 1
    assert burn(centre, device, 25, first=50) == [Result.WELCOMED] * 24 + [Result.WAITS]
    assert desk.error("devices", "reset", "pi-8")["error"] == "UnknownDevice"
    desk.ok("devices", "revoke", "pi-7")
    assert desk.error("devices", "reset", "pi-7")["error"] == "UnknownDevice", "a reset lets nobody in again"


def test_a_reset_wants_the_operators_key(desk: Desk, centre: Centre, base: Base) -> None:
    burn(centre, board(centre, base), 25)
    (desk.folder / "command.key").rename(desk.folder / "elsewhere.key")
    assert desk.error("devices", "reset", "pi-7")["error"] == "MissingFile"
    assert len(centre.store.acts.of("pi-7")) == 1


def test_the_operator_sees_a_name_that_burns_epochs_and_resets_it(
    desk: Desk, centre: Centre, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = board(centre, base)
    burn(centre, device, 3)
    assert "epochs in a day" not in desk.ok("devices")
    burn(centre, device, 1, first=4)
    monkeypatch.setattr("edgecloud.commands.fleet.overview.now", lambda: centre.now)
    assert "pi-7/digits has opened 4 epochs in a day: is it sound" in desk.ok("devices")
    burn(centre, device, 30, first=5)
    assert "has opened 24 epochs in a day, and opens no more before" in (text := desk.ok("devices")) and "devices reset" in text
    (model,) = desk.json("devices")["devices"][0]["models"]  # type: ignore[index]
    assert (model["epochs_of_a_day"], model["epochs_free_at"]) == (24, centre.now + DAY)
