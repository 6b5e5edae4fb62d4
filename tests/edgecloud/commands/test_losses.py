"""What boards say against this registry is shown by number: versions that it holds no more, and a log that is another one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from edgecloud.registry import LostRow, WitnessRow, open_registry
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice


@pytest.fixture
def met(desk: Desk, base: Base) -> Desk:
    """A board with two versions here and a third that waits for @7: @3 and @4 were here once, @5 was given up before it came."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    store = open_registry(desk.folder / "fleet.db", synchronous="OFF")
    centre = Centre(store, now=int(time.time()))
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train(), device.train())
    centre.rebuild()
    lineage = store.lineages.get("pi-7", "digits")
    assert lineage is not None
    for version, held in ((3, True), (4, True), (5, False)):
        store.losses.note(LostRow(lineage.id, 1, version, held, 1_700_000_000))
    store.close()
    return desk


def noted(desk: Desk, *rows: WitnessRow) -> None:
    store = open_registry(desk.folder / "fleet.db", synchronous="OFF")
    for row in rows:
        assert store.losses.testify(row, 8)
    store.close()


def test_log_lists_lost_numbers_beside_the_versions(met: Desk) -> None:
    rows = [line.split() for line in met.ok("log", "pi-7").splitlines()[2:]]
    assert [(row[0], "lost" in row[:4]) for row in rows] == [("@5", True), ("@4", True), ("@3", True), ("@2", False), ("@1", False)]
    said = met.json("log", "pi-7")["lost"]
    assert said == [{"version": n, "epoch": 1, "held": n < 5, "at": 1_700_000_000} for n in (3, 4, 5)]


def test_devices_and_show_name_what_a_restore_lost_and_not_what_a_board_gave_up_by_itself(met: Desk) -> None:
    for text in (met.ok("devices"), met.ok("show", "pi-7")):
        assert "pi-7/digits lost @3..@4: its board had sent them" in text and "2023-11-14 22:13:20Z" in text
    assert "@3..@5" in met.ok("show", "pi-7"), "all three are lost"


def test_witnesses_are_shown_and_make_the_doctor_say_what_to_do(met: Desk) -> None:
    assert next(c for c in json_of(met)["checks"] if c["what"] == "witnesses")["ok"]
    beyond = WitnessRow("pi-7", 812, b"\x05" * 32, b"", 1_700_000_000)
    noted(met, beyond, WitnessRow("pi-7", 640, b"\x06" * 32, b"\x07" * 32, 1_700_000_001))
    for text in (met.ok("devices"), met.ok("show", "pi-7")):
        assert "pi-7 has seen entry 812 of the centre's log, which is beyond the end of this log; 2023-11-14 22:13:20Z" in text
        assert "pi-7 has seen entry 640 of the centre's log, which is another one in this log" in text
    found = next(c for c in json_of(met)["checks"] if c["what"] == "witnesses")
    assert not found["ok"] and "entry 640" in found["found"] and "and 1 more" in found["found"]
    assert "restore" in found["fix"]


def json_of(desk: Desk) -> Any:
    _, out, _ = desk.run("doctor", "--json")
    return json.loads(out)
