"""Replaying a recipe on its parent (recipe page, Replaying)."""

from __future__ import annotations

import numpy as np

from . import limits
from .errors import ModelError, ReplayMismatch, ShapeMismatch, TooLarge
from .head import Layer, Recipe, read_recipe
from .manifest import FLOAT32, LATTICE, VERBATIM, Array
from .state import State, ordered
from .trainer import Training


def _check_places(recipe: Recipe, parent: State) -> None:
    """Check the layers against the schema (R34 to R38)."""
    tensors = parent.manifest.tensors
    if len(recipe.layers) != len(recipe.head.layers):
        raise ModelError("R34: another number of layers")
    numbers = [n for layer in recipe.layers for n in (layer.matrix, layer.biases)]
    if len(set(numbers)) != len(numbers) or max(numbers) >= len(tensors):
        raise ModelError("R35: a tensor twice, or one that there is not")
    for layer, (neurons, inputs) in zip(recipe.layers, recipe.head.layers, strict=True):
        matrix, biases = tensors[layer.matrix], tensors[layer.biases]
        if matrix.type != FLOAT32:
            raise ModelError("R36: a matrix that is not float32")
        ends = (inputs, neurons) if layer.inputs_first else (neurons, inputs)
        shape = matrix.shape
        if len(shape) < 2 or (shape[0], shape[-1]) != ends or any(d != 1 for d in shape[1:-1]):
            raise ShapeMismatch("R37: shape of a matrix")
        if biases.type != FLOAT32:
            raise ModelError("R36: biases that are not float32")
        if biases.shape != (neurons,):
            raise ShapeMismatch("R38: shape of biases")


def _check_length(recipe: Recipe) -> None:
    """Count a training before it is begun (R39)."""
    head = recipe.head
    neurons = sum(n for n, _ in head.layers)
    batch = min(head.batch, recipe.rows.count)
    work = head.steps * (batch * (head.size + 32 * neurons) + head.size * (1 + 2 * head.slots) + 1024)
    if work > limits.TRAINING:
        raise TooLarge("R39: training")


def _floats(state: State, n: int) -> Array:
    """Give a float32 tensor's weights."""
    return state.bits[n].view(np.float32)


def _gather(recipe: Recipe, parent: State) -> Array:
    """Take the flat weights from the parent."""
    parts = []
    for layer, (neurons, inputs) in zip(recipe.layers, recipe.head.layers, strict=True):
        matrix = _floats(parent, layer.matrix)
        matrix = matrix.reshape(inputs, neurons).T if layer.inputs_first else matrix.reshape(neurons, inputs)
        parts += [matrix.ravel(), _floats(parent, layer.biases)]
    return np.concatenate(parts)


def _difference(state: State, n: int, trained: Array) -> Array:
    """Give dQ of one trained tensor, flat as stored."""
    t = state.manifest.tensors[n]
    bits = np.ascontiguousarray(trained).view(np.uint32)
    if t.klass == LATTICE:
        base = state.base[n].view(np.float32).astype(np.float64)
        q = np.rint((trained.astype(np.float64) - base) / 2.0 ** state.units[n])
        return np.clip(q, -limits.Q_MAX, limits.Q_MAX).astype(np.int64) - state.q[n]
    if t.klass == VERBATIM:
        return bits.astype(np.int64) - state.bits[n].astype(np.int64)
    return ordered(bits, t) - ordered(state.bits[n], t)


def _version(recipe: Recipe, parent: State, training: Training) -> State:
    """Make a version of the weights that a training has come to."""
    out: dict[int, Array] = {}
    for place, part in zip(recipe.layers, training.layers, strict=True):
        out[place.matrix] = _difference(parent, place.matrix, _stored_order(place, part.w))
        out[place.biases] = _difference(parent, place.biases, part.b)
    return parent.moved(out)


def _stored_order(place: Layer, w: Array) -> Array:
    """Turn a matrix as its tensor stores it, flat."""
    return np.ascontiguousarray(w.T if place.inputs_first else w).ravel()


def replay(data: bytes, parent: State, prove_checkpoints: bool = False) -> State:
    """Compute the version that a recipe comes to."""
    recipe = read_recipe(data)
    _check_places(recipe, parent)
    _check_length(recipe)
    training = Training(recipe.head, recipe.rows, _gather(recipe, parent))
    if prove_checkpoints and recipe.checkpoints is not None:
        for number, root in enumerate(recipe.checkpoints.roots, 1):
            training.run(recipe.checkpoints.every)
            if _version(recipe, parent, training).root != root:
                raise ReplayMismatch(f"checkpoint {number}")
    training.run(recipe.head.steps - training.step)
    return _version(recipe, parent, training)
