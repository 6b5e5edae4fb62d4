"""A fleet whose disks fill up: real processes, a real broker, real small disks, kills while full. Nothing is lost, each byte is right."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import broker
from tests.broker import Mosquitto
from tests.disks import FailingDisk, SmallDisk, failing_disk, small_disk
from tests.system.fleet import Fleet, Process
from tests.system.test_restore import MODEL, QUICK, mine, theirs
from tests.worlds import MODELS, world

pytestmark = [
    pytest.mark.slow("starts a fleet of processes, and fills its disks", seconds=40),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

OFTEN = {**QUICK, "train.every": "200ms", "train.min_new_samples": "0", "store.history": "2"}
LIMIT = 240.0  # seconds, a safety limit
WAITS, GOES_ON = "waiting for room", "there is room on the disk again"


class SmallFleet:
    """A fleet of one board that trains all the time; its folder, and the centre's, may lie on disks of their own."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        fleet.ingester.start()
        fleet.add_base(MODEL)
        self.agent = fleet.add_device("pi-7", {MODEL: MODELS / f"{MODEL}.tflite"}, OFTEN)
        x, y = world(MODEL, 0).stream(0, 96)
        with fleet.spool("pi-7") as spool:
            spool.extend(MODEL, x, y.tolist())
        self.agent.start()

    def check(self) -> None:
        """Let all be sent, and hold both sides' lists and the last version's bytes against each other."""
        fleet = self.fleet
        assert self.agent.stop() == 0
        until(lambda: fleet.agent("pi-7", "publish", "--timeout", "200s") and mine(fleet, "pi-7") == theirs(fleet, "pi-7"), "agreement")
        states = mine(fleet, "pi-7")
        assert sorted(states) == list(range(1, len(states) + 1)), "no number is missing, and none was used twice"
        assert set(states.values()) <= {"verified", "skipped"}, states
        fleet.cloud("verify", "--all")
        fleet.cloud("materialise", f"pi-7/{MODEL}", "-o", str(fleet.folder / "rebuilt.tflite"))
        served = fleet.home("pi-7") / "state" / "models" / MODEL / "served.tflite"
        assert (fleet.folder / "rebuilt.tflite").read_bytes() == served.read_bytes()
        for process in (self.agent, fleet.ingester):
            assert "Traceback" not in process.log.read_text()


@dataclass
class Disks:
    """The disks under a fleet."""

    board: SmallDisk
    centre: SmallDisk


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    with small_disk(tmp_path / "fleet" / "devices", "3m") as board, small_disk(tmp_path / "fleet" / "centre", "6m") as centre:
        yield Disks(board, centre)


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[FailingDisk]:
    with failing_disk(tmp_path / "fleet" / "devices") as board:
        yield board


@contextmanager
def running(tmp_path: Path, hub: Mosquitto) -> Iterator[SmallFleet]:
    fleet = Fleet(tmp_path / "fleet", hub.url)
    try:
        yield SmallFleet(fleet)
    finally:
        fleet.close()


@pytest.fixture
def small(tmp_path: Path, disks: Disks, hub: Mosquitto) -> Iterator[SmallFleet]:
    with running(tmp_path, hub) as fleet:
        yield fleet


def until(reached: Callable[[], bool], what: str, *processes: Process) -> None:
    end = time.monotonic() + LIMIT
    while not reached():
        assert time.monotonic() < end, f"{what}: {[p.tail(5) for p in processes]}"
        time.sleep(0.1)


def logged(process: Process, what: str) -> int:
    """Return how often a process has logged this, over all its starts."""
    return process.log.read_text(errors="replace").count(what)


