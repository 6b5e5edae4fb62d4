"""The head trainer gives the same bits on every path and in the twin, learns what it should, and refuses without leaving a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire import _reference as twin
from modelwire import errors
from modelwire._core import kernel
from modelwire._reference import head as formulas
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings, Schedule

from .test_round import PATHS

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True, scope="module")
def as_it_was() -> Iterator[None]:
    before = kernel.kernel_name()
    yield
    kernel.choose(before)


def cores() -> Iterator[Any]:
    """Give each path of the compiled kernels, then the twin."""
    for path in PATHS:
        kernel.choose(path)
        yield kernel
    yield twin


@st.composite
def recipes(draw: st.DrawFn, most: int = 40) -> OutputHeadSettings:
    """Draw a recipe of few steps, with widths on both sides of 16 and 32."""
    loss = draw(st.sampled_from(Loss))
    unit = st.floats(0, 1 - 2**-24, width=32)
    return OutputHeadSettings(
        features=draw(st.integers(1, most)),
        outputs=draw(st.integers(2 if loss is Loss.SOFTMAX else 1, most)),
        steps=draw(st.integers(1, 8)),
        hidden=tuple(draw(st.lists(st.integers(1, most), max_size=2))),
        activation=draw(st.sampled_from(Activation)),
        loss=loss,
        optimizer=draw(st.sampled_from(Optimizer)),
        schedule=draw(st.sampled_from(Schedule)),
        batch=draw(st.integers(1, 9)),
        every=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 2**64 - 1)),
        rate=draw(st.floats(0, 2, width=32)),
        rate_end=draw(st.floats(0, 2, width=32)),
        factor=draw(st.floats(0, 1, width=32)),
        decay=draw(st.floats(0, 1, width=32)),
        beta1=draw(unit),
        beta2=draw(unit),
        epsilon=draw(st.sampled_from([1e-7, 2.0**-126, 1.0])),
    )


def material(recipe: OutputHeadSettings, n: int, dtype: str, seed: int) -> tuple[Any, Any, Any]:
    """Return features, what they should give, and start weights with -0.0 and subnormals among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n * recipe.features)
    features = (x * 40).clip(-128, 127).astype(np.int8) if dtype == "int8" else x.astype(dtype)
    softmax = recipe.loss is Loss.SOFTMAX
    wanted = rng.integers(0, recipe.outputs, n).astype(np.uint32) if softmax else rng.random(n * recipe.outputs, np.float32)
    weights = (rng.standard_normal(recipe.size) * 0.3).astype(np.float32)
    weights[rng.random(recipe.size) < 0.1] = rng.choice(np.array([-0.0, 1e-45, -1e-39], np.float32))
    return features, wanted, weights


def trained(core: Any, recipe: OutputHeadSettings, features: Any, wanted: Any, weights: Any, cut: int = 0) -> Any:
    """Return the bits after all steps, in two calls, or the error; an error leaves everything as it was."""
    w, slots = weights.copy(), np.zeros(recipe.slots * recipe.size, np.float32)
    before = w.tobytes(), slots.tobytes()
    losses = b""
    try:
        for step, count in ((0, cut), (cut, recipe.steps - cut)):
            before = w.tobytes(), slots.tobytes()
            losses += core.head_train(recipe, features, wanted, w, slots, scale=0.03, step=step, count=count).tobytes()
        return losses, w.tobytes(), slots.tobytes(), core.head_infer(recipe, features, w, scale=0.03).tobytes()
    except errors.ModelWireError as error:
        assert (w.tobytes(), slots.tobytes()) == before
        return type(error), error.facts


@given(recipes(), st.integers(1, 30), st.sampled_from(["float32", "float16", "int8"]), st.integers(0, 2**32), st.data())
def test_every_path_and_the_twin_train_to_the_same_bits(
    recipe: OutputHeadSettings, n: int, dtype: str, seed: int, data: st.DataObject
) -> None:
    features, wanted, weights = material(recipe, n, dtype, seed)
    cut = data.draw(st.integers(0, recipe.steps))
    assert len({repr(trained(core, recipe, features, wanted, weights, cut)) for core in cores()}) == 1


@pytest.mark.parametrize("width", [1, 15, 16, 17, 31, 32, 33, 100, 257])
def test_every_path_agrees_at_the_edges_of_its_registers(width: int) -> None:
    for widths in ((width, (), 5), (7, (width,), 3), (7, (4, width), 2), (9, (), max(2, width))):
        recipe = OutputHeadSettings(widths[0], widths[2], 3, widths[1], optimizer=Optimizer.ADAM, batch=5)
        features, wanted, weights = material(recipe, 11, "float32", width)
        assert len({repr(trained(core, recipe, features, wanted, weights)) for core in cores()}) == 1


