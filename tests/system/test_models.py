"""A board that is set up takes a second model, loses it and takes it again, over a real broker, beside a running ingester."""

from __future__ import annotations

import numpy as np
import pytest

from tests import broker
from tests.system.fleet import Fleet
from tests.worlds import MODELS

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]
SETTINGS = {"link.resend": "1s", "train.min_samples": "8", "train.margin": "100", "train.epochs": "1"}


def feed(fleet: Fleet, model: str, width: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(40, width)).astype(np.float32)
    with fleet.spool("pi-7") as spool:
        spool.extend(model, x, x[:, :3].argmax(1))


def test_a_second_model_is_added_removed_and_added_again(fleet: Fleet) -> None:
    fleet.add_base("tiny")
    fleet.add_device("pi-7", {"tiny": MODELS / "tiny.tflite"}, SETTINGS)
    feed(fleet, "tiny", 4, 1)
    fleet.agent("pi-7", "run", "--rounds", "1", "--timeout", "100s")

    added = fleet.agent("pi-7", "model", "add", f"digits={MODELS / 'digits.tflite'}")
    assert added["on_the_centre"] == [f"edgecloud bases add {MODELS / 'digits.tflite'}"] and added["version"] == 0
    with pytest.raises(RuntimeError, match="it does not hold this base"):
        fleet.agent("pi-7", "publish", "--timeout", "60s")
    fleet.add_base("digits")
    feed(fleet, "digits", 64, 2)
    fleet.agent("pi-7", "run", "--rounds", "2", "--timeout", "100s")

    removed = fleet.agent("pi-7", "model", "remove", "digits", "--yes")
    assert (removed["version"], removed["samples"], removed["dropped"]) == (2, 40, [])
    assert [m["name"] for m in fleet.agent("pi-7", "model", "list")["models"]] == ["tiny"]
    fleet.agent("pi-7", "publish", "--timeout", "60s")

    fleet.agent("pi-7", "model", "add", f"digits={MODELS / 'digits.tflite'}")
    feed(fleet, "digits", 64, 3)
    fleet.agent("pi-7", "run", "--rounds", "3", "--timeout", "100s")
    status = {m["name"]: m for m in fleet.agent("pi-7", "status")["models"]}
    assert (status["digits"]["epoch"], status["digits"]["version"], status["digits"]["verified"]) == (2, 5, 5)
    assert (status["tiny"]["epoch"], status["tiny"]["version"]) == (1, 3), "what was there goes on as it was"
    log = fleet.cloud("log", "pi-7/digits")["versions"]
    assert sorted((v["version"], v["epoch"], v["status"]) for v in log) == [
        (1, 1, "verified"), (2, 1, "verified"), (3, 2, "verified"), (4, 2, "verified"), (5, 2, "verified"),
    ]  # fmt: skip
    proof = fleet.cloud("verify", "--all")
    assert proof["wrong"] == [] and proof["exact"] == 8
