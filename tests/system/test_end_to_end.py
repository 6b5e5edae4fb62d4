"""Real agents, a real ingester and a real mosquitto, each a process of its own: what a user does, and what must hold after it."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import edgecloud
from edgecommon.runtime import load
from modelwire.tflite.file import read_weights
from modelwire.wire.keys import KeyKind, write_key
from tests import broker
from tests.system.fleet import Fleet, agent
from tests.worlds import MODELS, world

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

QUICK = {
    "link.resend": "1s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "2", "train.margin": "1000",
    "train.learning_rate": "0.02", "store.history": "50",
}  # fmt: skip
RUN = ("run", "--timeout", "500s")


@pytest.fixture
def fleet(fleet: Fleet) -> Fleet:
    for model in ("digits", "motion"):
        fleet.add_base(model, rehearse=True)
    return fleet


def files(*models: str) -> dict[str, Path]:
    return {m: MODELS / f"{m}.tflite" for m in models}


def fill(fleet: Fleet, device: str, *models: str, seed: int = 0) -> None:
    with fleet.spool(device) as spool:
        for model in models:
            x, y = world(model, seed).stream(0, 96)
            spool.extend(model, x, y.tolist())


def served(fleet: Fleet, device: str, model: str, version: int) -> bytes:
    return (fleet.home(device) / "state" / "models" / model / "history" / f"{version}.tflite").read_bytes()


def wait_for(reached: Callable[[], bool], seconds: float = 500.0) -> None:
    """Wait until it is reached. seconds: a safety limit for a machine that hangs."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.2)


def exact(fleet: Fleet) -> dict[str, Any]:
    proof: dict[str, Any] = fleet.cloud("verify", "--all")
    assert proof["wrong"] == [] and proof["exact"] == proof["checked"] > 0
    return proof


