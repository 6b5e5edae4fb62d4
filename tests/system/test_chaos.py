"""Everything is killed with SIGKILL at random moments, the broker keeps nothing on disk, and nothing is lost or doubled."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import edgecloud
from tests import broker
from tests.broker import Mosquitto
from tests.system.fleet import Fleet
from tests.worlds import MODELS, world

pytestmark = [
    pytest.mark.slow("kills a whole fleet of processes again and again", seconds=100),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

AGENTS, ROUNDS = 4, 150  # 600 updates
SECONDS = 1500.0  # a safety limit; it takes a small part of it
EARLY = 0.25  # of the kills come whenever they come, and may meet a process in its start; the others when it has done some work
WORK = 12  # the most of it: rounds of a device, updates that the ingester has stored
FAST = {
    "link.resend": "1s", "link.resend_max": "4s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "link.window": "8",
    "train.epochs": "1", "train.margin": "1000", "train.learning_rate": "0.02", "update.coalesce_after": "1000", "spool.max_samples": "200",
}  # fmt: skip
MODEL = "digits"


@pytest.fixture
def fleet(tmp_path: Path, hub: Mosquitto) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "fleet", hub.url)
    made.add_base(MODEL)
    yield made
    made.close()


def fill(fleet: Fleet, device: str, seed: int, n: int = 96) -> None:
    """Give a device the samples of a world of its own."""
    x, y = world(MODEL, seed).stream(0, n)
    with fleet.spool(device) as spool:
        spool.extend(MODEL, x, y.tolist())


def versions(fleet: Fleet, device: str) -> list[dict[str, object]]:
    """Return what the device says of its versions, oldest first; rejected rounds are not among them."""
    rows = fleet.agent(device, "log", MODEL)["models"][0]["versions"]
    return sorted((r for r in rows if r["version"]), key=lambda r: r["version"])


def check_all(fleet: Fleet, device: str) -> int:
    """Compare what the device and the registry say of all its versions; return how many the registry holds."""
    mine = versions(fleet, device)
    with edgecloud.open(fleet.db) as registry:
        held = registry.device(device).versions()
        assert [v.number for v in held] == sorted({v.number for v in held}), "a version is stored twice, or out of order"
        sent = [r for r in mine if r["state"] != "skipped"]
        assert [(v.number, v.commit.hex(), v.root.hex()) for v in held] == [(r["version"], r["commit"], r["root"]) for r in sent]
        assert {v.status for v in held} == {"verified"} and {r["state"] for r in sent} == {"verified"}
        served = (fleet.home(device) / "state" / "models" / MODEL / "served.tflite").read_bytes()
        assert held[-1].file() == served
        return len(held)


@pytest.mark.timeout(SECONDS + 100)
def test_500_updates_survive_kill_9_of_agents_ingester_and_broker(fleet: Fleet, hub: Mosquitto) -> None:
    names = [f"pi-{i}" for i in range(AGENTS)]
    for seed, name in enumerate(names):
        fleet.add_device(name, {MODEL: MODELS / f"{MODEL}.tflite"}, FAST, "--rounds", str(ROUNDS))
        fill(fleet, name, seed)
    rng = random.Random(20261122)
    fleet.ingester.start()
    for name in names:
        fleet.devices[name].start()
    kills = {"broker": 0, "ingester": 0, "agents": 0}
    end = time.monotonic() + SECONDS
    done: set[str] = set()
    turn: list[str] = []  # all kinds in random order, again and again: chance alone may spare one of them
    while len(done) < AGENTS:
        assert time.monotonic() < end, f"after {SECONDS:g} s only {sorted(done)} were done; kills: {kills}"
        time.sleep(rng.uniform(0.1, 0.7))
        done = {n for n in names if fleet.devices[n].code == 0}
        failed = [n for n in names if (fleet.devices[n].code or 0) > 0]
        assert not failed, f"{failed[0]}: {fleet.devices[failed[0]].tail()}"
        # The ends are the harder part: while anything is under way, something dies.
        turn = turn or rng.sample(["broker", "ingester", *names], 2 + AGENTS)
        victim = turn.pop()
        if victim != "broker" and rng.random() > EARLY:
            wait_for(partial(at_work, fleet, victim, rng.randint(1, WORK)))  # by the clock alone, a busy machine would come to nothing
        if victim == "broker":
            hub.kill()
            kills["broker"] += 1
            time.sleep(rng.uniform(0.0, 0.5))
            hub.start()
        elif victim == "ingester":
            kills["ingester"] += fleet.ingester.kill()
            time.sleep(rng.uniform(0.0, 0.5))
            fleet.ingester.start()
        elif fleet.devices[victim].kill():
            kills["agents"] += 1
            time.sleep(rng.uniform(0.0, 0.3))
            fleet.devices[victim].start()
    wait_for(lambda: fleet.ingester.said("connected to") > 0)  # the last start may have been a moment ago
    assert fleet.ingester.stop() == 0
    print(f"kills: {kills}")
    assert min(kills.values()) >= 2
    total = sum(check_all(fleet, name) for name in names)
    assert total >= 500 and total == sum(len(versions(fleet, name)) for name in names)
    proof = fleet.cloud("verify", "--all")
    assert (proof["checked"], proof["exact"], proof["wrong"]) == (total, total, [])


def at_work(fleet: Fleet, who: str, much: int) -> bool:
    """Return whether a process has done so much since its start, or has no more to do."""
    if not any(device.running for device in fleet.devices.values()):
        return True
    if who == "ingester":
        return fleet.ingester.said("stored ") >= much
    return not fleet.devices[who].running or fleet.devices[who].said(" epochs") >= much


def test_a_lost_receipt_and_then_an_offline_stretch_that_coalesces_end_without_a_conflict(fleet: Fleet, hub: Mosquitto) -> None:
    settings = {**FAST, "update.coalesce_after": "4", "link.reconnect_max": "500ms"}
    device = fleet.add_device("pi-7", {MODEL: MODELS / f"{MODEL}.tflite"}, settings)
    fill(fleet, "pi-7", 7)
    fleet.ingester.start()
    fleet.agent("pi-7", "run", "--once")  # welcomed; @1 is stored
    fleet.ingester.kill()
    # @2 reaches the broker and no further; the agent dies before any answer.
    fleet.agent("pi-7", "train")
    device.start()
    wait_for(lambda: [r["state"] for r in versions(fleet, "pi-7")][-1] == "offered")
    device.kill()
    # The centre stores it, and its receipt dies with the broker.
    fleet.ingester.start()
    wait_for(lambda: stored(fleet, "pi-7") == 2)
    hub.kill()
    fleet.ingester.kill()
    assert versions(fleet, "pi-7")[-1]["state"] == "offered"
    for _ in range(9):  # offline
        fleet.agent("pi-7", "train")
    fleet.agent("pi-7", "outbox", "coalesce")
    hub.start()
    fleet.ingester.start()
    fleet.agent("pi-7", "publish", "--timeout", "500s")
    wait_for(lambda: {r["state"] for r in versions(fleet, "pi-7")} == {"verified", "skipped"} or publish(fleet))
    states = [r["state"] for r in versions(fleet, "pi-7")]
    assert states == ["verified", "verified", *["skipped"] * 8, "verified"]
    assert check_all(fleet, "pi-7") == 3
    assert fleet.ingester.stop() == 0
    log = fleet.cloud("log", "pi-7")
    assert "conflict" not in str(log) and "refused" not in str(log)


def publish(fleet: Fleet) -> bool:
    """Let the agent hear what was said after it had gone."""
    fleet.agent("pi-7", "publish", "--timeout", "500s")
    return False


def stored(fleet: Fleet, device: str) -> int:
    with edgecloud.open(fleet.db) as registry:
        return len(registry.device(device).versions())


def wait_for(reached: object, seconds: float = 500.0) -> None:
    assert callable(reached)
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.2)
