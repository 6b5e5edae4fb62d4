"""What the sensors read: heat, power and memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.board.sensors import Sensors
from tests.edgeagent.board.sysfs import board


def test_the_hottest_zone_counts_and_broken_ones_do_not(tmp_path: Path) -> None:
    assert board(tmp_path).celsius() is None
    zones = {"thermal_zone0__temp": "45000\n", "thermal_zone1__temp": "61500", "thermal_zone2__temp": "garbage", "cooling_device0__x": "1"}
    zones["thermal_zone6__temp"] = "9" * 4000
    found = board(tmp_path, **zones, thermal_zone3__temp="999999999", thermal_zone4__temp="", thermal_zone5__type="cpu")
    assert found.celsius() == 61.5


@pytest.mark.parametrize(
    ("files", "on_battery"),
    [
        ({}, None),
        ({"AC__type": "Mains", "AC__online": "1", "BAT0__type": "Battery", "BAT0__status": "Discharging"}, False),
        ({"AC__type": "Mains", "AC__online": "0", "BAT0__type": "Battery", "BAT0__status": "Discharging"}, True),
        ({"BAT0__type": "Battery", "BAT0__status": "Charging"}, False),
        ({"BAT0__type": "Battery", "BAT0__status": "Full\n"}, False),
        ({"BAT0__type": "Battery", "BAT0__status": "?"}, None),
        ({"mouse__type": "Battery", "mouse__status": "Discharging", "mouse__scope": "Device"}, None),
        ({"AC__type": "Mains", "AC__online": "\x00\xff"}, None),
    ],
)
def test_power_is_read_from_all_supplies(tmp_path: Path, files: dict[str, str], on_battery: bool | None) -> None:
    assert board(tmp_path, **files).on_battery() is on_battery


def test_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    here = Sensors()
    assert 1 << 20 < here.resident() <= here.peak()
    assert Sensors(proc=tmp_path).resident() == Sensors(proc=tmp_path).peak() == 0
