"""Everything is killed with SIGKILL at random moments, the broker keeps nothing on disk, and nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgecloud
from tests import broker
from tests.broker import Mosquitto
from tests.soak import books
from tests.soak.ordeal import FAST, REAL, Plan, endure
from tests.soak.slow_link import Weather
from tests.system.fleet import Fleet
from tests.worlds import MODELS, world

pytestmark = [
    pytest.mark.slow("kills a whole fleet of processes again and again", seconds=70),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

SECONDS = 1500.0  # a safety limit; it takes a small part of it
MODEL = REAL
# Kills of each kind are equally many, and a quarter are done twice. One agent trains by the runtime, one has a link that stalls and breaks.
KILLED = Plan(agents=4, rounds=130, kills=20, seed=20261122, real=1, slow=1, weather=Weather(64_000, 0.01, 0.02, 0.003, 0.003))
FULL = Plan(agents=3, rounds=60, kills=3, seed=7, queue=1, freeze=5.0)  # 3 x 8 updates under way, sent again each few seconds


@pytest.fixture
def fleet(tmp_path: Path, hub: Mosquitto) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "fleet", hub.url)
    made.add_base(MODEL)
    yield made
    made.close()


@pytest.mark.timeout(SECONDS)
def test_500_updates_survive_kill_9_of_agents_ingester_and_broker(tmp_path: Path) -> None:
    came = endure(tmp_path, KILLED, print)
    assert came.books.wrong == [] and came.books.balanced
    assert came.books.made == 520 and min(came.kills.values()) >= 6, came.figures()
    assert came.reconnects > 0, "nobody ever came back to a broker: then nothing was survived"


@pytest.mark.timeout(SECONDS)
def test_updates_survive_a_queue_that_overflows_while_the_ingester_stands_still(tmp_path: Path) -> None:
    came = endure(tmp_path, FULL, print)
    assert came.overflows, "the broker dropped nothing: then nothing was survived"
    assert came.books.wrong == [] and came.books.made == 180 and came.books.balanced


def test_a_lost_receipt_and_then_an_offline_stretch_that_coalesces_end_without_a_conflict(fleet: Fleet, hub: Mosquitto) -> None:
    settings = {**FAST, "update.coalesce_after": "4", "link.reconnect_max": "500ms", "train.learning_rate": "0.02"}
    device = fleet.add_device("pi-7", {MODEL: MODELS / f"{MODEL}.tflite"}, settings)
    x, y = world(MODEL, 7).stream(0, 96)
    with fleet.spool("pi-7") as spool:
        spool.extend(MODEL, x, y.tolist())
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
    came = books.close(fleet, {"pi-7": MODEL})
    assert came.wrong == [] and came.verified == 3
    assert fleet.ingester.stop() == 0
    log = fleet.cloud("log", "pi-7")
    assert "conflict" not in str(log) and "refused" not in str(log)


def versions(fleet: Fleet, device: str) -> list[dict[str, object]]:
    """Return what the device says of its versions, oldest first; rejected rounds are not among them."""
    rows = fleet.look(device, "log", MODEL)["models"][0]["versions"]
    return sorted((r for r in rows if r["version"]), key=lambda r: r["version"])


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
