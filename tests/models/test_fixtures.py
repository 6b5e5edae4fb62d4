"""The committed models and data: what they are, and that the worlds are hard for the base and learnable on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecommon import runtime as seam
from modelwire.errors import RuntimeUnusable
from modelwire.tflite.file import check_trainable, contract, read_weights
from tests.worlds import model_file, world

HERE = Path(__file__).parent
BOTH = pytest.mark.parametrize("name", ["digits", "motion"])
EACH_WORLD = pytest.mark.parametrize(("name", "seed"), [(name, seed) for name in ("digits", "motion") for seed in range(4)])
PLAN = {"digits": (480, 4, 0.05), "motion": (48, 4, 0.002)}  # samples a round, epochs a round, learning rate; six rounds


@pytest.fixture(scope="module")
def runtime() -> seam.Runtime:
    try:
        return seam.load()
    except RuntimeUnusable as e:
        pytest.skip(f"no TFLite runtime in this environment: {e}")


@BOTH
def test_each_model_keeps_the_contract_and_trains_at_least_50000_weights(name: str) -> None:
    file = model_file(name)
    check_trainable(file)
    assert sum(a.size for a in read_weights(file).values()) >= 50_000
    assert len(file) < 300_000
    assert contract(file).evaluates


@BOTH
def test_the_data_is_what_its_readme_says(name: str) -> None:
    data = np.load(HERE / "data" / f"{name}.npz")
    shape, classes, counts = {"digits": ((8, 8), 10, (1200, 597)), "motion": ((100, 6), 4, (40, 40))}[name]
    for side, count in zip(("train", "test"), counts, strict=True):
        assert data[f"{side}_x"].shape == (count, *shape)
        assert set(data[f"{side}_y"]) == set(range(classes))
    assert len({x.tobytes() for side in ("train", "test") for x in data[f"{side}_x"]}) == sum(counts), "an item lies on both sides"


@EACH_WORLD
def test_the_base_fails_in_each_world_and_a_few_dozen_epochs_of_its_stream_teach_it(runtime: seam.Runtime, name: str, seed: int) -> None:
    here, model = world(name, seed), runtime.open(model_file(name))
    samples, epochs, lr = PLAN[name]
    before = accuracy(model, here.test_x, here.test_y)
    rng = np.random.default_rng(seed)
    for round in range(6):
        x, y = here.stream(round, samples)
        targets = np.eye(model.classes, dtype=np.float32)[y]
        for _ in range(epochs):
            for pick in rng.permutation(samples).reshape(-1, model.batch):
                model.train(x[pick], targets[pick], lr)
    after = accuracy(model, here.test_x, here.test_y)
    assert before < 0.80
    assert after > max(0.82, before + 0.2), (before, after)


@BOTH
def test_the_base_is_good_where_it_was_trained(runtime: seam.Runtime, name: str) -> None:
    data, model = np.load(HERE / "data" / f"{name}.npz"), runtime.open(model_file(name))
    x = data["test_x"].reshape(-1, 64) / 16 if name == "digits" else data["test_x"]
    assert accuracy(model, x, data["test_y"]) >= 0.95


@EACH_WORLD
def test_a_world_is_fixed_by_its_seed(name: str, seed: int) -> None:
    one, two, other = world(name, seed), world(name, seed), world(name, seed + 1)
    for field in ("train_x", "train_y", "test_x", "test_y"):
        assert getattr(one, field).tobytes() == getattr(two, field).tobytes()
    assert one.test_x.tobytes() != other.test_x.tobytes()
    shape = contract(model_file(name)).x_shape
    for x in (one.train_x, one.test_x, one.stream(0, 5)[0]):
        assert x.dtype == np.float32
        assert x.shape[1:] == shape
        assert np.isfinite(x).all()


@BOTH
def test_a_stream_is_fixed_by_its_round_and_never_repeats_a_sample(name: str) -> None:
    here = world(name, 2)
    x, y = here.stream(3, 100)
    again, labels = here.stream(3, 100)
    assert x.tobytes() == again.tobytes()
    assert np.array_equal(y, labels)
    later, _ = here.stream(4, 100)
    assert len({s.tobytes() for s in (*x, *later)}) == 200
    assert set(np.bincount(y, minlength=1 + y.max())) != {0}


def accuracy(model: seam.RuntimeModel, x: np.ndarray, y: np.ndarray) -> float:  # type: ignore[type-arg]
    return float((model.evaluate(x).argmax(1) == y).mean())
