"""Recipes of heads have one form as bytes, and their numbers are those that the trainer computes in."""

from __future__ import annotations

import itertools
import time
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from modelwire import _core, errors, limits
from modelwire.output_head.rows import Rows
from modelwire.output_head.trainer import train_head
from modelwire.output_head_settings import Activation, Optimizer, OutputHeadSettings, output_head_settings_of, steps_of
from modelwire.wire import cbor
from tests.modelwire.kernels.test_head import recipes

NAMES = [field.name for field in fields(OutputHeadSettings)]
SHORT: Any = OutputHeadSettings(3, 5, 4).as_value()


@given(recipes())
def test_a_recipe_reads_back_as_it_was(recipe: OutputHeadSettings) -> None:
    assert output_head_settings_of(cbor.decode(cbor.encode(recipe.as_value()))) == recipe


def test_a_recipe_is_about_a_hundred_bytes() -> None:
    assert len(cbor.encode(OutputHeadSettings(1280, 10, 300, (64,), seed=2**64 - 1).as_value())) < 110


def test_floats_are_those_that_the_trainer_computes_in() -> None:
    assert OutputHeadSettings(3, 2, 1, rate=0.1).rate == float(np.float32(0.1))


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
