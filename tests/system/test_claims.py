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
    late = (("pi-3", "s3", "all are in"), ("pi-4", "s1", "was let in before, as pi-1"), ("pi-5", "x", "none that it lists"))
    told = "it was for 2 boards, and all are in"  # of a claim that is used up, all boards are told that, whatever their serial numbers
    for name, serial, why in late:
        board = flashed(fleet, name, claim, serial)
        board.start()
        wait_for(lambda board=board: board.said(f"does not let this board in: {told}") == 1)  # type: ignore[misc]
        wait_for(lambda why=why: why.encode() in fleet.ingester.log.read_bytes())  # type: ignore[misc]
        status = fleet.look(name, "status")
        assert status["claim_refused"] == told and f"edgecloud devices add {name}" in status["models"][0]["hint"]
        assert board.said("counting on from") == 0
        board.stop()
    second.stop()
    listed = fleet.cloud("devices")
    assert {d["device"]: d["status"] for d in listed["devices"]} == {"pi-1": "admitted", "pi-2": "admitted"}
    assert {k["device"] for k in listed["waiting"]} == {"pi-3", "pi-4", "pi-5"} and listed["preauthorised"] == []
    refused = {k["device"]: (k["claim"]["serial"], k["claim"]["refused"]) for k in listed["waiting"]}
    assert all(refused[name][0] == serial and why in refused[name][1] for name, serial, why in late)
    assert {b["device"] for b in fleet.cloud("claim", "list")["claims"][0]["refused"]} == {"pi-3", "pi-4", "pi-5"}
    exact(fleet)
    secret = claim.read_text().strip()[-64:]
    logs = b"".join(path.read_bytes() for path in fleet.folder.glob("*.log"))
    held = b"".join(path.read_bytes() for path in fleet.db.parent.glob("fleet.db*") if path.is_file())
    assert secret.encode() not in logs + held and bytes.fromhex(secret) not in held
