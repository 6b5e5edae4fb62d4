"""An update of kind recipe: a signed container without sections, replayed on its parent, that stands anywhere in a chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelwire import errors, limits
from modelwire.lattice.rebuild import apply, apply_many, rebuild, replayed
from modelwire.lattice.replay import update_of
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.output_head.recipe import Recipe
from modelwire.update.container import Container, parse, seal
from modelwire.update.header import Header
from modelwire.update.sections import Kind, Sections, add, invert
from tests.keys import FLEET_ID
from tests.modelwire.models import KEY

from .test_recipe import case

NO_DIGEST = bytes(32)


def header(kind: Kind, after: ModelState, **said: Any) -> Header:
    m = after.manifest
    fields = {"device": "pi-7", "model": "digits", "epoch": 1, "version": 1, "parent": m.commit, "schema_id": m.schema.id}
    named = m.commit if kind is Kind.SNAPSHOT else b""
    return Header(**{"kind": kind, **fields, "root": after.root, "fingerprint": after.fingerprint, "base": named, **said})


def update(state: ModelState, recipe: Recipe, **said: Any) -> tuple[Container, ModelState]:
    """Return the signed container of a recipe on this parent, and the state after it."""
    after = state.copy()
    after.apply(Kind.DELTA, update_of(state, recipe))
    return parse(seal(header(Kind.RECIPE, after, **said), (), state.manifest.schema, KEY, FLEET_ID, recipe=recipe.encode()).data), after


def plain(kind: Kind, sections: Sections, after: ModelState, version: int) -> Container:
    return parse(seal(header(kind, after, version=version), sections, after.manifest.schema, KEY, FLEET_ID).data)


def test_a_recipe_travels_whole_and_comes_to_the_sender_s_version() -> None:
    state, recipe = case(2)
    sent, after = update(state, recipe, extension={"samples": 30})
    sent.verify(KEY.public, FLEET_ID)
    assert (sent.header.kind, sent.entries, sent.header.extension) == (Kind.RECIPE, (), {"samples": 30})
    assert sent.recipe().encode() == bytes(sent.stream) == recipe.encode()
    before = state.root
    assert rebuild(state, sent).root == after.root != before == state.root


@pytest.mark.parametrize("seed", range(24))
def test_recipes_stand_anywhere_between_deltas_and_snapshots(seed: int) -> None:
    start, recipe = case(seed)
    rng = np.random.default_rng(seed)
    state, chain = start.copy(), list[Container]()
    for version in range(1, 9):
        how = ("recipe", "delta", "snapshot")[int(rng.integers(3))] if version > 1 else "recipe"
        if how == "recipe":
            made, state = update(state, recipe.with_settings(seed=version), version=version)
        elif how == "delta":
            trained = [w + rng.standard_normal(len(w)).astype(np.float32) * np.float32(0.02) for w in state.weights]
            s = snap(state.copy(), trained, no_residual(state.manifest), density=0.1, max_bytes=1 << 20)
            made, state = plain(Kind.DELTA, s.sections, s.state, version), s.state
        else:
            made = plain(Kind.SNAPSHOT, state.snapshot(), state, version)
        chain.append(made)
        assert made.header.root == state.root
    moved = start.copy()
    assert apply_many(moved, chain) == len(chain)
    assert (moved.root, moved.fingerprint) == (state.root, state.fingerprint)
    assert moved.measure_fingerprint() == moved.fingerprint


def test_what_a_recipe_comes_to_adds_and_inverts_like_any_delta() -> None:
    state, recipe = case(6)
    first, middle = update(state, recipe)
    second, after = update(middle, recipe.with_settings(seed=99))
    whole = add(replayed(state, first), replayed(middle, second), state.manifest)
    jumped = state.copy()
    jumped.apply(Kind.DELTA, whole, expect=after.fingerprint)
    assert jumped.root == after.root
    jumped.apply(Kind.DELTA, invert(whole))
    assert jumped.root == state.root


def test_a_recipe_has_no_sections_and_other_kinds_no_recipe() -> None:
    state, recipe = case(2)
    sent, after = update(state, recipe)
    sections = update_of(state, recipe)
    for ask in (lambda: sent.sections(state.manifest.schema), lambda: state.copy().apply_container(sent)):
        with pytest.raises(errors.Malformed, match="recipe"):
            ask()
    with pytest.raises(errors.Malformed, match="recipe"):
        state.copy().apply(Kind.RECIPE, sections)
    with pytest.raises(errors.Malformed, match="pi-7/digits@1: it is of kind delta"):
        plain(Kind.DELTA, sections, after, 1).recipe()
    for kind, given, carried in ((Kind.RECIPE, (), b""), (Kind.RECIPE, sections, recipe.encode()), (Kind.DELTA, (), recipe.encode())):
        with pytest.raises(errors.Malformed):
            seal(header(kind, after), given, state.manifest.schema, KEY, FLEET_ID, recipe=carried)


def test_a_refused_recipe_names_its_version_and_leaves_the_parent_as_it_was() -> None:
    state, recipe = case(2)
    sent, after = update(state, recipe)
    other, _ = case(4)
    endless = recipe.with_settings(steps=2**32 - 1).encode()
    long = parse(seal(header(Kind.RECIPE, after), (), state.manifest.schema, KEY, FLEET_ID, recipe=endless).data)
    elsewhere = replace(recipe, layers=tuple(replace(layer, matrix=layer.biases, biases=layer.matrix) for layer in recipe.layers))
    misplaced = parse(seal(header(Kind.RECIPE, after), (), state.manifest.schema, KEY, FLEET_ID, recipe=elsewhere.encode()).data)
    diverging = recipe.with_settings(rate=3e38, decay=3e38)
    wild = parse(seal(header(Kind.RECIPE, after), (), state.manifest.schema, KEY, FLEET_ID, recipe=diverging.encode()).data)
    garbage = parse(seal(header(Kind.RECIPE, after), (), state.manifest.schema, KEY, FLEET_ID, recipe=b"\x84\x01").data)
    wrong_root, _ = update(state, recipe, root=NO_DIGEST)
    wrong_sum, _ = update(state, recipe, fingerprint=(1, 2))
    before = state.root
    for error, container in (
        (errors.TooLarge, long), (errors.ShapeMismatch, misplaced), (errors.TrainingDiverged, wild), (errors.Malformed, garbage),
        (errors.RootMismatch, wrong_root), (errors.RootMismatch, wrong_sum),
    ):  # fmt: skip
        with pytest.raises(error, match="pi-7/digits@1"):
            rebuild(state, container)
        if container is not wrong_root:
            with pytest.raises(error, match="pi-7/digits@1"):
                apply(state, container)
        assert state.root == before and state.fingerprint == state.measure_fingerprint()
    with pytest.raises(errors.WrongBase):
        rebuild(other, sent)
    with pytest.raises(errors.TooLarge, match="pi-7/digits@1"):
        rebuild(state, sent, limit=limits.Limits(training=100))


def test_more_rows_than_a_reader_takes_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    _, recipe = case(2)
    monkeypatch.setattr("modelwire.output_head.rows.ENTRIES_MAX", recipe.rows.features.size - 1)
    with pytest.raises(errors.TooLarge):
        recipe.encode()
