"""A fleet of two boards with one broker: where the modem sleeps small updates go as one, where the link is always on each goes at once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

import edgecloud
from tests import broker
from tests.system.fleet import Fleet
from tests.worlds import MODELS, world

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=20),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

QUICK = {
    "link.resend": "1s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "2", "train.margin": "1000",
    "train.learning_rate": "0.02", "train.every": "1h",
}  # fmt: skip
ROUNDS = 4


def test_updates_wait_for_each_other_on_a_link_that_sleeps_and_on_no_other(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add_base("digits")
    for name, profile in (("camera", "lte-sleeping"), ("desk", "ethernet")):
        fleet.add_device(name, {"digits": MODELS / "digits.tflite"}, {**QUICK, "link.profile": profile})
        with fleet.spool(name) as spool:
            x, y = world("digits", 0).stream(0, 96)
            spool.extend("digits", x, y.tolist())
        done = fleet.agent(name, "run", "--timeout", "500s", "--rounds", str(ROUNDS))
        assert [r["decision"]["choice"] for r in done["rounds"]] == (["wait"] if name == "camera" else ["delta"]) * ROUNDS
    with edgecloud.open(fleet.db) as registry:
        came = {name: [(v.number, v.status) for v in registry.device(name).versions()] for name in ("camera", "desk")}
    assert came == {"camera": [(ROUNDS, "verified")], "desk": [(n, "verified") for n in range(1, ROUNDS + 1)]}
    for name in came:
        out = tmp_path / f"{name}.tflite"
        fleet.cloud("materialise", f"{name}@{ROUNDS}", "-o", str(out))
        served: dict[str, Any] = fleet.agent(name, "status")["models"][0]
        assert served["version"] == ROUNDS and hashlib.sha256(out.read_bytes()).hexdigest() == served["file_sha256"], "bit for bit"
    told = fleet.cloud("why", f"camera@{ROUNDS}")
    assert told["plan"]["choice"] == "wait" and told["skipped"] == [[1, ROUNDS - 1]] and "let it wait" in told["reason"]
    assert told["plan"]["sources"]["joules_per_wakeup"] == "profile"
    assert fleet.cloud("why", f"desk@{ROUNDS}")["plan"]["choice"] == "delta"
    why = fleet.agent("camera", "why", f"digits@{ROUNDS}")["decisions"][0]
    assert (why["state"], why["decision"]["choice"]) == ("verified", "wait")
    assert fleet.ingester.stop() == 0
