"""Recipes of heads have one form as bytes, and cutting a training into pieces changes no bit."""

from __future__ import annotations

import itertools
import time
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from modelwire import _core, errors, limits
from modelwire.output_head.rows import Rows, quantized
from modelwire.output_head.trainer import HeadState, advance, layers_of, outputs_of, start_of, train_head
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings, output_head_settings_of, steps_of
from modelwire.wire import cbor
from tests.modelwire.kernels.test_head import recipes


@given(recipes())
def test_a_recipe_reads_back_as_it_was(recipe: OutputHeadSettings) -> None:
    assert output_head_settings_of(cbor.decode(cbor.encode(recipe.as_value()))) == recipe


def test_a_recipe_is_about_a_hundred_bytes() -> None:
    assert len(cbor.encode(OutputHeadSettings(1280, 10, 300, (64,), seed=2**64 - 1).as_value())) < 110


def test_floats_are_those_that_the_trainer_computes_in() -> None:
    assert OutputHeadSettings(3, 2, 1, rate=0.1).rate == float(np.float32(0.1))


NAMES = [field.name for field in fields(OutputHeadSettings)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features", 0), ("features", True), ("outputs", 1), ("steps", -1), ("batch", 4097), ("hidden", [0]), ("hidden", [1, 2, 3]),
        ("hidden", 4), ("hidden", [True]), ("activation", 3), ("loss", 0), ("loss", True), ("optimizer", 1.0), ("schedule", "linear"),
        ("seed", 2.0**63),
        ("rate", 0.1), ("rate", 1), ("rate", -0.0), ("rate", 1e300), ("decay", -1.0), ("beta1", 1.0), ("epsilon", 0.0), ("factor", 1.5),
    ],
)  # fmt: skip
def test_a_recipe_with_a_wrong_field_is_refused(name: str, value: Any) -> None:
    good: Any = OutputHeadSettings(3, 5, 4, (2,)).as_value()
    good[1 + NAMES.index(name)] = value
    with pytest.raises(errors.Malformed):
        output_head_settings_of(good)


SHORT: Any = OutputHeadSettings(3, 5, 4).as_value()


@pytest.mark.parametrize("value", [None, [], {}, [2, *range(18)], [True, *range(18)], SHORT[:-1]])
def test_what_is_no_recipe_of_format_1_is_refused(value: Any) -> None:
    with pytest.raises(errors.Malformed):
        output_head_settings_of(cbor.decode(cbor.encode(value)))


def test_a_recipe_out_of_range_cannot_be_made() -> None:
    for wrong in ({"rate": float("nan")}, {"rate": "fast"}, {"beta2": 1.0}, {"hidden": (5000,)}, {"batch": 0}, {"seed": -1}):
        with pytest.raises(errors.Malformed):
            OutputHeadSettings(3, 5, 4, **wrong)  # type: ignore[arg-type]


def test_epochs_count_the_last_smaller_batch() -> None:
    assert [steps_of(3, rows, 32) for rows in (1, 32, 33)] == [3, 3, 6]


def layers(recipe: OutputHeadSettings, seed: int = 0) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(seed)
    return layers_of(recipe, (rng.standard_normal(recipe.size) * 0.2).astype(np.float32))


def test_training_goes_on_after_any_step_as_if_nothing_had_come_between() -> None:
    recipe = OutputHeadSettings(20, 4, 25, (6,), optimizer=Optimizer.ADAM, batch=7)
    rng = np.random.default_rng(1)
    rows = quantized(rng.standard_normal((23, 20)).astype(np.float32), labels=rng.integers(0, 4, 23).astype(np.uint32))
    state = start_of(recipe, layers(recipe))
    kept: list[Any] = []
    for count in (1, 0, 9, 15):
        saved = HeadState(state.weights.copy(), state.slots.copy(), state.step)  # what a device writes down between
        kept.append(advance(recipe, saved, rows, count))
        state = saved
    whole = train_head(recipe, rows, layers(recipe))
    assert state.step == 25
    assert [len(losses) for losses in kept] == [1, 0, 9, 15]
    assert state.weights.tobytes() == b"".join(m.tobytes() + b.tobytes() for m, b in whole)
    assert outputs_of(recipe, state.weights, rows).shape == (23, 4)
    with pytest.raises(errors.Malformed):
        advance(recipe, state, rows, 1)


