"""Recipes over a real broker, to a real ingester: proven, replayed, and a sample forgotten on both sides, whoever is killed meanwhile."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from edgeagent.settings import reading
from edgeagent.state.folder import open_folder
from modelwire.lattice.replay import kind_of, update_of
from modelwire.lattice.state import ModelState
from tests import broker
from tests.edgeagent.recipes import BASE, learn
from tests.edgecloud.device import recipe_on
from tests.system.fleet import Fleet
from tests.system.test_end_to_end import exact, files, wait_for

pytestmark = [
    pytest.mark.slow("starts and kills a fleet of processes", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

SETTINGS = {
    "link.resend": "1s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.min_samples": "100000", "store.history": "50",
}  # fmt: skip
ROUNDS = (range(1, 25), range(10, 40), range(20, 60))


@pytest.fixture
def fleet(fleet: Fleet) -> Fleet:
    fleet.add_base("tiny")
    return fleet


def never_seen(gone: set[int]) -> ModelState:
    """Return what the rounds come to on a device that never had these samples."""
    state = ModelState.of_base(BASE.manifest, BASE.weights)
    for seed, ids in enumerate(ROUNDS):
        state.apply(kind_of(state), update_of(state, recipe_on(BASE, [i for i in ids if i not in gone], seed=seed)))
    return state


def teach(fleet: Fleet) -> None:
    """Have the device make its versions, while its agent is off."""
    settings = reading.load(fleet.home("pi-7") / reading.FILE, environment={}, flags={})
    with open_folder(settings, alone=True) as opened:
        rng = np.random.default_rng(1)
        opened.spool.extend("tiny", rng.standard_normal((60, 4)).astype(np.float32), [i % 3 for i in range(60)])
        for seed, ids in enumerate(ROUNDS):
            learn(opened.lineages["tiny"], ids, seed=seed)


def test_a_sample_is_forgotten_on_both_sides_and_the_centre_holds_what_the_device_serves(fleet: Fleet, tmp_path: Path) -> None:
    agent = fleet.add_device("pi-7", files("tiny"), SETTINGS)
    fleet.agent("pi-7", "publish", "--timeout", "500s")  # an epoch
    teach(fleet)
    agent.start()
    wait_for(lambda: fleet.look_up("devices")["devices"][0]["models"][0]["verified"] == 3)
    log = fleet.cloud("log", "pi-7")
    assert [v["kind"] for v in log["versions"]] == ["recipe"] * 3 and exact(fleet)["exact"] == 3

    replayed = fleet.cloud("replay", "pi-7@2", "--set", "lr=0.01", "-o", str(tmp_path / "other.tflite"))
    assert replayed["equal"] and replayed["rows"] == 30 and replayed["what_if"]["changed"] > 0
    agent.kill()  # it would have done it before it is asked twice
    said = fleet.cloud("forget", "pi-7@2", "--rows", "2,12", "--send", "-o", str(tmp_path / "without.tflite"))
    assert said["samples"] == [12, 22] and [d["rows"] for d in said["dropped"]] == [2, 2, 1]
    assert said["root"] == never_seen({12, 22}).root.hex()
    assert fleet.cloud("forget", "pi-7@2", "--rows", "2,12", "--send")["number"] == said["number"], "asked once"

    rng, end = random.Random(3), time.monotonic() + 500
    while fleet.cloud("devices")["devices"][0]["models"][0]["verified"] < 4:  # the device is killed until it is done
        assert time.monotonic() < end
        agent.kill()
        agent.start()
        # By the clock alone, it would not come beyond its start on a busy machine.
        wait_for(lambda: agent.said("connected to") > 0 or not agent.running or rng.random() < 0.1)
        time.sleep(rng.uniform(0.0, 1.0))
    wait_for(lambda: fleet.look_up("show", "pi-7")["models"][0]["requests"][-1]["ok"] is True)
    log = fleet.cloud("log", "pi-7")["versions"][::-1]
    assert [(v["version"], v["kind"], v["status"]) for v in log[3:]] == [(4, "delta", "verified")], "once, and no more"
    assert log[3]["root"] == said["root"] and log[3]["metrics"]["note"] == "forgot 2 samples" and exact(fleet)["exact"] == 4
    agent.stop()
    with fleet.spool("pi-7") as spool:
        left = [int(i) for side in spool.split("tiny", 0.2, until=99) for i in side.ids]
    assert sorted(left) == [i for i in range(1, 61) if i not in (12, 22)]
    served = (fleet.home("pi-7") / "state" / "models" / "tiny" / "served.tflite").read_bytes()
    fleet.cloud("materialise", "pi-7@latest", "-o", str(tmp_path / "head.tflite"))
    assert served == (tmp_path / "head.tflite").read_bytes() == (tmp_path / "without.tflite").read_bytes()

    again = fleet.cloud("forget", "pi-7@1", "--rows", "0-3")  # on top of what was forgotten before
    assert again["root"] == never_seen({12, 22, 1, 2, 3, 4}).root.hex()