def test_a_board_whose_disk_fills_waits_says_so_and_publishes_again(small: SmallFleet, disks: Disks) -> None:
    agent, fleet = small.agent, small.fleet
    until(lambda: logged(agent, "verified: @2") > 0, "two versions", agent, fleet.ingester)
    disks.board.fill()
    until(lambda: logged(agent, WAITS) > 0, "the agent waits", agent)
    status = fleet.agent("pi-7", "status")
    assert status["agent_pid"] == agent.pid and "No space left" in status["waits_for_disk"]["message"]
    done = subprocess.run(
        [sys.executable, "-m", "edgeagent", "status", "--dir", str(fleet.home("pi-7"))], capture_output=True, text=True, check=True
    )
    assert f"running as process {agent.pid}" in done.stdout and "WAITS for its disk since" in done.stdout
    lost = logged(fleet.ingester, "off line")
    assert lost == 0, "its link stays"
    agent.kill()  # with its disk full; it starts, and waits
    agent.start()
    until(lambda: agent.said(WAITS) > 0, "it waits from the start", agent)
    assert fleet.agent("pi-7", "status")["waits_for_disk"] is not None and agent.running
    until(lambda: logged(fleet.ingester, "off line") > lost, "the broker speaks its will", fleet.ingester)
    before = logged(agent, "verified: @")
    disks.board.free()
    until(lambda: logged(agent, "verified: @") > before, "it publishes again", agent, fleet.ingester)
    assert agent.said(GOES_ON) >= 1 and fleet.agent("pi-7", "status")["waits_for_disk"] is None
    small.check()


def test_a_centre_whose_disk_fills_acknowledges_nothing_and_goes_on_without_a_loss(small: SmallFleet, disks: Disks) -> None:
    agent, ingester = small.agent, small.fleet.ingester
    until(lambda: logged(ingester, "verified pi-7") >= 2, "two versions", agent, ingester)
    disks.centre.fill()
    until(lambda: ingester.said("nothing more is acknowledged until there is room") > 0, "it says so", agent, ingester)
    assert ingester.said("No space left on device") == 1 and ingester.said("refused") == 0
    ingester.kill()
    ingester.start()
    until(lambda: ingester.said("nothing more is acknowledged") > 0, "it waits from the start", ingester)
    before = logged(ingester, "verified pi-7")
    disks.centre.free()
    until(lambda: logged(ingester, "verified pi-7") > before, "it goes on", agent, ingester)
    assert ingester.said(GOES_ON) == 1
    small.check()


@pytest.mark.parametrize("seed", [1, 2])
def test_disks_that_fill_at_any_moment_and_kills_while_full_lose_no_version(small: SmallFleet, disks: Disks, seed: int) -> None:
    agent, ingester, rng = small.agent, small.fleet.ingester, random.Random(seed)
    until(lambda: logged(agent, "verified: @1") > 0, "a version", agent, ingester)
    for _ in range(8):
        time.sleep(rng.uniform(0.1, 1.0))  # any moment: what it falls on is for the seed and the machine to say
        disk = disks.board if rng.random() < 0.75 else disks.centre
        disk.fill(rng.choice([0, 0, 4096, 40_000, 200_000, 300_000]))
        time.sleep(rng.uniform(0.1, 1.5))
        if rng.random() < 0.5:
            agent.kill()
            agent.start()
        if disk is disks.centre and rng.random() < 0.5:
            ingester.kill()
            ingester.start()
        assert agent.running and ingester.running, (agent.tail(), ingester.tail())
        disk.free()
    before = logged(agent, "verified: @")
    until(lambda: logged(agent, "verified: @") > before, "it goes on", agent, ingester)
    small.check()


def test_a_board_whose_kernel_gave_its_disk_up_waits_and_goes_on_once_it_is_mended(
    tmp_path: Path, failing: FailingDisk, hub: Mosquitto
) -> None:
    with running(tmp_path, hub) as fleet:
        agent = fleet.agent
        until(lambda: logged(agent, "verified: @2") > 0, "two versions", agent)
        failing.give_up()
        until(lambda: logged(agent, WAITS) > 0, "the agent waits", agent)
        status = fleet.fleet.agent("pi-7", "status")
        assert status["agent_pid"] == agent.pid and status["models"][0]["version"] >= 2
        assert "Read-only file system" in status["waits_for_disk"]["message"] or "Input/output" in status["waits_for_disk"]["message"]
        agent.kill()
        agent.start()
        until(lambda: agent.said(WAITS) > 0, "it waits from the start", agent)
        assert fleet.fleet.agent("pi-7", "status")["agent_pid"] == agent.pid
        agent.kill()
        failing.mend()
        agent.start()
        until(lambda: agent.said("verified: @") > 0, "it publishes again", agent)
        fleet.check()
