"""The negative vectors of a recipe against its parent: where its layers lie, and how long it trains. R34 to R39."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from modelwire import limits
from modelwire.output_head.recipe import HeadLayer, Recipe
from modelwire.output_head.rows import Rows
from modelwire.output_head_settings import OutputHeadSettings
from tests.modelwire.golden import state_of

from .recipe_cases import B1, B2, B3, DEEP, MIXED, W1, W2, W3, Case, good, head, of, of_head, put

_CONVOLUTION = {"folder": "recipe-updates-convolution", "container": None}
_UPDATES = {"folder": "updates", "container": None}


def cases() -> Iterator[Case]:
    """Yield them all."""
    for part in (_places, _types, _shapes, _lengths):
        yield from part()


def _places() -> Iterator[Case]:
    one, two, three = [W1, B1, 1], [W2, B2, 0], [W3, B3, 1]
    for name, layers in {"one of three layers": [one], "two of three layers": [one, two]}.items():
        yield of("R34", name, put(3, layers), "ModelError", on="hidden")
    for name, layers in {"two layers for one": [one, two], "three layers for one": [one, two, three]}.items():
        yield of("R34", name, put(3, layers), "ModelError")
    yield of("R35", "a matrix and its biases in one tensor", put(3, [[W1, W1, 1]]), "ModelError")
    yield of("R35", "two biases in one tensor", put(3, [one, [W2, B1, 0], three]), "ModelError", on="hidden")
    yield of("R35", "two matrices in one tensor", put(3, [one, [W1, B2, 0], three]), "ModelError", on="hidden")
    for number in (6, 4095):
        yield of("R35", f"a matrix in tensor {number} of six", put(3, [[number, B1, 1]]), "ModelError")
        yield of("R35", f"biases in tensor {number} of six", put(3, [[W1, number, 1]]), "ModelError")


def _other(held: dict[str, Any], layer: tuple[str, str, bool], wrong: tuple[str, str, bool], *, widths: Any) -> tuple[bytes, bytes]:
    """Return two recipes of one layer on another base: one that is right, and one with the wrong place."""
    schema = state_of(held["folder"], held["container"]).manifest.schema
    made = []
    for (matrix, biases, first), (inputs, outputs) in zip((layer, wrong), widths, strict=True):
        place = HeadLayer(schema.index(matrix), schema.index(biases), first)
        rows = Rows(np.ones((2, inputs), np.int8), labels=np.array([0, 1], np.uint32))
        made.append(Recipe(head(features=inputs, outputs=outputs), (place,), rows).encode())
    return made[0], made[1]


def _types() -> Iterator[Case]:
    """A float32 layer has no place among other types: matrix and biases that fit in their shape."""
    fine = good("softmax").encode()  # that base has no layer that could be trained
    for matrix, biases in (("b16", "moving_mean"), ("f16", "moving_mean"), ("f32", "moving_mean")):
        both = (matrix, biases, True)
        _, data = _other(MIXED, both, both, widths=[(20, 30)] * 2)
        what = "biases in float16" if matrix == "f32" else f"a matrix in {'bfloat16' if matrix == 'b16' else 'float16'}"
        yield Case(what, ("R36",), "ModelError", "recipe", data, MIXED, fine, DEEP)
    for name, first in (("codes", True), ("codes", False)):
        inputs, outputs = (17, 8) if first else (8, 17)
        both = (name, "moving_mean", first)
        _, data = _other(MIXED, both, both, widths=[(inputs, outputs)] * 2)
        yield Case(f"a matrix in int8 of {inputs} inputs", ("R36",), "ModelError", "recipe", data, MIXED, fine, DEEP)


def _shapes() -> Iterator[Case]:
    yield of("R37", "a matrix the other way round", put(3, [[W1, B1, 0]]), "ShapeMismatch")
    yield of("R37", "a second matrix the other way round", lambda v: v[3][1].__setitem__(2, 1), "ShapeMismatch", on="hidden")
    yield of("R37", "a matrix of one dimension", put(3, [[B3, B1, 1]]), "ShapeMismatch")
    yield of("R37", "a matrix of fewer inputs", put(3, [[W2, B1, 1]]), "ShapeMismatch")
    yield of("R37", "a head of more outputs than its tensors", of_head(outputs=8), "ShapeMismatch")
    yield of("R37", "a head of more features than its tensors", of_head(features=10), "ShapeMismatch")
    wrong = {
        "a convolution that is larger than 1x1": ("backbone", "head_bias", False, 2, 3),
        "a 1x1 convolution the other way round": ("head_kernel", "head_bias", True, 8, 5),
    }
    right = ("head_kernel", "head_bias", False)
    for name, (matrix, biases, first, inputs, outputs) in wrong.items():
        fine, data = _other(_CONVOLUTION, right, (matrix, biases, first), widths=[(8, 5), (inputs, outputs)])
        yield Case(name, ("R37",), "ShapeMismatch", "recipe", data, _CONVOLUTION, fine, _CONVOLUTION)
    yield of("R38", "biases of fewer neurons", put(3, [[W1, B2, 1]]), "ShapeMismatch")
    yield of("R38", "biases of more neurons", put(3, [[W1, B3, 1]]), "ShapeMismatch")
    yield of("R38", "biases in a matrix", put(3, [[W1, W2, 1]]), "ShapeMismatch")
    yield of("R38", "biases of two layers that are swapped", put(3, [[W1, B2, 1], [W2, B1, 0], [W3, B3, 1]]), "ShapeMismatch", on="hidden")
    shapes = ("dense_kernel", "dense_bias", True), ("dense_kernel", "zeros", True)  # zeros is [8, 5]: as many entries as 40 neurons
    fine, data = _other(_UPDATES, *shapes, widths=[(37, 40)] * 2)
    yield Case("biases in a matrix of as many entries", ("R38",), "ShapeMismatch", "recipe", data, _UPDATES, fine, _UPDATES)


def _lengths() -> Iterator[Case]:
    for on in ("softmax", "mse", "hidden"):
        recipe = good(on)
        one: OutputHeadSettings = replace(recipe.head, steps=1)
        steps = limits.DEFAULT.training // one.work(len(recipe.rows)) + 1
        yield of("R39", f"{steps} steps of a {on} head", of_head(steps=steps), "TooLarge", on=on)
        yield of("R39", f"2 to the 32 less one steps of a {on} head", of_head(steps=2**32 - 1), "TooLarge", on=on)
