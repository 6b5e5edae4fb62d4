"""Energy meters under /sys: which one is taken, what it counts, and that a broken one says nothing rather than something."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.board import meters
from edgeagent.board.sensors import Sensors


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


def rapl(sys: Path, number: int, name: str, energy: str, wraps: str = "262143328850") -> Path:
    zone = sys / "class" / "powercap" / f"intel-rapl:{number}"
    write(zone / "name", name)
    write(zone / "max_energy_range_uj", wraps)
    return write(zone / "energy_uj", energy)


class Time:
    """A clock of half seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def found(sys: Path) -> meters.Meter:
    meter = meters.find(Sensors(sys))
    assert meter is not None
    return meter


def test_a_board_without_a_meter_has_none(tmp_path: Path) -> None:
    assert meters.find(Sensors(tmp_path)) is None
    rapl(tmp_path, 0, "package-0", "no number")
    write(tmp_path / "class" / "powercap" / "intel-rapl:0:0" / "energy_uj", "5")  # of a part of the package
    assert meters.find(Sensors(tmp_path)) is None


def test_counters_of_packages_add_up_and_begin_anew(tmp_path: Path) -> None:
    one, two = rapl(tmp_path, 0, "package-0", "1000000"), rapl(tmp_path, 1, "package-1", "9000000", "10000000")
    meter = found(tmp_path)
    assert meter.counts and meter.name == "processor (RAPL)"
    with meters.metering(meter, Time()) as drawn:
        assert drawn.watts is None, "nothing is known before the end"
        write(one, "3000000")
        write(two, "1000000")
    assert (drawn.joules, drawn.seconds) == (pytest.approx(4.0), 0.5) and drawn.watts == pytest.approx(8.0)


def test_the_whole_platform_goes_before_its_packages_and_rails_before_both(tmp_path: Path) -> None:
    rapl(tmp_path, 0, "package-0", "1")
    rapl(tmp_path, 1, "psys", "1")
    assert found(tmp_path).name == "platform (RAPL)" and len(found(tmp_path).files) == 1
    write(tmp_path / "class" / "hwmon" / "hwmon0" / "name", "cpu_thermal")
    write(tmp_path / "class" / "hwmon" / "hwmon1" / "name", "ina219")
    write(tmp_path / "class" / "hwmon" / "hwmon1" / "power1_input", "2500000")
    assert found(tmp_path).name == "ina219 (hwmon)" and not found(tmp_path).counts
    battery = tmp_path / "class" / "power_supply" / "BAT0"
    for name, text in (("type", "Battery"), ("status", "Charging"), ("power_now", "4000000")):
        write(battery / name, text)
    assert found(tmp_path).name == "ina219 (hwmon)", "a battery that charges says nothing of the board"
    write(battery / "status", "Discharging")
    assert found(tmp_path).name == "battery BAT0"


def test_watts_are_added_up_over_the_block(tmp_path: Path) -> None:
    write(tmp_path / "class" / "hwmon" / "hwmon0" / "power1_input", "2500000")
    with meters.metering(found(tmp_path), Time()) as drawn:
        pass
    assert drawn.joules is not None and drawn.joules > 0 and drawn.watts is not None


@pytest.mark.parametrize("after", ["", "nonsense", "-5", "9" * 60, None])
def test_a_meter_that_breaks_says_nothing(tmp_path: Path, after: str | None) -> None:
    file = rapl(tmp_path, 0, "package-0", "1000000")
    with meters.metering(found(tmp_path), Time()) as drawn:
        if after is None:
            file.unlink()
        else:
            write(file, after)
    assert drawn.joules is None and drawn.watts is None


def test_a_counter_that_went_back_without_an_end_says_nothing(tmp_path: Path) -> None:
    file = rapl(tmp_path, 0, "package-0", "1000000", wraps="0")
    with meters.metering(found(tmp_path), Time()) as drawn:
        write(file, "5")
    assert drawn.joules is None
