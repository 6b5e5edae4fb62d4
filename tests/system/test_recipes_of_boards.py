"""A board that sends its rounds as recipes, over a real broker and killed meanwhile: the centre computes every version itself."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path

import pytest

import edgecloud
from modelwire.update.sections import Kind
from tests import broker
from tests.edgeagent.heads import grafted, samples
from tests.system.fleet import Fleet
from tests.system.test_end_to_end import wait_for

pytestmark = [
    pytest.mark.slow("starts and kills a fleet of processes", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

ROUNDS, KILLS = 20, 4
SETTINGS = {
    "train.mode": "features", "update.kind": "recipe", "train.epochs": "60", "train.optimizer": "momentum", "train.learning_rate": "0.002",
    "train.margin": "1000", "train.min_new_samples": "0", "train.every": "0s", "link.resend": "1s", "link.reconnect_min": "100ms",
    "link.reconnect_max": "1s", "store.history": "50", "update.max_bytes": "64KiB",
}  # fmt: skip


def test_twenty_recipes_of_a_board_that_is_killed_are_replayed_to_twenty_equal_roots(fleet: Fleet, tmp_path: Path) -> None:
    base = tmp_path / "walks.tflite"
    base.write_bytes(grafted())
    fleet.add_base("walks", base)
    device = fleet.add_device("pi-7", {"walks": base}, SETTINGS, "--rounds", str(ROUNDS), "--timeout", "500s")
    with fleet.spool("pi-7") as spool:
        x, y = samples(160)
        spool.extend("walks", x, y.tolist())
    rng = random.Random(3)
    for _ in range(KILLS):
        device.start()
        wait_for(lambda: device.said("round") > 0 or not device.running)
        time.sleep(rng.uniform(0.0, 1.5))
        device.kill()
    device.start()
    end = time.monotonic() + 500
    while device.running:
        assert time.monotonic() < end, device.tail()
        time.sleep(0.2)
    assert device.code == 0, device.tail()
    proof = fleet.cloud("verify", "--all")
    assert proof["wrong"] == [] and proof["exact"] == proof["checked"] == ROUNDS
    with edgecloud.open(fleet.db) as registry:
        versions = registry.device("pi-7").versions()
        assert [v.kind for v in versions] == [Kind.RECIPE.name.lower()] * ROUNDS
        assert all(v.status == "verified" for v in versions)
    mine = fleet.home("pi-7") / "state" / "models" / "walks" / "history"
    for version in (1, ROUNDS // 2, ROUNDS):
        out = tmp_path / f"{version}.tflite"
        fleet.cloud("materialise", f"pi-7@{version}", "-o", str(out))
        assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256((mine / f"{version}.tflite").read_bytes()).digest()
