"""A version by its provenance, as bytes: which rows, trained how, and where in the model the trained layers lie.

docs/format/recipe.md has the bytes. lattice/replay.py makes the version of it, on its parent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelwire import limits
from modelwire.errors import Malformed, ModelError, ShapeMismatch, TooLarge, UnsupportedWire
from modelwire.output_head_settings import OutputHeadSettings, output_head_settings_of
from modelwire.tensors import Dtype, Schema, TensorSpec
from modelwire.wire import cbor

from . import rows
from .rows import Rows

TRAINER = 1  # of the exact trainer: every bit that it gives is of this version for ever (docs/format/trainer.md)
CHECKPOINTS_MAX = 1024
TRAINERS = (TRAINER,)  # what this release replays


@dataclass(frozen=True, slots=True)
class HeadLayer:
    """Where one layer of the head lies in the model."""

    matrix: int  # places in the schema
    biases: int
    inputs_first: bool  # the matrix is [inputs, neurons], as a MATMUL has it, and not [neurons, inputs]


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Roots on the way of the one training of all steps: had it been stopped after so many steps, and twice as many, ... below all of them.

    So they are not the roots of recipes with fewer steps: schedules go on dividing by all of them.
    """

    every: int  # steps
    roots: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an update of kind recipe carries beside its header. The weights to start from are the parent's."""

    head: OutputHeadSettings
    layers: tuple[HeadLayer, ...]
    rows: Rows
    checkpoints: Checkpoints | None = None
    trainer: int = TRAINER  # version of the exact trainer that it was trained by

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        where: list[cbor.Value] = [[layer.matrix, layer.biases, int(layer.inputs_first)] for layer in self.layers]
        marks = self.checkpoints
        on_the_way: cbor.Value = None if marks is None else [marks.every, b"".join(marks.roots)]
        return cbor.encode([1, self.trainer, self.head.as_value(), where, rows.as_value(self.rows), on_the_way])

    def without(self, forgotten: Sequence[int]) -> Recipe:
        """Return the recipe without some rows: replayed, it gives what training would have given had they never been seen."""
        return replace(self, rows=self.rows.without(forgotten), checkpoints=None)

    def with_settings(self, **settings: Any) -> Recipe:
        """Return the recipe with other settings of its head, such as rate=0.01. Raises Malformed for one out of range or unknown."""
        try:
            return replace(self, head=replace(self.head, **settings), checkpoints=None)
        except TypeError:
            raise Malformed(what="head", reason=f"it has not the settings {', '.join(settings)}") from None


def parse_recipe(data: bytes, limit: limits.Limits = limits.DEFAULT) -> Recipe:
    """Return the recipe that `data` holds. Raises Malformed or TooLarge."""
    if len(data) > limit.container:
        raise TooLarge(what="the recipe", size=len(data), limit=limit.container)
    top = cbor.decode(data, "recipe", limit)
    if not isinstance(top, list) or len(top) != 6 or type(top[0]) is not int or top[0] != 1:
        raise Malformed(what="recipe", reason="it is not one of format 1")
    _, trainer, head, where, held, on_the_way = top
    if type(trainer) is not int or trainer < 1:
        raise Malformed(what="recipe", reason="it does not say which trainer it is of")
    if trainer not in TRAINERS:
        raise UnsupportedWire(what="exact trainer", got=trainer, reads=TRAINER)
    if not isinstance(where, list) or not 1 <= len(where) <= 3:
        raise Malformed(what="recipe", reason="it does not say where its layers are")
    layers = []
    for place in where:
        if not isinstance(place, list) or len(place) != 3 or any(type(n) is not int for n in place) or place[2] not in (0, 1):
            raise Malformed(what="recipe", reason="a layer's place is not two tensors and a flag")
        matrix, biases, inputs_first = (int(n) for n in place if isinstance(n, int))
        if not 0 <= matrix < limit.tensors or not 0 <= biases < limit.tensors:
            raise Malformed(what="recipe", reason="a layer's tensor is out of range")
        layers.append(HeadLayer(matrix, biases, bool(inputs_first)))
    settings = output_head_settings_of(head)
    return Recipe(settings, tuple(layers), rows.rows_of(held), _checkpoints(on_the_way, settings.steps), trainer)