def test_a_device_with_two_models_is_materialised_bit_for_bit(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add_device("pi-7", files("digits", "motion"), QUICK)
    fill(fleet, "pi-7", "digits", "motion")
    fleet.agent("pi-7", *RUN, "--rounds", "3")
    runtime = load()
    for model in ("digits", "motion"):
        base = (MODELS / f"{model}.tflite").read_bytes()
        probe = world(model, 0).test_x[:8]
        for version in (1, 2, 3):
            out = tmp_path / f"{model}-{version}.tflite"
            fleet.cloud("materialise", f"pi-7/{model}@{version}", "-o", str(out))
            mine = served(fleet, "pi-7", model, version)
            assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256(mine).digest()
            assert mine != base and len(mine) == len(base)
            here, there = runtime.open(mine, model=model), runtime.open(out.read_bytes(), model=model)
            for x in probe:
                assert here.infer(x[None]).tobytes() == there.infer(x[None]).tobytes()
        assert served(fleet, "pi-7", model, 1) != served(fleet, "pi-7", model, 2)
        want = read_weights(served(fleet, "pi-7", model, 3))
        fleet.cloud("materialise", f"pi-7/{model}", "-o", str(tmp_path / "w.npz"))
        fleet.cloud("materialise", f"pi-7/{model}@latest", "-o", str(tmp_path / "w.safetensors"))
        for got in (dict(np.load(tmp_path / "w.npz")), load_file(tmp_path / "w.safetensors")):
            assert {n: a.tobytes() for n, a in got.items()} == {n: a.tobytes() for n, a in want.items()}
        with edgecloud.open(fleet.db) as registry:
            got = registry.device("pi-7").model(model).version(3).weights()
            assert {n: a.tobytes() for n, a in got.items()} == {n: a.tobytes() for n, a in want.items()}
    exact(fleet)
    assert fleet.ingester.stop() == 0


def test_a_device_that_adopts_nothing_is_materialised_bit_for_bit(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add_base("free", MODELS / "digits.tflite", exact=True)
    fleet.add_device("pi-9", files("digits"), QUICK, exact=True)
    fill(fleet, "pi-9", "digits")
    fleet.agent("pi-9", *RUN, "--rounds", "3")
    base = read_weights((MODELS / "digits.tflite").read_bytes())
    for version in (1, 2, 3):
        out = tmp_path / f"{version}.tflite"
        fleet.cloud("materialise", f"pi-9@{version}", "-o", str(out))
        mine = served(fleet, "pi-9", "digits", version)
        assert out.read_bytes() == mine
        changed = sum(int((w != base[n]).sum()) for n, w in read_weights(mine).items())
        assert changed > sum(w.size for w in base.values()) // 4  # free training moves far more than a delta would
    said = fleet.cloud("log", "pi-9")
    assert [v["kind"] for v in said["versions"]] == ["exact"] * 3
    assert exact(fleet)["exact"] == 3
    assert fleet.ingester.stop() == 0


def test_a_snapshot_that_was_asked_for_comes_in_parts(fleet: Fleet) -> None:
    device = fleet.add_device("pi-7", files("digits"), {**QUICK, "link.part_bytes": "2KiB", "update.density": "0.05"})
    fill(fleet, "pi-7", "digits")
    fleet.agent("pi-7", *RUN, "--rounds", "3")
    fleet.cloud("snapshot", "request", "pi-7")
    device.start()
    with edgecloud.open(fleet.db) as registry:
        wait_for(lambda: [v.kind for v in registry.device("pi-7").versions()][-1] == "snapshot")
        wait_for(lambda: registry.device("pi-7").versions()[-1].status == "verified")
        versions = registry.device("pi-7").versions()
        assert [v.kind for v in versions] == ["delta", "delta", "delta", "snapshot"]
        assert versions[-1].size > 2 * 1024, "it would have fitted in two parts"
        assert versions[-1].root == versions[-2].root
        assert versions[-1].file() == served(fleet, "pi-7", "digits", 3)
    assert device.stop() == 0
    fleet.agent("pi-7", *RUN, "--once")  # life goes on from the snapshot
    exact(fleet)


def test_a_device_that_lost_its_state_goes_on_in_a_new_epoch_with_new_numbers(fleet: Fleet, tmp_path: Path) -> None:
    fleet.add_device("pi-7", files("digits"), QUICK)
    fill(fleet, "pi-7", "digits")
    fleet.agent("pi-7", *RUN, "--rounds", "2")
    home = fleet.home("pi-7")
    key = tmp_path / "device.key"
    shutil.copy(home / "device.key", key)
    shutil.rmtree(home)
    sets = [x for k, v in QUICK.items() for x in ("--set", f"{k}={v}")]
    agent(
        "init", "--device", "pi-7", "--fleet", "demo", "--broker", fleet.url, "--dir", str(home), "--key", str(key),
        "--fleet-key", str(fleet.db.parent / "fleet.pub"), "--model", f"digits={MODELS / 'digits.tflite'}", *sets,
    )  # fmt: skip
    fill(fleet, "pi-7", "digits", seed=1)
    fleet.agent("pi-7", *RUN, "--rounds", "2")
    with edgecloud.open(fleet.db) as registry:
        versions = registry.device("pi-7").versions()
        assert [(v.epoch, v.number, v.status) for v in versions] == [(e, n, "verified") for e, n in ((1, 1), (1, 2), (2, 3), (2, 4))]
        assert versions[2].parent == registry.device("pi-7").version("base").commit
        assert versions[3].file() == served(fleet, "pi-7", "digits", 4)
    exact(fleet)


def test_updates_signed_by_an_unknown_key_wait_until_the_operator_knows_it(fleet: Fleet) -> None:
    device = fleet.add_device("pi-7", files("digits"), QUICK)
    fill(fleet, "pi-7", "digits")
    fleet.agent("pi-7", *RUN, "--rounds", "1")
    fleet.cloud("devices", "revoke", "pi-7")
    key = fleet.home("pi-7") / "device.key"
    revoked = fleet.agent("pi-7", "status")["fingerprint"]
    key.write_text(write_key(KeyKind.DEVICE_PRIVATE, bytes([7]) * 32) + "\n")  # what was revoked stays so: the board gets a key of its own
    fleet.agent("pi-7", "train")
    device.start()
    wait_for(lambda: "quarantine" in str(fleet.look("pi-7", "status")))
    with edgecloud.open(fleet.db) as registry:
        assert len(registry.device("pi-7").versions()) == 1
        shown = fleet.look("pi-7", "status")["fingerprint"]
        assert [(d["device"], d["fingerprint"], d["state"]) for d in fleet.cloud("devices")["waiting"]] == [("pi-7", shown, "pending")]
        with pytest.raises(RuntimeError, match="was revoked"):
            fleet.cloud("devices", "add", "pi-7", revoked)
        fleet.cloud("devices", "add", "pi-7", shown)
        wait_for(lambda: [v.status for v in registry.device("pi-7").versions()] == ["verified"] * 2)
    assert device.stop() == 0
    exact(fleet)


def test_a_backup_taken_while_the_ingester_works_is_whole(fleet: Fleet, tmp_path: Path) -> None:
    device = fleet.add_device("pi-7", files("digits"), QUICK, "--rounds", "12", "--timeout", "500s")
    fill(fleet, "pi-7", "digits")
    device.start()
    with edgecloud.open(fleet.db) as registry:
        wait_for(lambda: sum(len(m.versions()) for m in registry.device("pi-7").models()) >= 3)
    fleet.cloud("backup", str(tmp_path / "monday.db"))
    wait_for(lambda: not device.running)
    assert device.code == 0, device.tail()
    other = tmp_path / "other.db"
    from tests.system.fleet import cloud

    cloud("restore", str(tmp_path / "monday.db"), "--db", str(other))
    proof = cloud("verify", "--all", "--db", str(other))
    assert proof["wrong"] == [] and 3 <= proof["exact"] + proof["waiting"] == proof["checked"] <= 12
    with edgecloud.open(other) as registry:
        for version in registry.device("pi-7").versions():
            assert version.file() == served(fleet, "pi-7", "digits", version.number)
    assert exact(fleet)["exact"] == 12
