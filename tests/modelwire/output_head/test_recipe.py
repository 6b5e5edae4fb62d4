"""A recipe replayed on its parent is the version that the device had, bit for bit; without a row it is as if the row never was."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire import _core, errors, limits
from modelwire.identity import root_parts
from modelwire.lattice.replay import replay, update_of
from modelwire.lattice.state import ModelState
from modelwire.output_head.recipe import Recipe, layers_in, parse_recipe
from modelwire.output_head.rows import Rows, quantized
from modelwire.output_head.trainer import layers_of, train_head
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings, Schedule
from modelwire.tensors import Schema, TensorClass, TensorSpec
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind, invert
from modelwire.wire import cbor
from tests.keys import NO_FILE

ROOT = Path(__file__).parents[3]


def parent(widths: tuple[int, ...], seed: int, *, inputs_first: bool = False, verbatim_bias: bool = False) -> ModelState:
    """Return version 0 of a model that holds a backbone and a head with these widths."""
    rng = np.random.default_rng(seed)
    specs = [TensorSpec("backbone_kernel", (7, 5))]
    for k in range(len(widths) - 1):
        inputs, neurons = widths[k : k + 2]
        bias = f"layer{k}_running_mean" if verbatim_bias and not k else f"layer{k}_bias"
        matrix = (inputs, neurons) if inputs_first else (neurons, 1, 1, inputs)
        specs += [TensorSpec(bias, (neurons,)), TensorSpec(f"layer{k}_kernel", matrix)]
    schema = Schema(tuple(sorted(specs, key=lambda spec: spec.name)))
    base = [(rng.standard_normal(spec.size) * 0.2).astype(np.float32) for spec in schema.tensors]
    return ModelState.of_base(manifest_for(schema, base, **NO_FILE, exponents={}), base)


def names(state: ModelState) -> list[tuple[str, str]]:
    held = [spec.name for spec in state.manifest.schema.tensors if spec.name.startswith("layer")]
    return [(f"layer{k}_kernel", next(n for n in held if n.startswith(f"layer{k}_") and "kernel" not in n)) for k in range(len(held) // 2)]


def rows_for(head: OutputHeadSettings, n: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal((n, head.features)), 0).astype(np.float32)
    if head.loss is Loss.SOFTMAX:
        rows = quantized(x, labels=rng.integers(0, head.outputs, n).astype(np.uint32))
    else:
        rows = quantized(x, targets=rng.random((n, head.outputs), np.float32))
    return rows if seed % 3 else Rows(x.astype(np.float16), rows.labels, rows.targets)


def case(seed: int) -> tuple[ModelState, Recipe]:
    """Return a parent with a history, and a recipe for it; what kind of head depends on the seed."""
    rng = np.random.default_rng(seed)
    hidden = tuple(int(n) for n in rng.integers(1, 24, seed % 3))
    head = OutputHeadSettings(
        int(rng.integers(1, 60)), int(rng.integers(2, 12)), 12, hidden, list(Activation)[seed % 2], list(Loss)[seed // 2 % 3],
        list(Optimizer)[seed // 3 % 3], list(Schedule)[seed // 5 % 3], batch=8, every=5, seed=seed, rate=0.05, rate_end=0.01, decay=1e-3,
    )  # fmt: skip
    state = parent(head.widths, seed, inputs_first=bool(seed % 2), verbatim_bias=seed % 4 == 1)
    recipe = Recipe(head, layers_in(state.manifest.schema, head, names(state)), rows_for(head, int(rng.integers(3, 40)), seed))
    return replay(state, recipe.with_settings(seed=seed + 1)), recipe


def layers_before(state: ModelState, recipe: Recipe) -> list[tuple[Any, Any]]:
    """Return matrix [neurons, inputs] and biases of each layer of the parent."""
    out = []
    for k, layer in enumerate(recipe.layers):
        inputs, neurons = recipe.head.widths[k : k + 2]
        matrix = state.weights[layer.matrix]
        matrix = matrix.reshape(inputs, neurons).T if layer.inputs_first else matrix.reshape(neurons, inputs)
        out.append((matrix, state.weights[layer.biases]))
    return out


@pytest.mark.parametrize("seed", range(100))
def test_a_hundred_recipes_replayed_have_the_device_s_roots(seed: int) -> None:
    state, recipe = case(seed)
    before = state.root
    device = replay(state, recipe)
    sent = recipe.encode()
    centre = ModelState.of_weights(state.manifest, state.base, state.weights, state.exponents)  # rebuilt, not the device's own
    replayed = replay(centre, parse_recipe(sent), root=device.root)
    assert replayed.root == device.root != before == state.root
    assert replayed.fingerprint == device.fingerprint == replayed.measure_fingerprint()
    assert [q.tobytes() for q in replayed.integers] == [q.tobytes() for q in device.integers]


@given(st.integers(0, 10_000), st.data())
def test_forgetting_rows_is_training_without_them_bit_for_bit(seed: int, data: st.DataObject) -> None:
    state, recipe = case(seed)
    n = len(recipe.rows)
    gone = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n - 1))
    kept = [row for row in range(n) if row not in gone]
    never = Rows(
        recipe.rows.features[kept],
        None if recipe.rows.labels is None else recipe.rows.labels[kept],
        None if recipe.rows.targets is None else recipe.rows.targets[kept],
        recipe.rows.scale,
    )
    forgotten = replay(state, parse_recipe(recipe.without(gone).encode()))
    assert forgotten.root == replay(state, Recipe(recipe.head, recipe.layers, never)).root


def test_other_settings_on_the_same_rows_give_another_version() -> None:
    state, recipe = case(6)
    roots = {replay(state, recipe.with_settings(rate=rate)).root for rate in (0.05, 0.01, 0.02)}
    assert len(roots) == 3
    assert replay(state, recipe.with_settings(rate=0.05)).root == replay(state, recipe).root
    with pytest.raises(errors.Malformed):
        recipe.with_settings(rate=-1.0)
    with pytest.raises(errors.Malformed):
        recipe.with_settings(speed=1)


def test_the_backbone_stays_and_the_head_is_within_half_a_unit_of_what_was_trained() -> None:
    state, recipe = case(4)
    after = replay(state, recipe)
    start = layers_before(state, recipe)
    for layer, (matrix, biases) in zip(recipe.layers, train_head(recipe.head, recipe.rows, start), strict=True):
        for tensor, trained in ((layer.matrix, matrix.reshape(-1)), (layer.biases, biases)):
            unit = 2.0 ** state.exponents[tensor]
            assert np.abs(after.weights[tensor].astype(np.float64) - trained).max() <= 0.51 * unit
    head = {t for layer in recipe.layers for t in (layer.matrix, layer.biases)}
    for tensor in set(range(len(state.weights))) - head:
        assert after.weights[tensor].tobytes() == state.weights[tensor].tobytes()


def test_a_verbatim_tensor_of_the_head_gets_the_trained_bits() -> None:
    state, recipe = case(1)
    assert state.manifest.verbatim(recipe.layers[0].biases)
    trained = train_head(recipe.head, recipe.rows, layers_before(state, recipe))
    assert replay(state, recipe).weights[recipe.layers[0].biases].tobytes() == trained[0][1].tobytes()


@pytest.mark.parametrize("whole", [True, False])
def test_exact_tensors_of_the_head_get_the_trained_bits(whole: bool) -> None:
    state, recipe = case(5)
    manifest = state.manifest
    exact = [whole or t == recipe.layers[0].matrix for t in range(len(state.base))]
    classes = tuple(TensorClass.EXACT if e else c for e, c in zip(exact, manifest.classes, strict=True))
    units = tuple(0 if e else unit for e, unit in zip(exact, manifest.exponents, strict=True))
    root = root_parts(manifest.schema, state.base, units, {}).root
    state = ModelState.of_base(replace(manifest, classes=classes, exponents=units, root=root), state.base)
    trained = train_head(recipe.head, recipe.rows, layers_before(state, recipe))
    after = replay(state, recipe)
    flat = trained[0][0].T if recipe.layers[0].inputs_first else trained[0][0]
    assert after.weights[recipe.layers[0].matrix].tobytes() == flat.tobytes()
    assert after.fingerprint == after.measure_fingerprint() != state.fingerprint
    after.apply(Kind.EXACT if whole else Kind.DELTA, invert(update_of(state, recipe)))
    assert (after.root, after.fingerprint) == (state.root, state.fingerprint)


def test_what_a_recipe_does_can_be_taken_back_like_any_delta() -> None:
    state, recipe = case(5)
    after = replay(state, recipe)
    after.apply(Kind.DELTA, invert(update_of(state, recipe)))
    assert after.root == state.root
    assert after.fingerprint == state.fingerprint


def test_a_weight_past_the_lattice_s_range_stops_at_its_end() -> None:
    state, recipe = case(2)
    fast = recipe.with_settings(rate=3000.0, optimizer=Optimizer.SGD, decay=0.0, schedule=Schedule.CONSTANT, steps=1)
    after = replay(state, fast)
    most = max(int(np.abs(after.integers[t]).max()) for layer in recipe.layers for t in (layer.matrix, layer.biases))
    assert most == limits.Q_MAX
    assert replay(state, fast).root == after.root


def test_another_root_than_the_sender_s_is_refused_and_the_parent_stays() -> None:
    state, recipe = case(7)
    before = state.root
    with pytest.raises(errors.RootMismatch):
        replay(state, recipe, root=bytes(32))
    assert state.root == before


@pytest.mark.slow("replays trainings on every kernel")
def test_every_kernel_and_the_twin_replay_to_the_same_roots() -> None:
    program = (
        "from tests.modelwire.output_head.test_recipe import case; from modelwire.lattice.replay import replay\n"
        "print(*(replay(*case(seed)).root.hex() for seed in range(6)))"
    )
    seen = set()
    for name in ("generic", _core.kernel_name(), "reference"):
        environment = {**os.environ, "MODELWIRE_KERNEL": name}
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        seen.add(done.stdout)
    assert len(seen) == 1
    assert len(seen.pop().split()) == 6


def test_a_recipe_reads_back_as_it_was() -> None:
    for seed in range(12):
        _, recipe = case(seed)
        again = parse_recipe(recipe.encode())
        assert (again.head, again.layers) == (recipe.head, recipe.layers)
        assert again.encode() == recipe.encode()


def spoilt(change: Any) -> bytes:
    value: Any = cbor.decode(case(2)[1].encode())
    change(value)
    return cbor.encode(value)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.__setitem__(0, 2), lambda v: v.__setitem__(0, True), lambda v: v.append(0), lambda v: v.__setitem__(1, None),
        lambda v: v.__setitem__(2, []), lambda v: v.__setitem__(2, [[0, 1, 0]] * 4), lambda v: v.__setitem__(2, [[0, 1]]),
        lambda v: v.__setitem__(2, [[0, 1, True]]), lambda v: v.__setitem__(2, [[0, -1, 0]]), lambda v: v.__setitem__(2, [[0, 4096, 0]]),
        lambda v: v.__setitem__(2, [[0, 1, 2]]), lambda v: v.__setitem__(3, []), lambda v: v.__setitem__(2, {}),
    ],
)  # fmt: skip
def test_a_recipe_with_a_wrong_field_is_refused(change: Any) -> None:
    with pytest.raises(errors.Malformed):
        parse_recipe(spoilt(change))


def test_a_recipe_beyond_the_limit_is_not_looked_at() -> None:
    with pytest.raises(errors.TooLarge):
        parse_recipe(bytes(200), limits.Limits(container=100))


def test_a_training_longer_than_a_centre_replays_is_refused_before_it_starts() -> None:
    state, recipe = case(2)
    for replayed in (replay, update_of):
        with pytest.raises(errors.TooLarge):
            replayed(state, recipe.with_settings(steps=2**32 - 1))
        with pytest.raises(errors.TooLarge):
            replayed(state, recipe, limit=limits.Limits(training=100))


def test_a_long_training_is_cut_into_calls_and_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    state, recipe = case(8)
    whole = replay(state, recipe).root
    monkeypatch.setattr("modelwire.output_head.trainer.WORK_OF_A_CALL", 1)
    assert replay(state, recipe).root == whole


def test_a_recipe_for_another_model_is_refused_before_anything_is_trained() -> None:
    state, recipe = case(2)
    other, _ = case(3)
    with pytest.raises(errors.ModelError):
        replay(other, recipe)
    schema = state.manifest.schema
    for wrong in ([("no", "layer0_bias")], [("layer0_bias", "layer0_kernel")], [("backbone_kernel", "layer0_bias")], names(state) * 2):
        with pytest.raises(errors.ModelError):
            layers_in(schema, recipe.head, wrong * (len(recipe.layers) if len(wrong) == 1 else 1))


def test_trained_weights_are_had_by_layer() -> None:
    head = OutputHeadSettings(3, 2, 1, (4,))
    flat = np.arange(head.size, dtype=np.float32)
    layers = layers_of(head, flat)
    assert [(m.shape, b.shape) for m, b in layers] == [((4, 3), (4,)), ((2, 4), (2,))]
    assert b"".join(m.tobytes() + b.tobytes() for m, b in layers) == flat.tobytes()
