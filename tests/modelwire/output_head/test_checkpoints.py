"""Checkpoints of a recipe: roots on the way, which say from which step on two machines part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelwire.errors import Malformed, TooLarge, UnsupportedWire
from modelwire.lattice.replay import checkpoints_of, first_apart, replay
from modelwire.output_head.recipe import CHECKPOINTS_MAX, Checkpoints, Recipe, marks_within, parse_recipe
from modelwire.wire import cbor
from tests.modelwire.output_head.test_recipe import case


def marked(every: int, **settings: object) -> tuple[object, Recipe]:
    state, recipe = case(3)
    recipe = recipe.with_settings(**{"steps": 20, **settings})
    return state, replace(recipe, checkpoints=checkpoints_of(state, recipe, every))


@pytest.mark.parametrize("every", [1, 3, 19])
def test_checkpoints_travel_and_are_found_again(every: int) -> None:
    state, recipe = marked(every)
    assert recipe.checkpoints is not None and len(recipe.checkpoints.roots) == marks_within(20, every) == 19 // every
    again = parse_recipe(recipe.encode())
    assert again.encode() == recipe.encode() and again.checkpoints == recipe.checkpoints and first_apart(state, again) == 0  # type: ignore[arg-type]


def test_a_checkpoint_is_the_root_of_what_so_many_steps_come_to() -> None:
    state, recipe = marked(5, schedule=1)
    assert recipe.checkpoints is not None
    for i, root in enumerate(recipe.checkpoints.roots):
        assert replay(state, recipe.with_settings(steps=5 * (i + 1))).root == root  # type: ignore[arg-type]


def test_the_first_that_differs_is_named() -> None:
    state, recipe = marked(4)
    assert recipe.checkpoints is not None
    roots = list(recipe.checkpoints.roots)
    roots[2] = bytes(32)
    assert first_apart(state, replace(recipe, checkpoints=Checkpoints(4, tuple(roots)))) == 12  # type: ignore[arg-type]
    assert first_apart(state, replace(recipe, checkpoints=None)) == 0  # type: ignore[arg-type]


def test_another_training_carries_no_checkpoints_of_the_first() -> None:
    _, recipe = marked(4)
    assert recipe.with_settings(rate=0.5).checkpoints is None and recipe.without([0]).checkpoints is None


def test_checkpoints_that_do_not_fit_the_steps_are_refused() -> None:
    state, recipe = marked(4)
    top = cbor.decode(recipe.encode())
    assert isinstance(top, list)
    marks: list[cbor.Value] = [[0, b""], [4, bytes(96)], [4, bytes(160)], [20, b""], [19, b""], [4], [4, bytes(128), 1], 4]
    for value in (*marks, ["4", bytes(128)], [True, bytes(608)]):
        with pytest.raises(Malformed):
            parse_recipe(cbor.encode([*top[:5], value]))
    with pytest.raises(TooLarge):
        parse_recipe(cbor.encode([*top[:5], [1, bytes(32 * CHECKPOINTS_MAX + 1)]]))
    for every in (0, -1, 20):
        with pytest.raises(Malformed):
            checkpoints_of(state, recipe, every)  # type: ignore[arg-type]


def test_another_version_of_the_trainer_is_refused_by_name() -> None:
    _, recipe = case(3)
    top = cbor.decode(recipe.encode())
    assert isinstance(top, list) and top[1] == 1
    with pytest.raises(UnsupportedWire, match="exact trainer 2"):
        parse_recipe(cbor.encode([1, 2, *top[2:]]))
    for wrong in (0, -1, True, "1", None):
        with pytest.raises(Malformed):
            parse_recipe(cbor.encode([1, wrong, *top[2:]]))
