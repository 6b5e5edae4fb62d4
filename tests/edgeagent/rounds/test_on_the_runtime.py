"""Rounds on the real runtime and real data: the worlds of the demo, each a device of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgeagent.samples.spool import Samples, is_held_out
from edgeagent.service.goal import Goal
from edgeagent.training.batches import Trainable
from edgeagent.training.course import Lesson, courses_for
from edgeagent.training.guard import measure
from edgecommon import runtime
from modelwire.errors import RuntimeUnusable, TrainingDiverged
from modelwire.wire.records import Level
from tests.edgeagent.boards import centre, make, rig
from tests.edgeagent.centre import FakeClock
from tests.worlds import model_file, world

try:
    RUNTIME = runtime.load()
except RuntimeUnusable as e:
    pytest.skip(f"no TFLite runtime in this environment: {e}", allow_module_level=True)

RATES = {"digits": "0.1", "motion": "0.02"}
BOTH = pytest.mark.parametrize("name", ["digits", "motion"])


def open_model(file: bytes, name: str) -> Trainable:
    return RUNTIME.open(file, model=name)


def labelled(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]], y: np.ndarray[tuple[int], np.dtype[np.int64]], classes: int) -> Samples:
    return Samples(x, np.eye(classes, dtype=np.float32)[y], True)


@pytest.mark.slow("trains a real net, round after round")
@BOTH
def test_six_rounds_of_a_device_raise_its_accuracy_and_the_centre_rebuilds_each(tmp_path: Path, name: str) -> None:
    w, base = world(name, 1), model_file(name)
    classes = int(w.test_y.max()) + 1
    judge = labelled(w.test_x, w.test_y, classes)
    make(
        tmp_path / "d", models={name: base}, train__learning_rate=RATES[name], train__epochs="5", train__margin="0.05",
        update__density="0.005", train__min_new_samples="100",
    )  # fmt: skip
    c = centre(FakeClock(), file=base)
    with rig(tmp_path / "d", c, open_model) as r:
        for n in range(6):
            x, y = w.stream(n, 200)
            r.device.spool.extend(name, x, y)
            r.run(Goal(rounds=n + 1, fresh=True, timeout=600))
        held = c.held("pi-7", name)
        assert all(h.level is Level.VERIFIED for h in held.values())
        before = measure(open_model(base, name), judge)
        served = r.lineage.store.served.read_bytes()
        after = measure(open_model(served, name), judge)
        assert before.accuracy is not None and after.accuracy is not None
        assert before.accuracy < 0.8 and after.accuracy > before.accuracy + 0.05
        sizes = sorted(h.size for h in held.values())
        assert sizes[len(sizes) // 2] <= 0.015 * r.lineage.manifest.schema.nbytes, "a whole signed delta, of the float32 state"
        for row in r.lineage.versions():
            if row["version"] is not None:
                kept = r.lineage.store.folder / "history" / f"{row['version']}.tflite"
                assert hashlib.sha256(kept.read_bytes()).digest() == row["file_sha256"]


@BOTH
def test_a_round_done_twice_from_the_same_state_gives_the_same_bits(name: str) -> None:
    w = world(name, 0)
    x, y = w.stream(0, 100)
    data = labelled(x, y, int(w.test_y.max()) + 1)
    outcome = []
    for _ in range(2):
        model = open_model(model_file(name), name)
        lesson = Lesson(name, data, model.get_weights(), 2, 0.02, 7)
        course = courses_for(model_file(name), model=name)[-1].begin(model, lesson)
        losses = [course.step() for _ in range(course.steps)]
        outcome.append((losses, {n: v.tobytes() for n, v in model.get_weights().items()}))
    assert outcome[0] == outcome[1]


def test_a_learning_rate_that_is_far_too_high_is_a_rejected_round(tmp_path: Path) -> None:
    base = model_file("digits")
    make(tmp_path / "d", models={"digits": base}, train__learning_rate="1e9", train__epochs="20", train__margin="0.02")
    c = centre(FakeClock(), file=base)
    with rig(tmp_path / "d", c, open_model) as r:
        x, y = world("digits", 0).stream(0, 200)
        r.device.spool.extend("digits", x, y)
        r.run(Goal(rounds=1, timeout=60))
        row = r.lineage.versions(1)[0]
        assert row["state"] == "rejected"
        assert r.lineage.store.served.read_bytes() == base
        assert isinstance(r.agent.reports[0].error, TrainingDiverged) or "worse" in row["reason"]


@pytest.mark.slow("trains a real net, round after round")
def test_shuffled_labels_are_rejected_and_do_no_lasting_harm(tmp_path: Path) -> None:
    w, base = world("digits", 2), model_file("digits")
    make(
        tmp_path / "d", models={"digits": base}, train__learning_rate="0.1", train__epochs="5", train__margin="0.02",
        update__density="0.01", spool__max_samples="300",
    )  # fmt: skip
    c = centre(FakeClock(), file=base)
    with rig(tmp_path / "d", c, open_model) as r:
        for n in range(4):
            x, y = w.stream(n, 300)
            r.device.spool.extend("digits", x, y)
            r.run(Goal(rounds=n + 1, timeout=60))
        good = r.lineage.load()
        x, y = w.stream(9, 300)
        # The held-out samples keep their labels; what is trained on lies.
        ids = range(r.device.spool.last_id("digits") + 1, r.device.spool.last_id("digits") + 301)
        lies = np.array([label if is_held_out(i, 0.2) else (label + 1 + i % 9) % 10 for i, label in zip(ids, y, strict=True)])
        r.device.spool.extend("digits", x, lies)
        r.run(Goal(rounds=5, timeout=60))
        assert r.lineage.versions(1)[0]["state"] == "rejected"
        now = r.lineage.load()
        assert now.state.root == good.state.root and [a.tobytes() for a in now.residual] == [a.tobytes() for a in good.residual]
