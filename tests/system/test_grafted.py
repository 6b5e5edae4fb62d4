"""A stock file's whole way: grafted, registered, trained by a device, and every version of it given back by the centre."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from modelwire.tflite.file import read_weights
from tests import broker
from tests.system.fleet import Fleet, cloud
from tests.worlds import MODELS

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

SETTINGS = {"link.resend": "1s", "train.epochs": "2", "train.margin": "1000", "train.learning_rate": "0.02", "store.history": "50"}
# Name of the model, the words behind `edgecloud graft`, and how many classes it has then.
GRAFTS = {
    "walks": (["--train", "last:3", "--optimizer", "momentum", "--batch", "16"], 4),
    "more": (["--train", "head", "--batch", "8", "--add-class", "stairs"], 5),
    "several": (["--train", "all", "--modes", "head", "last:2", "--optimizer", "adam", "--batch", "8"], 4),
    "adam": (["--train", "all", "--optimizer", "adam", "--batch", "8"], 4),
}


def test_a_grafted_file_is_a_base_that_devices_train_and_the_centre_rebuilds(fleet: Fleet, tmp_path: Path) -> None:
    files = {model: tmp_path / f"{model}.tflite" for model in GRAFTS}
    for model, (wanted, _) in GRAFTS.items():
        cloud("graft", str(MODELS / "stock" / "har.tflite"), *wanted, "-o", str(files[model]))
        fleet.add_base(model, files[model], rehearse=True)
    fleet.add_device("pi-7", files, SETTINGS)
    rng = np.random.default_rng(4)
    with fleet.spool("pi-7") as spool:
        for model, (_, classes) in GRAFTS.items():
            labels = np.arange(96) % classes
            x = rng.standard_normal((96, 100, 6)) + 0.4 * labels[:, None, None]
            spool.extend(model, x.astype(np.float32), labels.tolist())
    fleet.agent("pi-7", "run", "--rounds", "2", "--timeout", "500s")
    proof = fleet.cloud("verify", "--all")
    assert proof["wrong"] == [] and proof["exact"] == proof["checked"] == 2 * len(GRAFTS)
    for model, file in files.items():
        fleet.cloud("materialise", f"pi-7/{model}@2", "-o", str(tmp_path / "rebuilt.tflite"))
        rebuilt = (tmp_path / "rebuilt.tflite").read_bytes()
        served = (fleet.home("pi-7") / "state" / "models" / model / "served.tflite").read_bytes()
        assert hashlib.sha256(rebuilt).digest() == hashlib.sha256(served).digest()
        before, after = read_weights(file.read_bytes()), read_weights(rebuilt)
        assert before.keys() == after.keys() and any((before[name] != after[name]).any() for name in before), model
