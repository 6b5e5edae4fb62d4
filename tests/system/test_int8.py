"""Two stock wake words learn another word on a device: three rounds each, over a real broker, every version given back by the centre."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgecloud
from edgecloud.graft import retraining
from edgecloud.graft.stock import Stock, read
from modelwire.tflite.file import read_head
from modelwire.wire import cbor
from tests import broker, int8
from tests.stock import stock_path
from tests.system.fleet import Fleet

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

WORDS = {"okay-nabu": "okay_nabu", "hey-jarvis": "hey_jarvis"}
SETTINGS = {"link.resend": "1s", "store.history": "50", "train.epochs": "10"}  # the rest as everyone has it
OF_A_ROUND = {"samples", "steps", "mode", "loss_before", "loss_after", "accuracy_before", "accuracy_after"}
ROUNDS, ROWS, FRAMES = 3, 100, 20


def uncarded(version: edgecloud.Version) -> int:
    """Return the bytes of a version with what its round came to, and without a data card, which is as large as its owner likes."""
    every = dict(version.metrics)
    return version.size - len(cbor.encode(every)) + len(cbor.encode({key: value for key, value in every.items() if key in OF_A_ROUND}))


def exposed(file: bytes) -> tuple[Stock, bytes]:
    stock = read(file)
    return stock, retraining.exposing(stock, retraining.int8_head_of(stock, stock.outputs[0]).seen)


def test_stock_wake_words_learn_another_word_and_each_version_takes_at_most_600_bytes(fleet: Fleet, tmp_path: Path) -> None:
    files = {model: stock_path(name) for model, name in WORDS.items()}
    for model, path in files.items():
        said = fleet.cloud("bases", "add", str(path), "--name", model)
        assert said["int8_head"]["probability"] == "logistic"
    fleet.add_device("pi-7", files, SETTINGS)
    clips, rows, labels = {}, {}, np.zeros(0)
    for model, path in files.items():
        stock, seen = exposed(path.read_bytes())
        clips[model], labels = int8.clips_of(stock.tensors[stock.inputs[0]].shape[1:], 2, ROUNDS * ROWS + 40, FRAMES)
        rows[model] = int8.outputs(seen, clips[model])[1]
    for round_ in range(ROUNDS):
        with fleet.spool("pi-7") as spool:
            for model in WORDS:
                part = slice(round_ * ROWS, (round_ + 1) * ROWS)
                spool.extend(model, rows[model][part], labels[part])
        fleet.agent("pi-7", "run", "--rounds", str(round_ + 1), "--timeout", "500s")
    proof = fleet.cloud("verify", "--all")
    assert proof["wrong"] == [] and proof["exact"] == proof["checked"] == ROUNDS * len(WORDS)
    for model, path in files.items():
        base = path.read_bytes()
        with edgecloud.open(fleet.db) as registry:
            versions = registry.device("pi-7").model(model).versions()
        assert [v.kind for v in versions] == ["delta"] * ROUNDS
        sizes = [uncarded(v) for v in versions]
        assert max(sizes) <= 600, sizes
        for version in range(1, ROUNDS + 1):
            out = tmp_path / "rebuilt.tflite"
            fleet.cloud("materialise", f"pi-7/{model}@{version}", "-o", str(out))
            history = fleet.home("pi-7") / "state" / "models" / model / "history" / f"{version}.tflite"
            assert out.read_bytes() == history.read_bytes() != base
        served = (fleet.home("pi-7") / "state" / "models" / model / "served.tflite").read_bytes()
        assert len(served) == len(base) and served == out.read_bytes()
        head = read_head(base)
        assert head is not None
        inside = [place for v in head.variables for place in range(v.offset, v.offset + v.nbytes)]
        assert {i for i, (a, b) in enumerate(zip(base, served, strict=True)) if a != b} <= set(inside)
        _, seen = exposed(served)
        after, again = int8.outputs(seen, clips[model][-40:])
        assert again.tobytes() == rows[model][-40:].tobytes()  # in front of the head nothing moved
        assert ((after[:, 0] > 127) == labels[-40:]).mean() >= 0.9
