"""Train a head, a small net on rows of features, so that the same recipe and rows give the same bits on every processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelwire import _core
from modelwire.errors import ShapeMismatch
from modelwire.output_head_settings import HeadRecipe
from modelwire.tensors import F32

from .rows import Rows

# A call of the kernel hears no interrupt: it should end within about a second, on a board too.
WORK_OF_A_CALL = 1 << 28  # multiply-adds

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class HeadState:
    """A head in training: what has to be kept to go on later with the same bits as if nothing had come between."""

    weights: F32  # flat: layer by layer the matrix [neurons][inputs], then the biases
    slots: F32  # the optimizer's, as many more arrays of that kind
    step: int = 0


def start_of(recipe: HeadRecipe, layers: Sequence[tuple[F32, F32]]) -> HeadState:
    """Return the state before the first step. layers: matrix [neurons, inputs] and biases of each. Raises ShapeMismatch."""
    flat = []
    if len(layers) != len(recipe.widths) - 1:
        raise ShapeMismatch(tensor="head", expected=f"{len(recipe.widths) - 1} layers", got=str(len(layers)))
    for k, (matrix, biases) in enumerate(layers):
        shape = (recipe.widths[k + 1], recipe.widths[k])
        if matrix.shape != shape or biases.shape != shape[:1]:
            got = f"{list(matrix.shape)} and {list(biases.shape)}"
            raise ShapeMismatch(tensor=f"layer {k}", expected=f"{list(shape)} and {list(shape[:1])}", got=got)
        flat += [np.asarray(matrix, np.float32).reshape(-1), np.asarray(biases, np.float32)]
    return HeadState(np.concatenate(flat), np.zeros(recipe.slots * recipe.size, np.float32))


def layers_of(recipe: HeadRecipe, weights: F32) -> list[tuple[F32, F32]]:
    """Return matrix and biases of each layer, without copies."""
    layers, at = [], 0
    for inputs, neurons in zip(recipe.widths, recipe.widths[1:], strict=False):
        end = at + neurons * inputs
        layers.append((weights[at:end].reshape(neurons, inputs), weights[end : end + neurons]))
        at = end + neurons
    return layers


def advance(recipe: HeadRecipe, state: HeadState, rows: Rows, steps: int) -> F32:
    """Take `steps` further steps and return the loss of each batch before its step.

    However the steps are cut into calls, the bits are the same. Raises TrainingDiverged, NonFinite or Malformed, RoundingMode or
    SubnormalsFlushed where the processor was set to compute otherwise; the state is then as it was.
    """
    _suits(recipe, rows)
    losses = _core.head_train(
        recipe, rows.flat, rows.wanted_for(recipe), state.weights, state.slots, scale=rows.scale, step=state.step, count=steps
    )
    state.step += steps
    return losses


def train_head(
    recipe: HeadRecipe, rows: Rows, layers: Sequence[tuple[F32, F32]], progress: Progress | None = None
) -> list[tuple[F32, F32]]:
    """Return the layers after all steps of the recipe. progress: told steps done and all, now and then. Raises as `advance` does."""
    state = start_of(recipe, layers)
    whole = max(1, WORK_OF_A_CALL * recipe.steps // recipe.work(len(rows)))
    while state.step < recipe.steps:
        advance(recipe, state, rows, min(whole, recipe.steps - state.step))
        if progress is not None:
            progress(state.step, recipe.steps)
    return layers_of(recipe, state.weights)


def outputs_of(recipe: HeadRecipe, weights: F32, rows: Rows) -> F32:
    """Return the outputs [rows, outputs] before softmax or logistic; the same bits everywhere."""
    _suits(recipe, rows)
    return _core.head_infer(recipe, rows.flat, weights, scale=rows.scale).reshape(-1, recipe.outputs)


def _suits(recipe: HeadRecipe, rows: Rows) -> None:
    if rows.features.shape[1] != recipe.features:
        raise ShapeMismatch(tensor="rows", expected=f"{recipe.features} features", got=str(rows.features.shape[1]))
