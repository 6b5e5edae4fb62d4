"""A small fleet for two days: the same seed gives the same events, all versions are exact, and what is wrong is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest

from edgecloud.registry import open_registry
from modelwire.errors import BadArgument
from modelwire.planning import PROFILES
from modelwire.update.sections import Kind
from tests.simulator import rot
from tests.simulator.fleet import LINKS, FleetReport, FleetScript, SimulatedFleet, link_of, simulated
from tests.simulator.fleet.__main__ import main
from tests.simulator.fleet.device import FleetDevice
from tests.simulator.fleet.links import DAY
from tests.simulator.fleet.paper import constants_of, errors, foretold, measured, month
from tests.simulator.fleet.planner import FleetPlanner
from tests.simulator.fleet.rolling import LEAST

SCRIPT = FleetScript(devices=20, days=2, seed=5)


def lived(script: FleetScript, folder: Path) -> FleetReport:
    folder.mkdir()
    report = simulated(script, folder)
    assert report.failures == [], f"again: python -m tests.simulator.fleet: {script}"
    return report


@pytest.mark.slow("lives through two days of thirty devices, and of a few", seconds=5)
def test_the_same_seed_gives_the_same_events_and_every_version_is_exact(tmp_path: Path) -> None:
    script = replace(SCRIPT, devices=30)
    first, second = (lived(script, tmp_path / name) for name in "ab")
    assert (first.digest, first.events) == (second.digest, second.events)
    assert lived(replace(SCRIPT, devices=2), tmp_path / "c").digest != lived(replace(SCRIPT, devices=2, seed=6), tmp_path / "d").digest
    assert first.rounds == 60 and first.versions == first.exact == first.verify["exact"] == 60 + first.curve[-1][2]
    assert (first.up, first.down, first.stored) == (second.up, second.down, second.stored)


@pytest.mark.slow("lives through two days of a few devices", seconds=3)
def test_a_wrong_bit_in_what_the_centre_keeps_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = SimulatedFleet(replace(SCRIPT, devices=6, rollout=False), tmp_path)
    judge = fleet._judge
    other = fleet.devices[4].device

    def rotten() -> None:
        store = open_registry(fleet.centre.path)
        rot.flip_blob(store, Random(3))
        store.close()
        other.made[1] = replace(other.made[1], file_sha256=bytes(32))
        judge()

    monkeypatch.setattr(fleet, "_judge", rotten)
    report = fleet.run()
    assert len(report.verify["wrong"]) == 1, "a bit has flipped"
    assert any(f"{other.name}/digits@1: what is served is not the file that ran" in one for one in report.wrong), "and a device ran another"
    assert report.exact < report.versions and len(report.failures) >= 2


@pytest.mark.slow("lives through three days of a few devices on four links", seconds=8)
def test_rounds_wait_for_each_other_where_a_radio_sleeps_and_only_there(tmp_path: Path) -> None:
    script = FleetScript(devices=6, days=3, rollout=False)
    runs = {name: lived(replace(script, link=name), tmp_path / name) for name in ("lte", "lte-sleeping", "nb-iot", "lora")}
    assert runs["lte"].versions == 18 and runs["lte"].wakeups == 0
    for name in ("lte-sleeping", "nb-iot"):
        assert runs[name].rounds == 18 and 6 <= runs[name].versions < 18 and runs[name].wakeups > 0
        assert runs[name].joules > 100 * runs["lte"].joules, "a wake-up is what costs"
        assert runs[name].percentile(0.5) > runs["lte"].percentile(0.5), "what waits comes later"
    assert runs["lora"].air > sum(runs["lora"].up.values()) + sum(runs["lora"].down.values()), "frames are paid for whole"


@pytest.mark.slow("lives through two days of thirty devices", seconds=3)
def test_a_variant_that_fails_on_every_second_device_gets_no_further_than_the_canaries(tmp_path: Path) -> None:
    report = lived(replace(SCRIPT, failing=0.7), tmp_path / "fleet")
    assert report.state in ("halted", "paused") and report.curve[-1][1] == LEAST, "nobody was offered it behind the first phase"
    assert 3 <= sum(report.failed.values()) <= LEAST and report.versions == 40 + report.curve[-1][2]


@pytest.mark.slow("lives through two days of sixty devices and of a third of them", seconds=5)
def test_a_smaller_run_foretells_a_larger_one(tmp_path: Path) -> None:
    small, large = lived(SCRIPT, tmp_path / "small"), lived(replace(SCRIPT, devices=60), tmp_path / "large")
    off = errors(foretold(constants_of(small), 60, 2), measured(large))
    assert all(abs(off[name]) < 0.1 for name in ("versions", "bytes up", "bytes down", "joules", "registry bytes")), off
    itself = errors(foretold(constants_of(large), 60, 2), measured(large))
    assert all(abs(share) < 0.02 for share in itself.values()), "a run foretells itself"
    told = month(constants_of(large), tmp_path, devices=1000, days=30)
    assert told.totals["versions"] == pytest.approx(31_000, rel=0.02) and told.flushes[0] < told.flushes[1]


@pytest.mark.slow("lives through six days of three devices", seconds=2)
def test_a_variant_is_fetched_once_however_often_the_link_is_gone_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = SimulatedFleet(FleetScript(devices=3, days=6, link="lora", failing=0.0), tmp_path)
    cuts: list[float] = []

    def told(device: FleetDevice, down: Callable[[str], None], why: str) -> None:
        down(why)
        cuts.append(device.rollout._left)

    for device in fleet.devices:
        device.link = replace(device.link, lasts=6 * 3600.0)  # the file takes ten hours
        monkeypatch.setattr(device, "down", partial(told, device, device.down))
    report = fleet.run()
    assert report.failures == [] and report.curve[-1][1:] == (3, 3)
    size = len(fleet.bases[1].file)
    assert any(0 < left < size for left in cuts), "it was gone in the middle of it, or this shows nothing"
    assert report.down["variant"] == 3 * size


def test_a_board_whose_card_was_copied_is_told_by_the_centre_and_by_the_audit(tmp_path: Path) -> None:
    fleet = SimulatedFleet(FleetScript(devices=2, days=3, rollout=False), tmp_path)
    board = fleet.devices[0]

    def copied() -> None:
        twin = copy(board.device)
        twin.made, twin.waiting, twin.kinds, twin.rng = {}, {}, {}, np.random.default_rng(9)
        with twin.awake():
            twin.round(0.003)
            sent = twin.conclude(Kind.DELTA)
        fleet.broker.inject(*twin.update(sent))

    fleet.time.after(1.01 * DAY, copied)  # each has made its first round, and none the second
    report = fleet.run()
    name = f"{board.name}/digits@2"
    assert report.wrong == [f"{name}: the centre holds what its board never made", f"given up by its board: {name}"]
    assert not report.unsettled and report.exact == 6, "it goes on with a snapshot, and nothing else is another"
    store = open_registry(fleet.centre.path, readonly=True)
    assert [(alarm.device, alarm.kind) for alarm in store.losses.alarms()] == [(board.name, "fork")]
    store.close()


def test_a_link_that_never_comes_is_told_and_ends(tmp_path: Path) -> None:
    fleet = SimulatedFleet(FleetScript(devices=3, days=1, rollout=False), tmp_path)
    lost = fleet.devices[1]
    lost.there = False  # and nothing mends it
    lost.link = replace(lost.link, lasts=1e9)
    report = fleet.run()
    assert report.unsettled == [lost.name] and report.failures == [f"{lost.name} never settled"]
    assert report.exact == report.versions == 2 and lost.made == 1, "it trains, and has nobody to tell"


def test_every_profile_of_the_cost_model_has_a_scripted_link() -> None:
    assert LINKS.keys() == PROFILES.keys() and link_of("nbiot") is LINKS["nb-iot"] and link_of("lora") is LINKS["lora-sf7"]
    for link in LINKS.values():
        assert link.sleeps == bool(link.linger) and (link.profile.bytes_per_s is None or link.rate <= link.profile.bytes_per_s)
    with pytest.raises(BadArgument, match="no link profile"):
        link_of("pigeon")


def test_a_fleet_asks_the_planner_as_a_board_does_and_equal_questions_once() -> None:
    sizes = {Kind.DELTA: 500, Kind.SNAPSHOT: 900}
    always, sleeping = (FleetPlanner(LINKS[name], 50_826, 0.003) for name in ("lte", "lte-sleeping"))
    goes = always.decide(sizes, 80, (0, 0, 0.0), None)
    assert (goes.choice, goes.kind, goes.wait) == ("delta", Kind.DELTA, 0.0) and always.decide(sizes, 80, (0, 0, 0.0), None) is goes
    assert always.asked == 1 and always.decide({**sizes, Kind.SNAPSHOT: 300}, 80, (0, 0, 0.0), goes.plan).kind is Kind.SNAPSHOT
    waits = sleeping.decide(sizes, 80, (0, 0, 0.0), None)
    assert waits.choice == "wait" and 0 < waits.wait <= DAY + 1
    assert sleeping.decide(sizes, 80, (1, 500, DAY), waits.plan).choice != "wait", "none waits longer than wait_most"


def test_bad_words_are_told_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "of.something").touch()
    for words, said in (
        (["--link", "pigeon"], "no link profile"), (["--devices", "0"], "0 devices"), (["--days", "1000"], "1000 days"),
        (["--keep", str(tmp_path / "full")], "not empty"),
    ):  # fmt: skip
        assert main(words) == 2
        err = capsys.readouterr().err
        assert said in err and "next: " in err


@pytest.mark.slow("lives through a day of some devices, twice", seconds=5)
def test_the_command_prints_a_table_or_json_and_keeps_the_registry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--devices", "33", "--days", "1", "--out", str(tmp_path / "out"), "--keep", str(tmp_path / "kept")]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["versions"] == said["exact"] == said["verify_all"]["exact"] and said["wrong"] == 0
    assert (tmp_path / "kept" / "fleet.db").exists()
    assert set(said["foretold"]) == set(said["paper"]["totals"]) and len(said["paper"]["assumed"]) > 5
    assert all(Path(chart).read_bytes().startswith(b"<?xml") for chart in said["charts"])
    assert json.loads((tmp_path / "out" / "simulate.json").read_text())["digest"] == said["digest"]
    assert main(["--devices", "5", "--days", "1", "--no-paper", "--no-charts", "--no-rollout", "--out", str(tmp_path / "out")]) == 0
    assert "5 devices for 1 days over lte" in capsys.readouterr().out
