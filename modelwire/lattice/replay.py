"""Replay a recipe: whoever holds the parent computes the same version, bit for bit.

Everything here is a pure function: forgetting a row or another learning rate is a recipe with a change in it, replayed on the same parent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelwire import limits
from modelwire.errors import Malformed, RootMismatch, TooLarge
from modelwire.output_head.recipe import CHECKPOINTS_MAX, Checkpoints, HeadLayer, Recipe, check_places, marks_within
from modelwire.output_head.trainer import Progress, advance_to, layers_of, start_of, train_head
from modelwire.tensors import F32
from modelwire.update.sections import AnySection, Kind, Sections, section_of, verbatim_section

from . import exact
from .state import ModelState


def layers_before(state: ModelState, recipe: Recipe) -> list[tuple[F32, F32]]:
    """Return matrix [neurons, inputs] and biases of each layer on this parent, as the trainer takes them. Raises ModelError."""
    check_places(state.manifest.schema, recipe.head, recipe.layers)
    out = []
    for k, layer in enumerate(recipe.layers):
        inputs, neurons = recipe.head.widths[k : k + 2]
        held = state.weights[layer.matrix]
        matrix = held.reshape(inputs, neurons).T if layer.inputs_first else held.reshape(neurons, inputs)
        out.append((matrix, state.weights[layer.biases]))
    return out


def update_of(
    state: ModelState, recipe: Recipe, limit: limits.Limits = limits.DEFAULT, *, progress: Progress | None = None
) -> Sections:
    """Return the delta that the recipe comes to on this parent: the trained head, snapped to the nearest point of its lattice.

    Tensors of the lattice move to the nearest multiple of their unit within the range, half to even; verbatim and exact ones to the
    trained bits. The same weights on every processor. Raises ModelError when the recipe's layers are not in this model, TooLarge when its
    training is longer than a centre replays, and what `train_head` raises.
    """
    start = layers_before(state, recipe)
    if recipe.head.work(len(recipe.rows)) > limit.training:
        raise TooLarge(what="the recipe's training", size=recipe.head.work(len(recipe.rows)), limit=limit.training)
    return moved_to(state, recipe.layers, train_head(recipe.head, recipe.rows, start, progress))


def checkpoints_of(
    state: ModelState, recipe: Recipe, every: int, limit: limits.Limits = limits.DEFAULT, *, progress: Progress | None = None
) -> Checkpoints:
    """Return the roots on the way of the one training of all steps: what it has come to after every so many steps, below all of them.

    Schedules divide by all steps, so these are not the roots of recipes with fewer steps.

    Raises Malformed when there are none or more than a recipe carries, and what `update_of` raises.
    """
    count = marks_within(recipe.head.steps, every) if every > 0 else 0
    if not 0 < count <= CHECKPOINTS_MAX:
        raise Malformed(what="recipe", reason=f"{count} checkpoints are not 1 to {CHECKPOINTS_MAX}")
    start = layers_before(state, recipe)
    if recipe.head.work(len(recipe.rows)) > limit.training:
        raise TooLarge(what="the recipe's training", size=recipe.head.work(len(recipe.rows)), limit=limit.training)
    training, roots = start_of(recipe.head, start), []
    for mark in range(count):
        advance_to(recipe.head, training, recipe.rows, (mark + 1) * every, progress)
        after = state.copy()
        after.apply(kind_of(state), moved_to(state, recipe.layers, layers_of(recipe.head, training.weights)))
        roots.append(after.root)
    return Checkpoints(every, tuple(roots))


def first_apart(state: ModelState, recipe: Recipe, limit: limits.Limits = limits.DEFAULT) -> int:
    """Return the step of the first checkpoint that this machine does not come to; 0 when all are as the recipe says, or none are there."""
    said = recipe.checkpoints
    if said is None:
        return 0
    mine = checkpoints_of(state, recipe, said.every, limit)
    return next((said.every * (i + 1) for i, (a, b) in enumerate(zip(said.roots, mine.roots, strict=True)) if a != b), 0)


def moved_to(state: ModelState, layers: Sequence[HeadLayer], trained: Sequence[tuple[F32, F32]]) -> Sections:
    """Return the delta from `state` to the nearest points of its lattice to a trained head, whose matrices are [neurons, inputs]."""
    sections = []
    for layer, (matrix, biases) in zip(layers, trained, strict=True):
        flat = np.ascontiguousarray(matrix.T if layer.inputs_first else matrix).reshape(-1)
        sections += [_moved(state, layer.matrix, flat), _moved(state, layer.biases, np.ascontiguousarray(biases))]
    return tuple(sorted((s for s in sections if s is not None), key=lambda s: s.tensor))


def kind_of(state: ModelState) -> Kind:
    """Return what the sections of `update_of` are on this base: differences, exact ones where all tensors are."""
    return Kind.EXACT if state.manifest.all_exact else Kind.DELTA


def replay(
    state: ModelState, recipe: Recipe, *, root: bytes | None = None, limit: limits.Limits = limits.DEFAULT
) -> ModelState:
    """Return the version that the recipe makes of the parent `state`, which is left as it is. For notebooks: docs/recipes.md.

    root: what the sender says the result has; RootMismatch when it is another. Raises what `update_of` raises.
    """
    after = state.copy()
    after.apply(kind_of(state), update_of(state, recipe, limit))
    if root is not None and after.root != root:
        raise RootMismatch(what="the replayed recipe", kind="root", device="DEVICE")
    return after


def _moved(state: ModelState, tensor: int, trained: F32) -> AnySection | None:
    w, q = state.weights[tensor], state.integers[tensor]
    if state.manifest.exact(tensor):
        return exact.section_of(tensor, state.manifest.schema.tensors[tensor], w, trained)
    if state.manifest.verbatim(tensor):
        return verbatim_section(tensor, (trained.view(np.uint32) - w.view(np.uint32)).view(np.int32))
    e = state.exponents[tensor]
    units = np.rint(np.ldexp(trained.astype(np.float64) - state.base[tensor].astype(np.float64), -e))
    target = np.clip(units, -limits.Q_MAX, limits.Q_MAX).astype(np.int64)
    return section_of(tensor, target - q, e)