@given(recipes(), st.integers(2, 30), st.integers(0, 2**32), st.data())
def test_steps_can_be_cut_into_calls_anywhere(recipe: OutputHeadSettings, n: int, seed: int, data: st.DataObject) -> None:
    features, wanted, weights = material(recipe, n, "float32", seed)
    whole = trained(kernel, recipe, features, wanted, weights)
    if isinstance(whole[0], bytes):
        assert trained(kernel, recipe, features, wanted, weights, data.draw(st.integers(0, recipe.steps))) == whole


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 300))
def test_orders_are_permutations_and_agree_with_the_twin(seed: int, epoch: int, n: int) -> None:
    order = kernel.permutation(seed, epoch, n)
    assert sorted(order.tolist()) == list(range(n))
    assert order.tolist() == twin.permutation(seed, epoch, n).tolist()


def test_every_place_of_an_order_is_as_likely_as_another() -> None:
    counts = np.zeros((6, 6))
    for epoch in range(6000):
        counts[np.arange(6), kernel.permutation(7, epoch, 6)] += 1
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 50  # 25 degrees of freedom: 1 of 400 fair ones lies above


def test_no_two_epochs_or_seeds_share_an_order() -> None:
    assert len({kernel.permutation(seed, epoch, 50).tobytes() for seed in range(40) for epoch in range(40)}) == 1600


# The formulas


def errors_in_ulp(function: Any, exact: Any, x: Any) -> float:
    """Return the largest error in units of the last place of the exact result."""
    got, true = function(x).astype(np.longdouble), exact(x.astype(np.longdouble))
    kept = np.isfinite(true) & (np.abs(true) < np.finfo(np.float32).max)
    exponent = np.maximum(np.frexp(true)[1], -125)
    return float((np.abs(got - true) / np.ldexp(np.longdouble(1), exponent - 24))[kept].max())


def test_exp_log_and_tanh_are_within_two_units_of_the_last_place() -> None:
    rng = np.random.default_rng(1)
    near = rng.uniform(-104, 89, 400_000).astype(np.float32)
    with np.errstate(over="ignore"):
        assert errors_in_ulp(formulas.exp, np.exp, near) < 1.1
    assert errors_in_ulp(formulas.exp, np.exp, np.ldexp(near, rng.integers(-30, -6, len(near)).astype(np.int32)).astype(np.float32)) < 1.1
    positive = rng.integers(0x00800000, 0x7F800000, 400_000).astype(np.uint32).view(np.float32)
    assert errors_in_ulp(formulas.log, np.log, positive) < 0.9
    assert errors_in_ulp(formulas.log, np.log, rng.uniform(0.5, 2, 400_000).astype(np.float32)) < 0.9
    assert errors_in_ulp(formulas.tanh, np.tanh, rng.uniform(-10, 10, 400_000).astype(np.float32)) < 1.4


