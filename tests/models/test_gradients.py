"""Grafted files compute TensorFlow's gradients, infer like their stock files to the bit, and train; on every runtime that is installed."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from edgecloud.graft.grafting import Grafted, Wish, graft
from edgecommon.runtime import interpreter_for
from tests.models.gradients import BATCH, GROUPS, pick, samples
from tests.stock import STOCK, runtime, stock_file

pytestmark = pytest.mark.slow("runs every stock net in a TFLite runtime")

FILES = [pair for group in GROUPS.values() for pair in group]
VECTORS = {key: value for group in GROUPS for key, value in np.load(STOCK / f"{group}.npz").items()}
CLOSE = 1e-5  # of the largest entry of each tensor's gradient
# What a file may be off with the delegate. Of face_landmark one entry in front of p_re_lu_11 is 8e-7, where the largest is 12: the
# delegate's rounding puts it on the other side of 0. Behind that PReLU all gradients are close; in front of it up to 5e-4 off.
AT_A_KINK = {"face_landmark": 1e-3}


@functools.cache
def grafted(name: str, cut: str, optimizer: str = "momentum") -> Grafted:
    return graft(stock_file(name), Wish(train=(cut,), optimizer=optimizer, batch=BATCH, model=name))


@pytest.mark.parametrize(("name", "cut"), FILES, ids=lambda v: v)
def test_gradients_are_tensorflows(name: str, cut: str) -> None:
    """The first step of momentum leaves the gradient itself in its slots: nothing is lost to a subtraction.

    Where the delegate's rounding puts an entry on the other side of a kink than TensorFlow's did, the file's own kernels say what is right.
    """
    far = distances(name, cut, delegates=True)
    if name in AT_A_KINK and max(far.values()) > CLOSE:
        assert max(far.values()) < AT_A_KINK[name], far
        far = distances(name, cut, delegates=False)
    assert max(far.values()) <= CLOSE, {weight: distance for weight, distance in far.items() if distance > CLOSE}


def distances(name: str, cut: str, *, delegates: bool) -> dict[str, float]:
    """Return how far each weight's gradient is from TensorFlow's, as a share of its largest entry."""
    made = grafted(name, cut)
    interpreter = interpreter_for(runtime().interpreter, made.file, delegates=delegates)
    runner = interpreter.get_signature_runner("train")
    wanted = interpreter_shapes(runner)
    x, y = samples(wanted["x"][1:], wanted["y"][1:], made.loss)
    loss = float(np.asarray(runner(x=x, y=y, lr=np.float32(0))["loss"]).reshape(()))
    assert loss == pytest.approx(float(VECTORS[f"{name}|{cut}|loss"]), rel=CLOSE)
    state = interpreter.get_signature_runner("get_state")()
    names = [weight for layer in made.layers for weight in layer.weights]
    assert len(names) == sum(key.startswith(f"{name}|{cut}|") for key in VECTORS) - 1
    out = {}
    for weight in names:
        ours, theirs = pick(weight, state[f"{weight}_momentum"].astype(np.float64)), VECTORS[f"{name}|{cut}|{weight}"]
        assert theirs[0] > 0, weight
        out[weight] = float(np.abs(ours - theirs).max() / theirs[0])
    return out


def interpreter_shapes(runner: object) -> dict[str, tuple[int, ...]]:
    return {n: tuple(int(i) for i in d["shape"]) for n, d in runner.get_input_details().items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "cut"), FILES, ids=lambda v: v)
def test_infer_is_the_stock_file_to_the_bit(name: str, cut: str) -> None:
    """Without the delegate, which takes other kernels where weights may change."""
    made = grafted(name, cut)
    before = interpreter_for(runtime().interpreter, stock_file(name), delegates=False)
    after = interpreter_for(runtime().interpreter, made.file, delegates=False)
    infer = after.get_signature_runner("infer")
    given = before.get_input_details()[0]
    rng = np.random.default_rng(3)
    for _ in range(3):
        x = rng.standard_normal(given["shape"]).astype(np.float32)
        before.set_tensor(given["index"], x)
        before.invoke()
        expected = [before.get_tensor(d["index"]).tobytes() for d in before.get_output_details()]
        assert sorted(expected) == sorted(np.asarray(v).tobytes() for v in infer(x=x).values())


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("name", ["har", "autoencoder", "gru", "lstm", "residual"])
def test_the_loss_falls(name: str, optimizer: str) -> None:
    made = grafted(name, "all", optimizer)
    model = runtime().open(made.file, model=name)
    x, y = samples(model.input_shape, model.contract.y_shape, made.loss)
    rate = {"sgd": 0.02, "momentum": 0.005, "adam": 0.01}[optimizer]
    losses = [model.train(x, y, rate) for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.7 * losses[0], losses[::10]
