"""A simulated fleet under all that befalls a real one: every version is exact or has a name for what became of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgecloud.versions import materialise
from modelwire.wire import topics
from tests.simulator import centre
from tests.simulator.broker import matches
from tests.simulator.crashes import copy_registry
from tests.simulator.light import Habits
from tests.simulator.script import Fault, Script, scripted, shrunk, smaller
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


@pytest.mark.slow("runs a fleet", seconds=3)
def test_a_centre_that_proves_no_roots_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialise, "prove_root", lambda state, container: None)
    script = replace(scripted(2, 200, devices=6, boards=0, faults=0), habits=Habits(lies=0.1))
    assert any("sealed wrongly is served" in failure for failure in simulate(script, tmp_path / "fleet").failures)


@pytest.mark.slow("runs a fleet", seconds=3)
def test_a_disk_that_forgets_what_was_committed_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_log(path: Path, target: Path) -> None:
        copy_registry(path, target)
        target.with_name(f"{target.name}-wal").unlink(missing_ok=True)

    monkeypatch.setattr(centre, "copy_registry", without_log)
    script = scripted(4, 200, devices=6, boards=0, faults=0)
    report = simulate(replace(script, faults=(Fault(100, "kill centre", 200),)), tmp_path / "fleet")
    assert any("told that it is verified" in failure for failure in report.failures)


def test_a_script_can_be_cut_down() -> None:
    script = scripted(1, 400)
    found = smaller(script)
    assert found and all(len(s.faults) < len(script.faults) or s.updates < script.updates or s.weather != script.weather for s in found)


def test_a_failing_script_is_cut_down_to_what_fails() -> None:
    script = scripted(1, 400)
    (one,) = [fault for fault in script.faults if fault.kind == "erase"][:1]
    found = shrunk(script, lambda s: one in s.faults, tries=200)
    assert found.faults == (one,) and found.weather != script.weather


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
