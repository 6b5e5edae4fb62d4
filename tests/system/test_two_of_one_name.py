"""Two real processes with one name at a real broker: ingesters of one fleet, and boards with one state folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

import edgeagent
from tests import broker
from tests.broker import Mosquitto
from tests.system.fleet import Fleet, Process, agent
from tests.worlds import MODELS, world

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=25),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

MODEL = "digits"
SETTINGS = {
    "link.resend": "1s", "link.resend_max": "2s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "1",
    "train.margin": "1000", "train.learning_rate": "0.02", "train.min_samples": "10", "train.every": "1s",
}  # fmt: skip
END = 150.0  # seconds, a safety limit


def until(reached: Any, what: str) -> None:
    end = monotonic() + END
    while not reached():
        assert monotonic() < end, f"it did not come to pass: {what}"
        sleep(0.1)


def feed(folder: Path, seed: int) -> None:
    x, y = world(MODEL, seed).stream(0, 96)
    with edgeagent.Spool(folder) as spool:
        spool.extend(MODEL, x, y.tolist())


def ask(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)


def agent_of(folder: Path, log: Path) -> Process:
    return Process(log.stem, [sys.executable, "-m", "edgeagent", "run", "--dir", str(folder)], log)


@pytest.fixture
def cloned(fleet: Fleet) -> Iterator[tuple[Path, Path]]:
    """Two folders of one board, made after two versions were published; each has samples that the other has not."""
    fleet.add_base(MODEL)
    fleet.add_device("pi-7", {MODEL: MODELS / f"{MODEL}.tflite"}, SETTINGS)
    feed(fleet.home("pi-7"), 1)
    fleet.agent("pi-7", "run", "--rounds", "2", "--timeout", f"{END}s")
    shutil.copytree(fleet.home("pi-7"), fleet.home("clone"), symlinks=True)
    feed(fleet.home("clone"), 5)
    yield fleet.home("pi-7"), fleet.home("clone")


def served(fleet: Fleet, tmp_path: Path, name: str, version: int) -> bytes:
    out = tmp_path / f"{name}@{version}.tflite"
    fleet.cloud("materialise", f"{name}/{MODEL}@{version}", "-o", str(out))
    return out.read_bytes()


def blocked(folder: Path) -> str:
    return str(agent("status", "--dir", str(folder))["models"][0]["blocked"])


def test_of_two_boards_with_one_folder_one_goes_on_and_the_other_is_told(
    fleet: Fleet, cloned: tuple[Path, Path], hub: Mosquitto, tmp_path: Path
) -> None:
    both = {folder: agent_of(folder, tmp_path / f"{folder.name}.log") for folder in cloned}
    for process in both.values():
        process.start()
    try:
        until(lambda: any(blocked(f) for f in cloned), "one of them is told that it is a copy")
        (loser,) = (f for f in cloned if blocked(f))
        (winner,) = (f for f in cloned if f != loser)
        before = fleet.cloud("log", "pi-7")["versions"][0]["version"]
        until(lambda: fleet.cloud("log", "pi-7")["versions"][0]["version"] >= before + 3, "the other one goes on")
        assert all(p.running for p in both.values())
        until(lambda: both[loser].said("another state folder speaks with this one's key"), "it leaves the name to the other one")
        assert both[winner].said("another state folder") == 0
        assert "BLOCKED" in ask("edgeagent", "status", "--dir", str(loser)).stdout
    finally:
        for process in both.values():
            process.stop()
    check_one_history(fleet, loser, winner, hub)
    check_way_out(fleet, loser, winner, tmp_path)


def check_one_history(fleet: Fleet, loser: Path, winner: Path, hub: Mosquitto) -> None:
    """Every version since is the winner's, the loser's word is refused by name, and the operator hears of it in three places."""
    rows = {v["version"]: v for v in agent("log", MODEL, "--dir", str(winner))["models"][0]["versions"] if v["version"]}
    held = fleet.cloud("log", "pi-7")["versions"]
    assert [v["kind"] for v in held] == ["delta"] * len(held), "no snapshot took it over"
    assert {v["version"]: v["commit"] for v in held} == {n: rows[n]["commit"] for n in (v["version"] for v in held)}
    told = ask("edgeagent", "publish", "--dir", str(loser), "--timeout", "60s")
    assert told.returncode == 85 and "another state folder speaks with this one's key" in told.stderr and "Two of one name" in told.stderr
    (alarm,) = fleet.cloud("devices")["alarms"]
    assert (alarm["device"], alarm["model"], alarm["kind"]) == ("pi-7", MODEL, "fork")
    doctor = ask("edgecloud", "doctor", "--broker", hub.url, "--db", str(fleet.db))
    assert doctor.returncode == 1 and "two folders with one key" in doctor.stdout
    assert fleet.ingester.said("is two:") == 1, "said once"


def check_way_out(fleet: Fleet, loser: Path, winner: Path, tmp_path: Path) -> None:
    """A second board gets a name and a key of its own; what the hint says works, and both publish."""
    weights = (loser / "state" / "models" / MODEL / "served.tflite").read_bytes()
    loser.rename(loser.with_name("aside"))
    fleet.add_device("pi-8", {MODEL: MODELS / f"{MODEL}.tflite"}, SETTINGS)
    feed(fleet.home("pi-8"), 9)
    fleet.cloud("devices", "acknowledge", "pi-7")
    fleet.agent("pi-8", "run", "--rounds", "2", "--timeout", f"{END}s")
    agent("run", "--once", "--timeout", f"{END}s", "--dir", str(winner))
    agent("publish", "--timeout", f"{END}s", "--dir", str(winner))
    head = agent("status", "--dir", str(winner))["models"][0]["version"]
    assert served(fleet, tmp_path, "pi-7", head) == (winner / "state" / "models" / MODEL / "served.tflite").read_bytes()
    assert len(fleet.cloud("log", "pi-8")["versions"]) == 2 and fleet.cloud("devices")["alarms"] == []
    assert (loser.with_name("aside") / "state" / "models" / MODEL / "served.tflite").read_bytes() == weights


def test_an_older_copy_of_a_folder_takes_nothing_over_and_goes_on_in_an_epoch_of_its_own(
    fleet: Fleet, cloned: tuple[Path, Path], tmp_path: Path
) -> None:
    newer, older = cloned
    agent("run", "--rounds", "5", "--timeout", f"{END}s", "--dir", str(newer))
    held = fleet.cloud("log", "pi-7")["versions"]
    told = ask("edgeagent", "publish", "--dir", str(older), "--timeout", f"{END}s")
    assert told.returncode == 85 and "the centre holds @5, which this one did not make" in told.stderr
    assert ask("edgeagent", "run", "--once", "--dir", str(older), "--timeout", f"{END}s").returncode == 85
    assert fleet.cloud("log", "pi-7")["versions"] == held, "nothing of it came in"
    (alarm,) = fleet.cloud("devices")["alarms"]
    assert "a folder that stands at @" in alarm["text"] and "@5 came before" in alarm["text"]
    weights = (older / "state" / "models" / MODEL / "served.tflite").read_bytes()
    done = agent("publish", "--new-epoch", "--timeout", f"{END}s", "--dir", str(older))["models"][0]
    assert done["lost"] == [] and done["version"] > 5
    after = fleet.cloud("log", "pi-7")["versions"]
    assert [v["version"] for v in after[-len(held) :]] == [v["version"] for v in held] and after[0]["epoch"] == 2
    assert served(fleet, tmp_path, "pi-7", done["version"]) == weights, "what the board serves went on"
    states = {r["version"]: r["state"] for r in agent("log", MODEL, "--dir", str(older))["models"][0]["versions"] if r["version"]}
    assert states[1] == states[2] == "verified"
    late = ask("edgeagent", "run", "--once", "--dir", str(newer), "--timeout", f"{END}s")
    assert late.returncode == 30 and "epoch 1 is closed" in late.stderr
    assert "1 alarm acknowledged" in ask("edgecloud", "devices", "acknowledge", "pi-7", "--db", str(fleet.db)).stdout


def test_a_second_ingester_of_the_fleet_ends_and_the_first_goes_on(fleet: Fleet, hub: Mosquitto, tmp_path: Path) -> None:
    copy = tmp_path / "other-host" / "fleet.db"
    copy.parent.mkdir()
    fleet.cloud("backup", str(copy))
    key = fleet.db.parent / "receipt.key"
    command = [sys.executable, "-m", "edgecloud", "ingest", "--db", str(copy), "--broker", hub.url, "--key", str(key)]
    until(lambda: fleet.ingester.said("listening on"), "the first one listens")
    second = Process("second", command, tmp_path / "second.log")
    second.start()
    both = (fleet.ingester, second)
    until(lambda: any(not p.running for p in both), "one of them ends")
    (ended,) = (p for p in both if not p.running)
    (other,) = (p for p in both if p is not ended)
    assert ended.code == 33 and "two clients use the name edgecloud.demo" in ended.tail()
    path = fleet.db if other is fleet.ingester else copy
    until(lambda: "ALARM two ingesters with one name" in ask("edgecloud", "devices", "--db", str(path)).stdout, "the operator is told")
    assert other.running
    assert "the centre: 1 alarm acknowledged" in ask("edgecloud", "devices", "acknowledge", "--db", str(path)).stdout
    assert other.stop() == 0
