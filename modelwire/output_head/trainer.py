"""Train an output head, a small net on rows of features, so that the same settings and rows give the same bits on every processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelwire import _core
from modelwire.errors import ShapeMismatch
from modelwire.output_head_settings import OutputHeadSettings
from modelwire.tensors import F32

from .rows import Rows

# A call of the kernel hears no interrupt: it should end within about a second, on a board too.
WORK_OF_A_CALL = 1 << 28  # multiply-adds

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class HeadState:
    """An output head in training: what has to be kept to go on later with the same bits as if nothing had come between."""

    weights: F32  # flat: layer by layer the matrix [neurons][inputs], then the biases
    slots: F32  # the optimizer's, as many more arrays of that kind
    step: int = 0


def start_of(settings: OutputHeadSettings, layers: Sequence[tuple[F32, F32]]) -> HeadState:
    """Return the state before the first step. layers: matrix [neurons, inputs] and biases of each. Raises ShapeMismatch."""
    flat = []
    if len(layers) != len(settings.widths) - 1:
        raise ShapeMismatch(tensor="head", expected=f"{len(settings.widths) - 1} layers", got=str(len(layers)))
    for k, (matrix, biases) in enumerate(layers):
        shape = (settings.widths[k + 1], settings.widths[k])
        if matrix.shape != shape or biases.shape != shape[:1]:
            got = f"{list(matrix.shape)} and {list(biases.shape)}"
            raise ShapeMismatch(tensor=f"layer {k}", expected=f"{list(shape)} and {list(shape[:1])}", got=got)
        flat += [np.asarray(matrix, np.float32).reshape(-1), np.asarray(biases, np.float32)]
    return HeadState(np.concatenate(flat), np.zeros(settings.slots * settings.size, np.float32))


def layers_of(settings: OutputHeadSettings, weights: F32) -> list[tuple[F32, F32]]:
    """Return matrix and biases of each layer, without copies."""
    layers, start = [], 0
    for inputs, neurons in zip(settings.widths, settings.widths[1:], strict=False):
        end = start + neurons * inputs
        layers.append((weights[start:end].reshape(neurons, inputs), weights[end : end + neurons]))
        start = end + neurons
    return layers


def advance(settings: OutputHeadSettings, state: HeadState, rows: Rows, steps: int) -> F32:
    """Take `steps` further steps of those that the settings say, and return the loss of each batch before its step.

    However the steps are cut into calls, the bits are the same, and so is the error of a training that is refused. Raises ShapeMismatch,
    TrainingDiverged, NonFinite or Malformed, RoundingMode or SubnormalsFlushed where the processor was set to compute otherwise; the state
    is then as it was.
    """
    _suits(settings, rows)
    losses = _core.head_train(
        settings, rows.flat, rows.wanted_for(settings), state.weights, state.slots, scale=rows.scale, step=state.step, count=steps
    )
    state.step += steps
    return losses


def train_head(
    settings: OutputHeadSettings, rows: Rows, layers: Sequence[tuple[F32, F32]], progress: Progress | None = None
) -> list[tuple[F32, F32]]:
    """Return the layers after all steps. progress: told steps done and all, now and then. Raises as `advance` does."""
    state = start_of(settings, layers)
    advance_to(settings, state, rows, settings.steps, progress)
    return layers_of(settings, state.weights)


def advance_to(settings: OutputHeadSettings, state: HeadState, rows: Rows, step: int, progress: Progress | None = None) -> None:
    """Train on until `step` steps are taken in all, in calls that each end soon. Raises as `advance` does."""
    whole = max(1, WORK_OF_A_CALL * settings.steps // settings.work(len(rows)))
    while state.step < step:
        advance(settings, state, rows, min(whole, step - state.step))
        if progress is not None:
            progress(state.step, settings.steps)


def outputs_of(settings: OutputHeadSettings, weights: F32, rows: Rows) -> F32:
    """Return the outputs [rows, outputs] before softmax or logistic; the same bits everywhere."""
    _suits(settings, rows)
    return _core.head_infer(settings, rows.flat, weights, scale=rows.scale).reshape(-1, settings.outputs)


def _suits(settings: OutputHeadSettings, rows: Rows) -> None:
    if rows.features.shape[1] != settings.features:
        raise ShapeMismatch(tensor="rows", expected=f"{settings.features} features", got=str(rows.features.shape[1]))
