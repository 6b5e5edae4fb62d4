"""What an operator reads of two that use one name, in every place where it stands, until it is acknowledged."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgecloud.registry import AlarmRow, open_registry
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice

FORK = AlarmRow("pi-7", "digits", "fork", "a folder that stands at \x1b[31m@2 speaks", 1_700_000_000, times=3)
SESSION = AlarmRow("", "", "session", "another client uses the ingester's name edgecloud.orchard at mqtt://b:1883", 1_700_000_100)


@pytest.fixture
def met(desk: Desk, base: Base) -> Desk:
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    store = open_registry(desk.folder / "fleet.db", synchronous="OFF")
    centre = Centre(store, now=int(time.time()))
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    store.close()
    return desk


def note(folder: Path, *alarms: AlarmRow) -> None:
    store = open_registry(folder / "fleet.db", synchronous="OFF")
    for alarm in alarms:
        store.losses.raise_alarm(alarm)
    store.close()


def names(desk: Desk) -> str:
    """Return the line of the doctor about names."""
    _, out, _ = desk.run("doctor", "--broker", "mqtt://127.0.0.1:1")
    return next(line for line in out.splitlines() if "names" in line.split()[:2])


def test_an_alarm_is_shown_by_devices_log_and_doctor_and_goes_when_it_is_acknowledged(met: Desk) -> None:
    assert "ALARM" not in met.ok("devices") and names(met).startswith("ok")
    note(met.folder, FORK, SESSION)
    shown = met.ok("devices")
    assert "ALARM pi-7/digits: two folders with one key, or an older copy of one, 3 times since 2023-11-14 22:13:20Z" in shown
    assert "ALARM two ingesters with one name, once, 2023-11-14 22:15:00Z at last: another client uses the ingester's name" in shown
    assert "then edgecloud devices acknowledge pi-7" in shown and "\x1b" not in shown
    logged = met.ok("log", "pi-7")
    assert "ALARM pi-7/digits" in logged and "ingesters" not in logged and "\x1b" not in logged
    assert names(met).startswith("FIX") and "and 1 more: edgecloud devices lists them" in names(met)
    assert "1 alarm acknowledged" in met.ok("devices", "acknowledge", "pi-7")
    assert names(met).startswith("FIX") and "two ingesters" in names(met)
    assert met.json("devices", "acknowledge") == {"device": None, "acknowledged": 1}
    assert "ALARM" not in met.ok("devices") and "ALARM" not in met.ok("log", "pi-7") and names(met).startswith("ok")
    assert "there is no open alarm" in met.ok("devices", "acknowledge", "pi-7")
    assert met.error("devices", "acknowledge", "pi7")["error"] == "UnknownDevice", "a name that is misspelt has no alarms to see"


def test_machines_read_the_alarm_with_its_device_and_kind(met: Desk) -> None:
    note(met.folder, FORK)
    (alarm,) = met.json("devices")["alarms"]  # type: ignore[misc]
    assert [alarm[k] for k in ("device", "model", "kind", "times", "first_at")] == ["pi-7", "digits", "fork", 3, 1_700_000_000]
    assert met.json("log", "pi-7")["alarms"] == [alarm]


def test_what_a_board_says_of_itself_is_an_alarm_of_the_board(met: Desk) -> None:
    note(met.folder, AlarmRow("pi-7", "", "board", "board-smaller: 1 GiB of \x1b[31m487 MiB", 1_700_000_000))
    shown = met.ok("devices")
    assert "ALARM pi-7 says of itself, 2023-11-14 22:13:20Z at last: board-smaller: 1 GiB of" in shown and "\x1b" not in shown
    assert "edgeagent doctor on pi-7 says what to do; then edgecloud devices acknowledge pi-7" in shown
    assert names(met).startswith("FIX") and "says of itself" in names(met)
    assert "1 alarm acknowledged" in met.ok("devices", "acknowledge", "pi-7") and "ALARM" not in met.ok("devices")