def test_exp_and_tanh_behave_at_their_ends() -> None:
    x = np.array([0.0, -0.0, 88.7, 88.8, 200, -103.9, -104.1, -1e30, np.inf, -np.inf], np.float32)
    with np.errstate(over="ignore"):
        assert formulas.exp(x).tolist() == [1, 1, float(formulas.exp(x[2:3])[0]), np.inf, np.inf, 2**-149, 0, 0, np.inf, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        assert formulas.tanh(np.array([0.0, -0.0, 20, -np.inf], np.float32)).tolist() == [0, 0, 1, -1]


# What it learns


def slopes(recipe: OutputHeadSettings, x: Any, wanted: Any, w: Any) -> Any:
    """Return the gradient of the mean loss over all rows, in float64."""
    layers, at = [], 0
    for inputs, neurons in zip(recipe.widths, recipe.widths[1:], strict=False):
        layers.append((w[at : at + inputs * neurons].reshape(neurons, inputs), w[at + inputs * neurons : at + neurons * (inputs + 1)]))
        at += neurons * (inputs + 1)
    values, tanh = [x], recipe.activation is Activation.TANH
    for k, (matrix, bias) in enumerate(layers):
        z = values[-1] @ matrix.T + bias
        values.append(z if k + 1 == len(layers) else np.tanh(z) if tanh else np.maximum(z, 0))
    z = values[-1]
    if recipe.loss is Loss.SOFTMAX:
        p = np.exp(z - z.max(1, keepdims=True))
        delta = (p / p.sum(1, keepdims=True) - np.eye(recipe.outputs)[wanted]) / len(x)
    else:
        target = wanted.reshape(z.shape)
        delta = (2 * (z - target) if recipe.loss is Loss.MSE else 1 / (1 + np.exp(-z)) - target) / z.size
    out = []
    for k in range(len(layers) - 1, -1, -1):
        out.append(np.concatenate([(delta.T @ values[k]).reshape(-1), delta.sum(0)]))
        below = delta @ layers[k][0]
        delta = below * (1 - values[k] ** 2 if tanh else values[k] > 0)
    return np.concatenate(out[::-1])


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("hidden", [(), (20,), (24, 9)])
@pytest.mark.parametrize("activation", Activation)
def test_one_plain_step_follows_the_gradient(loss: Loss, hidden: tuple[int, ...], activation: Activation) -> None:
    recipe = OutputHeadSettings(37, 6, 1, hidden, activation, loss, batch=64, rate=1.0)
    features, wanted, weights = material(recipe, 64, "float32", 3)
    after = weights.copy()
    kernel.head_train(recipe, features, wanted, after, np.zeros(0, np.float32), scale=1.0, step=0, count=1)
    exact = slopes(recipe, features.reshape(64, -1).astype(np.float64), wanted, weights.astype(np.float64))
    assert np.abs((weights.astype(np.float64) - after) - exact).max() <= 1e-6 * max(1.0, np.abs(exact).max())


def test_momentum_adam_schedules_and_decay_are_the_formulas_of_the_page() -> None:
    recipe = OutputHeadSettings(9, 3, 6, batch=4, rate=0.1, rate_end=0.01, decay=0.02, every=2, factor=0.5, beta1=0.8, beta2=0.95)
    features, wanted, start = material(recipe, 4, "float32", 5)
    x = features.reshape(4, -1).astype(np.float64)
    for optimizer in Optimizer:
        for schedule in Schedule:
            r = replace(recipe, optimizer=optimizer, schedule=schedule)
            w, slots = start.copy(), np.zeros(r.slots * r.size, np.float32)
            kernel.head_train(r, features, wanted, w, slots, scale=1.0, step=0, count=6)
            exact, m, v = start.astype(np.float64), 0.0, 0.0
            decay = np.concatenate([np.full(27, 0.02), np.zeros(3)])
            for t in range(6):
                rate = {1: 0.1, 2: 0.1 + (0.01 - 0.1) * t / 6, 3: 0.1 * 0.5 ** (t // 2)}[schedule]
                g = slopes(r, x, wanted, exact)
                if optimizer is Optimizer.MOMENTUM:
                    m = 0.8 * m + g
                    g = m
                elif optimizer is Optimizer.ADAM:
                    m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
                    g = np.sqrt(1 - 0.95 ** (t + 1)) / (1 - 0.8 ** (t + 1)) * m / (np.sqrt(v) + 1e-7)
                exact = exact - rate * (g + decay * exact)
            assert np.abs(w - exact).max() < 2e-5, (optimizer, schedule)


def test_losses_are_those_of_the_batch_before_its_step() -> None:
    recipe = OutputHeadSettings(5, 4, 1, batch=8, rate=0.0)
    features, wanted, weights = material(recipe, 8, "float32", 9)
    (loss,) = kernel.head_train(recipe, features, wanted, weights, np.zeros(0, np.float32), scale=1.0, step=0, count=1)
    z = kernel.head_infer(recipe, features, weights, scale=1.0).reshape(8, 4).astype(np.float64)
    assert loss == pytest.approx((np.log(np.exp(z).sum(1)) - z[np.arange(8), wanted]).mean(), rel=1e-6)


@pytest.mark.parametrize("optimizer", Optimizer)
def test_the_digits_are_learnt(optimizer: Optimizer) -> None:
    data = np.load(ROOT / "tests" / "models" / "data" / "digits.npz")
    x, y = data["train_x"].reshape(-1).astype(np.int8), data["train_y"].astype(np.uint32)
    recipe = OutputHeadSettings(64, 10, 600, (24,), optimizer=optimizer, rate=0.01 if optimizer is Optimizer.ADAM else 0.1)
    rng = np.random.default_rng(0)
    w, slots = (rng.standard_normal(recipe.size) * 0.1).astype(np.float32), np.zeros(recipe.slots * recipe.size, np.float32)
    losses = kernel.head_train(recipe, x, y, w, slots, scale=1 / 16, step=0, count=600)
    assert losses[-50:].mean() < 0.15 < losses[:5].mean()
    seen = kernel.head_infer(recipe, data["test_x"].reshape(-1).astype(np.int8), w, scale=1 / 16).reshape(-1, 10).argmax(1)
    assert (seen == data["test_y"]).mean() > 0.88


def test_features_of_zeros_alone_change_nothing_else() -> None:
    narrow, wide = (OutputHeadSettings(n, 3, 5, batch=4) for n in (18, 29))
    features, wanted, weights = material(narrow, 10, "float32", 2)
    w = weights.copy()
    kernel.head_train(narrow, features, wanted, w, np.zeros(0, np.float32), scale=1.0, step=0, count=5)
    more = np.zeros((10, 29), np.float32)
    more[:, :18] = features.reshape(10, 18)
    padded = np.zeros((3, 29), np.float32)
    padded[:, :18] = weights[:54].reshape(3, 18)
    flat = np.concatenate([padded.reshape(-1), weights[54:]])
    kernel.head_train(wide, more.reshape(-1), wanted, flat, np.zeros(0, np.float32), scale=1.0, step=0, count=5)
    assert flat[: 3 * 29].reshape(3, 29)[:, :18].tobytes() == w[:54].tobytes()
    assert flat[3 * 29 :].tobytes() == w[54:].tobytes()


# What it refuses


@pytest.mark.parametrize(
    ("spoil", "error", "index"),
    [
        (lambda x, y, w: x.__setitem__(7 * 3, np.nan), errors.NonFinite, 7),
        (lambda x, y, w: x.__setitem__(9 * 3 + 2, np.inf), errors.NonFinite, 9),
        (lambda x, y, w: w.__setitem__(1, np.nan), errors.NonFinite, 0),
        (lambda x, y, w: y.__setitem__(4, 5), errors.Malformed, None),
    ],
)
def test_what_is_no_number_or_class_is_refused_alike_and_leaves_no_trace(spoil: Any, error: Any, index: int | None) -> None:
    recipe = OutputHeadSettings(3, 5, 4, batch=3)
    features, wanted, weights = material(recipe, 10, "float32", 1)
    spoil(features, wanted, weights)
    seen = [trained(core, recipe, features, wanted, weights) for core in cores()]
    assert all(one == seen[0] for one in seen)
    assert seen[0][0] is error
    if index is not None:
        assert seen[0][1]["index"] == index


def test_training_that_diverges_says_at_which_step_and_leaves_no_trace() -> None:
    recipe = OutputHeadSettings(3, 5, 40, loss=Loss.MSE, batch=3, rate=1e9)
    features, wanted, weights = material(recipe, 10, "float32", 1)
    seen = [trained(core, recipe, features, wanted, weights) for core in cores()]
    assert all(one == seen[0] for one in seen)
    assert seen[0][0] is errors.TrainingDiverged
    assert 0 < int(seen[0][1]["steps"]) < 40


def test_halves_that_are_no_numbers_are_refused() -> None:
    recipe = OutputHeadSettings(3, 5, 1)
    features, wanted, weights = material(recipe, 10, "float16", 1)
    features[5] = np.inf
    for core in cores():
        assert trained(core, recipe, features, wanted, weights)[0] is errors.NonFinite


@pytest.mark.parametrize(("step", "count"), [(0, 5), (5, 0), (4, 1), (-1, 1), (0, -1), (0, 2**40)])
def test_steps_past_the_recipe_s_end_are_refused(step: int, count: int) -> None:
    recipe = OutputHeadSettings(3, 5, 4)
    features, wanted, weights = material(recipe, 10, "float32", 1)
    for core in cores():
        with pytest.raises(errors.Malformed):
            core.head_train(recipe, features, wanted, weights, np.zeros(0, np.float32), scale=1.0, step=step, count=count)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-40])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    recipe = OutputHeadSettings(3, 5, 4)
    features, wanted, weights = material(recipe, 10, "int8", 1)
    for core in cores():
        with pytest.raises(errors.Malformed):
            core.head_train(recipe, features, wanted, weights, np.zeros(0, np.float32), scale=scale, step=0, count=1)


class Unchecked:
    """A recipe that was never checked: what the kernel itself must refuse."""

    def __init__(self, **changed: Any) -> None:
        good = OutputHeadSettings(3, 5, 4)
        for name in OutputHeadSettings.__slots__:
            setattr(self, name, changed.get(name, getattr(good, name)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("features", "outputs", "batch", "steps") for value in (0, -1, 2**32, 2**70)],
        *[(name, value) for name in ("activation", "loss", "optimizer", "schedule") for value in (0, 4, 256, -1) if name != "activation"],
        *[(name, value) for name in ("rate", "rate_end", "decay") for value in (-1.0, float("nan"), float("inf"))],
        *[(name, value) for name in ("beta1", "beta2") for value in (-0.5, 1.0, float("nan"))],
        ("factor", 1.5), ("factor", float("nan")),
        ("epsilon", 0.0), ("epsilon", 1e-40), ("features", 65537), ("outputs", 4097), ("outputs", 1),
        ("batch", 4097), ("hidden", (0,)), ("hidden", (4097,)), ("hidden", (1, 2, 3)), ("hidden", (2, 0)),
    ],
)  # fmt: skip
def test_the_kernel_itself_refuses_settings_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(errors.Malformed, match="head"):
        kernel.head_infer(Unchecked(**{name: value}), np.zeros(30, np.float32), np.zeros(20, np.float32), scale=1.0)  # type: ignore[arg-type]


