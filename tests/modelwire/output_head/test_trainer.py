"""Cutting a training into pieces changes no bit, and layers and rows of another shape are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire import errors
from modelwire.output_head.rows import Rows, quantized
from modelwire.output_head.trainer import HeadState, advance, layers_of, outputs_of, start_of, train_head
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings


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


def test_a_label_that_is_no_class_is_refused_before_the_first_step_also_where_no_batch_reaches_it() -> None:
    recipe = OutputHeadSettings(20, 4, 2, batch=1, rate=2.0**127, decay=2.0**127)  # would diverge by its second step
    for row in range(5):
        labels = np.zeros(5, np.uint32)
        labels[row] = 4
        state = start_of(recipe, layers(recipe))
        before = state.weights.tobytes()
        with pytest.raises(errors.Malformed, match=f"row {row} is no class of 4"):
            advance(recipe, state, Rows(np.ones((5, 20), np.int8), labels=labels), 1)
        assert (state.step, state.weights.tobytes()) == (0, before)


@given(st.integers(0, 2**32), st.sampled_from(list(Optimizer)), st.sampled_from(list(Loss)), st.lists(st.integers(1, 5), max_size=4))
def test_a_training_that_diverges_is_refused_alike_wherever_it_is_cut(seed: int, optimizer: Optimizer, loss: Loss, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    hidden = tuple(int(n) for n in rng.integers(1, 5, seed % 3))
    rate, decay, scale = (2.0 ** int(rng.integers(-8, top)) for top in (128, 128, 101))
    beta = float(rng.choice([0.0, 0.9]))
    recipe = OutputHeadSettings(
        6, 3, 6, hidden, list(Activation)[seed % 2], loss, optimizer, batch=2, rate=rate, decay=decay, beta1=beta, beta2=beta
    )
    wanted: dict[str, Any] = {"labels": rng.integers(0, 3, 5).astype(np.uint32)}
    if loss is not Loss.SOFTMAX:
        wanted = {"targets": rng.random((5, 3), np.float32)}
    rows = Rows(rng.integers(-128, 128, (5, 6)).astype(np.int8), scale=scale, **wanted)
    seen = []
    for steps in ([6], [1] * 6, [*cuts, 6]):
        state = start_of(recipe, layers(recipe, seed))
        try:
            for count in steps:
                advance(recipe, state, rows, min(count, 6 - state.step))
            seen.append(state.weights.tobytes())
        except errors.TrainingDiverged:
            seen.append(b"")
    assert seen[0] == seen[1] == seen[2]


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