def marks_within(steps: int, every: int) -> int:
    """Return how many checkpoints lie below the last of `steps` steps."""
    return (steps - 1) // every


def _checkpoints(value: cbor.Value, steps: int) -> Checkpoints | None:
    """Return the roots on the way, as many as the steps need. Raises Malformed or TooLarge."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or type(value[0]) is not int or not isinstance(value[1], bytes):
        raise Malformed(what="recipe", reason="checkpoints are not a number of steps and roots")
    every, joined = value
    assert isinstance(every, int) and isinstance(joined, bytes)
    if len(joined) > 32 * CHECKPOINTS_MAX:
        raise TooLarge(what="a recipe's checkpoints", size=len(joined) // 32, limit=CHECKPOINTS_MAX)
    if not 0 < every < steps or len(joined) != 32 * marks_within(steps, every):
        raise Malformed(what="recipe", reason=f"{len(joined)} bytes of checkpoints each {every} of {steps} steps")
    return Checkpoints(every, tuple(joined[i : i + 32] for i in range(0, len(joined), 32)))


def layers_in(schema: Schema, head: OutputHeadSettings, names: Sequence[tuple[str, str]]) -> tuple[HeadLayer, ...]:
    """Return where the layers lie whose (matrix, biases) have these names, the one that sees the features first. For notebooks.

    A square matrix counts as [inputs, neurons]. Raises ModelError when a tensor is not there or has another shape.
    """
    layers = []
    if len(names) != len(head.widths) - 1:
        raise ModelError(model="head", reason=f"it has {len(head.widths) - 1} layers, and {len(names)} were named")
    for k, (matrix, biases) in enumerate(names):
        for name in (matrix, biases):
            if all(spec.name != name for spec in schema.tensors):
                raise ModelError(model=f"tensor {name}", reason="the model does not have it")
        m, b = schema.index(matrix), schema.index(biases)
        inputs_first = _ends(schema.tensors[m]) == (head.widths[k], head.widths[k + 1])
        layers.append(HeadLayer(m, b, inputs_first))
    check_places(schema, head, layers)
    return tuple(layers)


def check_places(schema: Schema, head: OutputHeadSettings, layers: Sequence[HeadLayer]) -> None:
    """Raise ModelError unless the layers of this head lie where they are said to."""
    if len(layers) != len(head.widths) - 1:
        raise ModelError(model="head", reason=f"it has {len(head.widths) - 1} layers, and the recipe places {len(layers)}")
    tensors = [t for layer in layers for t in (layer.matrix, layer.biases)]
    if len(set(tensors)) < len(tensors) or max(tensors) >= len(schema.tensors):
        raise ModelError(model="head", reason="two layers lie in one tensor, or one in none")
    for k, layer in enumerate(layers):
        inputs, neurons = head.widths[k : k + 2]
        matrix = (inputs, neurons) if layer.inputs_first else (neurons, inputs)
        for t, fits, shape in ((layer.matrix, _ends, matrix), (layer.biases, _only, (neurons,))):
            spec = schema.tensors[t]
            if spec.dtype is not Dtype.FLOAT32:
                raise ModelError(model=f"tensor {spec.name}", reason="a head is trained in float32 alone")
            if fits(spec) != shape:
                raise ShapeMismatch(tensor=spec.name, expected=str(list(shape)), got=str(list(spec.shape)))


def _ends(spec: TensorSpec) -> tuple[int, ...]:
    """Return a matrix's shape; that of a 1x1 convolution is [neurons, 1, 1, inputs]."""
    return (spec.shape[0], spec.shape[-1]) if len(spec.shape) > 1 and spec.size == spec.shape[0] * spec.shape[-1] else ()


def _only(spec: TensorSpec) -> tuple[int, ...]:
    return spec.shape
