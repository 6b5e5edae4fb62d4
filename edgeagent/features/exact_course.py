"""Trains a model's head on kept features by the exact trainer: no interpreter, and the same bits on every processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeagent.training.course import WEIGHTS, Kept
from modelwire.errors import Malformed, NotTrainable
from modelwire.output_head.recipe import HeadLayer
from modelwire.output_head.rows import Rows
from modelwire.output_head.trainer import HeadState, advance, layers_of, outputs_of, start_of
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings, steps_of
from modelwire.tensors import F32, Schema, Weights
from modelwire.tflite.notes import HeadNotes

FEATURES = "features"  # its name among the modes
RECIPE = "recipe"  # the closing of a course whose update says how it was trained
SLICE_WORK = 1 << 22  # multiply-adds of one slice's forward passes: a few milliseconds, on a small board some tens
_LOSSES = {"softmax": Loss.SOFTMAX, "logistic": Loss.LOGISTIC, "mse": Loss.MSE}
_ACTIVATIONS = {"": Activation.RELU, "relu": Activation.RELU, "tanh": Activation.TANH}
OPTIMIZERS = {"": Optimizer.SGD, "sgd": Optimizer.SGD, "momentum": Optimizer.MOMENTUM, "adam": Optimizer.ADAM}


@dataclass(frozen=True, slots=True)
class OutputHead:
    """Where the head lies among a model's weights, and what it is."""

    notes: HeadNotes
    tensors: tuple[HeadLayer, ...]  # by places in the schema, from the features on
    widths: tuple[int, ...]  # inputs of the first layer, then neurons of each
    logits: bool = False  # the model answers with them as they are, without softmax or logistic

    def recipe(self, *, rows: int, batch: int, epochs: int, rate: float, optimizer: str, seed: int) -> OutputHeadSettings:
        """Return how it is to be trained. optimizer: a name; "" for SGD."""
        steps = steps_of(epochs, rows, batch)
        return OutputHeadSettings(
            self.widths[0], self.widths[-1], steps, self.widths[1:-1], _ACTIVATIONS[self.notes.activation], _LOSSES[self.notes.loss],
            OPTIMIZERS[optimizer], batch=batch, seed=seed, rate=rate,
        )  # fmt: skip

    def layers(self, weights: Mapping[str, NDArray[Any]]) -> list[tuple[F32, F32]]:
        """Return matrix [neurons, inputs] and biases of each layer, out of a model's weights."""
        sizes = zip(self.widths, self.widths[1:], self.notes.layers, strict=False)
        return [(weights[m].reshape(neurons, inputs), weights[b]) for inputs, neurons, (m, b) in sizes]

    def answers(self, recipe: OutputHeadSettings, weights: Mapping[str, NDArray[Any]], rows: Rows) -> F32:
        """Return what the model answers to samples with these features, [n, outputs]: by the exact trainer's own forward pass."""
        return self.finished(outputs_of(recipe, start_of(recipe, self.layers(weights)).weights, rows))

    def finished(self, outputs: F32) -> F32:
        """Return outputs as the model gives them: behind softmax or logistic where it has one."""
        if self.logits or self.notes.loss == "mse":
            return outputs
        if self.notes.loss == "logistic":
            probability: F32 = (1 / (1 + np.exp(-outputs.astype(np.float64)))).astype(np.float32)
            return probability
        e = np.exp(outputs.astype(np.float64) - outputs.max(-1, keepdims=True))
        shares: F32 = (e / e.sum(-1, keepdims=True)).astype(np.float32)
        return shares


def output_head_of(head: HeadNotes, schema: Schema) -> OutputHead:
    """Return where the head lies. The notes have been checked against the file."""
    tensors = tuple(HeadLayer(schema.index(matrix), schema.index(biases), False) for matrix, biases in head.layers)
    widths = (head.features, *(schema.tensors[layer.biases].size for layer in tensors))
    return OutputHead(head, tensors, widths)


def rows_for(features: NDArray[np.float16], y: F32, *, labelled: bool, loss: str, model: str) -> Rows:
    """Return features with what they should give, as the head's loss asks for it.

    y: one-hot where `labelled`, else targets, [n, ...]. Raises NotTrainable for a classifier whose samples have targets.
    """
    flat = np.ascontiguousarray(y, np.float32).reshape(len(y), -1)
    if loss != "softmax":
        return Rows(features, None, flat)
    if not labelled:
        raise NotTrainable(model=model, reason="mode features: its samples have targets, and the head learns classes from labels")
    return Rows(features, flat.argmax(1).astype(np.uint32))


class ExactCourse:
    """A course of the exact trainer. A step of it is a slice of short ones; its numbers count the short ones."""

    mode = FEATURES
    whole = True
    closing = WEIGHTS

    def __init__(self, output_head: OutputHead, recipe: OutputHeadSettings, rows: Rows, start: Weights) -> None:
        """start: all of get_weights."""
        self.output_head, self.recipe, self.rows = output_head, recipe, rows
        self._start = start
        self._state = start_of(recipe, output_head.layers(start))
        each = recipe.work(len(rows)) // recipe.steps
        self._slice = max(1, SLICE_WORK // max(1, each))

    @property
    def steps(self) -> int:
        return self.recipe.steps

    @property
    def done(self) -> int:
        return self._state.step

    def step(self) -> float:
        losses = advance(self.recipe, self._state, self.rows, self.at_once())
        return float(losses[-1])

    def at_once(self) -> int:
        """Return how many short steps the next one is."""
        return min(self._slice, self.steps - self.done)

    def keep(self) -> Kept:
        state = self._state
        return {"head": state.weights, "slots": state.slots, "step": np.array([state.step], np.int64)}

    def restore(self, kept: Mapping[str, NDArray[Any]]) -> None:
        shapes = {name: (a.dtype, a.shape) for name, a in self.keep().items()}
        if {name: (a.dtype, a.shape) for name, a in kept.items()} != shapes or not 0 <= int(kept["step"][0]) <= self.steps:
            raise Malformed(what="course", reason="it is one of another model or mode")
        self._state = HeadState(kept["head"].copy(), kept["slots"].copy(), int(kept["step"][0]))

    def layers(self) -> Sequence[tuple[F32, F32]]:
        """Return the head as it is now, without copies."""
        return layers_of(self.recipe, self._state.weights)

    def trained(self) -> Weights:
        # The trainer takes no step whose weights are not finite: TrainingDiverged came before.
        out = dict(self._start)
        for (matrix, biases), (m, b) in zip(self.layers(), self.output_head.notes.layers, strict=True):
            out[m], out[b] = matrix.reshape(self._start[m].shape).copy(), biases.reshape(self._start[b].shape).copy()
        return out
