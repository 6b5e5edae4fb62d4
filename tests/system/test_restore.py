"""A restore drill with real processes: an older backup becomes the registry, and both sides name what is lost, number by number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import broker
from tests.broker import Mosquitto
from tests.system.fleet import Fleet
from tests.worlds import MODELS, world

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=15),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

MODEL = "digits"
QUICK = {
    "link.resend": "1s", "link.resend_max": "2s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "1",
    "train.margin": "1000", "train.learning_rate": "0.02",
}  # fmt: skip
NAMES = ("pi-7", "pi-8")


def add(fleet: Fleet, name: str, seed: int) -> None:
    fleet.add_device(name, {MODEL: MODELS / f"{MODEL}.tflite"}, QUICK)
    x, y = world(MODEL, seed).stream(0, 96)
    with fleet.spool(name) as spool:
        spool.extend(MODEL, x, y.tolist())


def mine(fleet: Fleet, device: str) -> dict[int, str]:
    """Return what a board says of each of its numbers."""
    rows = fleet.agent(device, "log", MODEL)["models"][0]["versions"]
    return {r["version"]: r["state"] for r in rows if r["version"]}


def theirs(fleet: Fleet, device: str) -> dict[int, str]:
    """Return what the centre says of each of them."""
    said = fleet.cloud("log", device)
    out = {v["version"]: v["status"] for v in said["versions"]} | {v["version"]: "lost" for v in said["lost"]}
    return out | {r["version"]: "refused" for r in said["refusals"] if r["version"] and r["version"] not in out}


def run(fleet: Fleet, device: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeagent", *arguments, "--dir", str(fleet.home(device))]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def cloud_text(fleet: Fleet, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "edgecloud", *arguments, "--db", str(fleet.db)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def agree(fleet: Fleet, device: str) -> bool:
    """Let the agent hear what is still to be said, and return whether both lists are the same and nothing is to be judged."""
    fleet.agent(device, "publish", "--timeout", "200s")
    here = mine(fleet, device)
    return here == theirs(fleet, device) and "stored" not in here.values()


def wait_for(reached: Callable[[], bool], tries: int = 60) -> None:
    for _ in range(tries):
        if reached():
            return
    raise AssertionError("it did not come to pass")


def test_after_the_restore_of_an_older_backup_both_sides_name_the_same_lost_numbers(fleet: Fleet, hub: Mosquitto, tmp_path: Path) -> None:
    fleet.add_base(MODEL)
    for seed, name in enumerate(NAMES):
        add(fleet, name, seed)
        fleet.agent(name, "run", "--rounds", "2", "--timeout", "500s")
    old = tmp_path / "yesterday.db"
    fleet.cloud("backup", str(old))
    for name, rounds in zip(NAMES, ("6", "4"), strict=True):
        fleet.agent(name, "run", "--rounds", rounds, "--timeout", "500s")
    served = {name: (fleet.home(name) / "state" / "models" / MODEL / "served.tflite").read_bytes() for name in NAMES}
    assert fleet.ingester.stop() == 0
    said = fleet.cloud("restore", str(old), "--force")
    assert "replaced" in said
    # Nobody is there to answer: it may not say that all is well.
    alone = run(fleet, "pi-7", "publish", "--timeout", "3s")
    assert alone.returncode != 0 and "verified up to @6" not in alone.stdout
    fleet.ingester.start()
    first = run(fleet, "pi-7", "publish", "--timeout", "200s")
    assert first.returncode == 0, first.stderr
    assert "stored up to @7" in first.stdout and f"{MODEL}: lost at the centre: @3..@6, which it once held" in first.stdout
    for name in NAMES:
        wait_for(lambda name=name: agree(fleet, name))  # type: ignore[misc]
    assert mine(fleet, "pi-7") == {**dict.fromkeys((1, 2, 7), "verified"), **dict.fromkeys(range(3, 7), "lost")}
    assert mine(fleet, "pi-8") == {**dict.fromkeys((1, 2, 5), "verified"), **dict.fromkeys((3, 4), "lost")}
    for name, head in zip(NAMES, (7, 5), strict=True):
        out = tmp_path / f"{name}.tflite"
        fleet.cloud("materialise", f"{name}/{MODEL}@{head}", "-o", str(out))
        assert out.read_bytes() == served[name], "what the board has is what the centre has again"
    check_words(fleet)


def check_words(fleet: Fleet) -> None:
    """Both sides say it to people, too. It is no alarm: each board has one history."""
    assert fleet.cloud("devices")["alarms"] == []
    assert "lost at the centre: @3..@6" in run(fleet, "pi-7", "status").stdout
    devices = cloud_text(fleet, "devices")
    assert f"pi-7/{MODEL} lost @3..@6: its board had sent them" in devices and f"pi-8/{MODEL} lost @3..@4:" in devices
    assert "@3..@6" in cloud_text(fleet, "show", "pi-7")
    rows = [line.split() for line in cloud_text(fleet, "log", "pi-7").splitlines() if "  lost  " in line]
    assert [row[0] for row in rows] == ["@6", "@5", "@4", "@3"]
    found: dict[str, Any] = fleet.cloud("devices", "--sort", "name")["devices"][0]["models"][0]
    assert [(one["version"], one["held"]) for one in found["lost"]] == [(n, True) for n in range(3, 7)]