def test_arrays_that_do_not_fit_are_the_caller_s_fault() -> None:
    recipe = OutputHeadSettings(3, 5, 4)
    x, y, w, none = np.zeros(30, np.float32), np.zeros(10, np.uint32), np.zeros(20, np.float32), np.zeros(0, np.float32)
    for core in (kernel, twin):
        for arrays in (
            (x[:29], y, w, none), (x[:0], y, w, none), (x, y[:9], w, none), (x, y.astype(np.int32), w, none), (x, y, w[:19], none),
            (x, y, w, w), (x.astype(np.float64), y, w, none), (x.reshape(10, 3), y, w, none), ([0.0] * 30, y, w, none),
        ):  # fmt: skip
            with pytest.raises(errors.KernelError):
                core.head_train(recipe, *arrays, scale=1.0, step=0, count=1)


FLUSH = "#include <xmmintrin.h>\nvoid flush(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }\n"


@pytest.mark.skipif(os.uname().machine != "x86_64" or not shutil.which("gcc"), reason="needs gcc and x86-64")
def test_a_processor_that_flushes_subnormals_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flush.c").write_text(FLUSH)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "flush.so", tmp_path / "flush.c"], check=True)
    program = (
        "import ctypes, sys; from modelwire import _core, _reference, errors\n"
        "ctypes.CDLL(sys.argv[1]).flush()\n"
        "for core in (_core, _reference):\n"
        "    try: core.check_arithmetic()\n"
        "    except errors.SubnormalsFlushed: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "flush.so"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["refused", "refused"], done.stderr


SMALL = """
import ctypes, hashlib, sys
import numpy as np
from modelwire._core import kernel
from modelwire.output_head_settings import OutputHeadSettings

library = ctypes.CDLL(sys.argv[1])
library.mode.restype = ctypes.c_uint
if sys.argv[2] == "flush":
    library.flush()
before = library.mode() & 0x8040
rng = np.random.default_rng(5)
recipe = OutputHeadSettings(20, 3, 12, batch=8)
x = (rng.standard_normal((40, 20)) * 2.0**-130).astype(np.float32) if before == 0 else None
x = np.frombuffer(open(sys.argv[3], "rb").read(), np.float32) if x is None else x.reshape(-1)
open(sys.argv[3], "wb").write(x.tobytes())  # made while nothing is flushed
w, y = np.zeros(63, np.float32), np.arange(40, dtype=np.uint32) % 3
w[:60] = 2.0**-7
out = kernel.head_infer(recipe, x, w, scale=1.0)
losses = kernel.head_train(recipe, x, y, w, np.zeros(0, np.float32), scale=1.0, step=0, count=12)
print(before, library.mode() & 0x8040, hashlib.sha256(out.tobytes() + w.tobytes() + losses.tobytes()).hexdigest())
"""


@pytest.mark.skipif(os.uname().machine != "x86_64" or not shutil.which("gcc"), reason="needs gcc and x86-64")
def test_a_runtime_that_flushes_subnormals_changes_no_bit_and_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "flush.c").write_text(FLUSH + "unsigned mode(void) { return _mm_getcsr(); }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "flush.so", tmp_path / "flush.c"], check=True)
    said = []
    for way in ("keep", "flush"):
        words = [sys.executable, "-c", SMALL, tmp_path / "flush.so", way, tmp_path / "x"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        said.append(done.stdout.split())
    assert said == [["0", "0", said[0][2]], [str(0x8040), str(0x8040), said[0][2]]]
