"""Real boards, a real broker and a real ingester: a claim lets in its boards by themselves, and nobody else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import broker
from tests.system.fleet import Fleet, Process, agent
from tests.system.test_end_to_end import QUICK, RUN, exact, files, fill, wait_for

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]


def flashed(fleet: Fleet, name: str, claim: Path, serial: str) -> Process:
    """Make a board as its image does: with the claim's token, and no word to the centre. Return its agent, not started."""
    home = fleet.home(name)
    words = ["init", "--device", name, "--fleet", "demo", "--broker", fleet.url, "--dir", str(home), "--claim", str(claim)]
    words += ["--fleet-key", str(fleet.db.parent / "fleet.pub"), "--set", f"device.serial={serial}"]
    for model, file in files("digits").items():
        words += ["--model", f"{model}={file}"]
    for key, value in QUICK.items():
        words += ["--set", f"{key}={value}"]
    agent(*words)
    command = [sys.executable, "-m", "edgeagent", "run", "--dir", str(home)]
    fleet.devices[name] = Process(name, command, fleet.folder / f"{name}.log")
    return fleet.devices[name]


def test_boards_with_a_token_come_by_themselves_and_the_one_too_many_does_not(fleet: Fleet) -> None:
    fleet.add_base("digits")
    claim, serials = fleet.folder / "line.claim", fleet.folder / "serials.txt"
    serials.write_text("s1\ns2\ns3\n")
    fleet.cloud("claim", "new", "--count", "2", "--serials", str(serials), "--expires", "1h", "-o", str(claim))
    flashed(fleet, "pi-1", claim, "s1")
    fill(fleet, "pi-1", "digits")
    fleet.agent("pi-1", *RUN, "--rounds", "1")
    second = flashed(fleet, "pi-2", claim, "s2")
    second.start()
    wait_for(lambda: second.said("asked to be let in by the claim") == 1 and second.said("counting on from @0") == 1)
    for name, serial, why in (("pi-3", "s3", b"all are in"), ("pi-4", "s1", b"was let in before, as pi-1"), ("pi-5", "x", b"none that")):
        late = flashed(fleet, name, claim, serial)
        late.start()
        wait_for(lambda why=why: why in fleet.ingester.log.read_bytes())  # type: ignore[misc]
        assert late.said("counting on from") == 0
        late.stop()
    second.stop()
    listed = fleet.cloud("devices")
    assert {d["device"]: d["status"] for d in listed["devices"]} == {"pi-1": "admitted", "pi-2": "admitted"}
    assert {k["device"] for k in listed["waiting"]} == {"pi-3", "pi-4", "pi-5"} and listed["preauthorised"] == []
    exact(fleet)
    secret = claim.read_text().strip()[-64:]
    logs = b"".join(path.read_bytes() for path in fleet.folder.glob("*.log"))
    held = b"".join(path.read_bytes() for path in fleet.db.parent.glob("fleet.db*") if path.is_file())
    assert secret.encode() not in logs + held and bytes.fromhex(secret) not in held
