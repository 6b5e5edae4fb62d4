"""A simulated fleet under all that befalls a real one: every version is exact or has a name for what became of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelwire.wire import topics
from tests.simulator.broker import matches
from tests.simulator.script import Script, scripted, smaller
from tests.simulator.simulation import Report, simulate

AGAIN = "python -m tests.simulator --updates {0.updates} --seed {0.seed} --devices {0.devices} --boards {0.boards}"


def checked(script: Script, folder: Path) -> Report:
    report = simulate(script, folder)
    assert report.failures == [], f"again: {AGAIN.format(script)}\n" + "\n".join(report.lines())
    return report


@pytest.mark.slow("two thousand updates of a fleet", seconds=12)
def test_two_thousand_updates_through_everything_come_out_exact(tmp_path: Path) -> None:
    report = checked(scripted(14, 2000, boards=2), tmp_path / "fleet")
    assert report.verdict.exact + report.verdict.named["Thinned"] + report.verdict.named["erased"] >= 1900 and report.updates >= 2000
    assert sum(report.centre.crashes.values()) >= 3, "it was killed among its writes, or this shows nothing"
    assert report.messages["repeated"] and report.messages["lost"] and report.messages["flipped"]


@pytest.mark.slow("runs a fleet twice", seconds=4)
def test_the_same_seed_gives_the_same_events(tmp_path: Path) -> None:
    script = scripted(5, 150, devices=6, boards=1)
    first, second = (checked(script, tmp_path / name) for name in "ab")
    other = checked(replace(script, seed=6), tmp_path / "c")
    assert (first.digest, first.events) == (second.digest, second.events)
    assert other.digest != first.digest


@pytest.mark.slow("damages a fleet's updates", seconds=3)
def test_every_loss_by_rot_has_a_name(tmp_path: Path) -> None:
    report = simulate(scripted(3, 300, devices=6, boards=0, rots=12), tmp_path / "fleet")
    assert report.failures == []
    assert len(report.rotten) >= 5 and report.verdict.named["RegistryDamaged"] > 0


def test_a_script_can_be_cut_down() -> None:
    script = scripted(1, 400)
    found = smaller(script)
    assert found and all(len(s.faults) < len(script.faults) or s.updates < script.updates or s.weather != script.weather for s in found)


@pytest.mark.parametrize(
    ("filter", "topic", "covered"),
    [
        (topics.all_up("home"), "e1/home/pi-7/tiny/up/hello", True),
        (topics.all_up("home"), "e1/home/pi-7/tiny/dn/cmd", False),
        (topics.all_down("home", "pi-7"), "e1/home/pi-7/tiny/dn/receipt", True),
        (topics.all_down("home", "pi-7"), "e1/home/pi-70/tiny/dn/receipt", False),
        (topics.trust_of_all("home"), "e1/home/all/all/dn/trust", True),
    ],
)
def test_topic_filters_cover_what_they_do_in_mqtt(filter: str, topic: str, covered: bool) -> None:
    assert matches(filter.split("/"), topic.split("/")) is covered