def test_an_auto_encoder_trains_on_its_own_features() -> None:
    rng = np.random.default_rng(2)
    hidden = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 12))
    rows = Rows(hidden.astype(np.float16))
    recipe = OutputHeadSettings(12, 12, 800, (3,), loss=Loss.MSE, optimizer=Optimizer.ADAM, rate=0.01)
    state = start_of(recipe, layers(recipe))
    losses = advance(recipe, state, rows, 800)
    assert losses[-20:].mean() < 0.5 * losses[:20].mean()
    assert np.abs(outputs_of(recipe, state.weights, rows) - rows.values).mean() < np.abs(rows.values).mean()


def test_layers_and_rows_of_another_shape_are_refused() -> None:
    recipe = OutputHeadSettings(20, 4, 25, (6,))
    good = layers(recipe)
    rows = Rows(np.zeros((3, 20), np.int8), labels=np.zeros(3, np.uint32))
    for wrong in (good[:1], [(good[0][0].T, good[0][1]), good[1]], [good[0], (good[1][0], good[0][1])]):
        with pytest.raises(errors.ShapeMismatch):
            start_of(recipe, wrong)
    state = start_of(recipe, good)
    for other in (
        Rows(np.zeros((3, 19), np.int8), labels=np.zeros(3, np.uint32)), Rows(np.zeros((3, 20), np.int8)),
        Rows(np.zeros((3, 20), np.int8), targets=np.zeros((3, 4), np.float32)),
    ):  # fmt: skip
        with pytest.raises(errors.ShapeMismatch):
            advance(recipe, state, other, 1)
    linear = OutputHeadSettings(20, 4, 25, (6,), loss=Loss.MSE)
    for other in (rows, Rows(np.zeros((3, 20), np.int8)), Rows(np.zeros((3, 20), np.int8), targets=np.zeros((3, 5), np.float32))):
        with pytest.raises(errors.ShapeMismatch):
            advance(linear, state, other, 1)


@pytest.mark.skipif(_core.kernel_name() == "reference", reason="the numpy twin is slow")
@pytest.mark.parametrize(
    "change",
    [{}, {"batch": 1}, {"features": 1, "outputs": 2, "batch": 1}, {"features": 1, "outputs": 2, "batch": 1, "optimizer": Optimizer.ADAM},
     {"features": 2, "outputs": 1000}, {"features": 1, "outputs": 2, "hidden": (200,), "activation": Activation.TANH}],
)  # fmt: skip
def test_no_recipe_takes_long_and_counts_little(change: dict[str, Any]) -> None:
    """What counts as a second of work takes about a second: else a small head's 2^32 steps would take a centre hours."""
    recipe = OutputHeadSettings(**{"features": 64, "outputs": 10, "steps": 1, "rate": 1e-6, **change})
    recipe = replace(recipe, steps=max(1, 100_000_000 // recipe.work(50)))
    rng = np.random.default_rng(1)
    rows = Rows(rng.integers(-9, 9, (50, recipe.features), np.int8), rng.integers(0, 2, 50).astype(np.uint32))
    layers = [(np.zeros((n, k), np.float32), np.zeros(n, np.float32)) for k, n in itertools.pairwise(recipe.widths)]
    started = time.process_time()
    train_head(recipe, rows, layers)
    seconds = (time.process_time() - started) * limits.DEFAULT.training / recipe.work(50)
    assert seconds < 150  # 7 to 31 on a server that is not busy
