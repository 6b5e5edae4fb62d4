"""The golden recipes in their containers: every optimizer, loss and type of row, exact bases, convolutions, hidden layers, checkpoints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelwire.lattice.replay import checkpoints_of
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.output_head.recipe import Recipe, layers_in
from modelwire.output_head.row_ids import KEY as IDS
from modelwire.output_head.row_ids import encode_ids
from modelwire.output_head.rows import Layout, Rows, quantized
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings, Schedule
from modelwire.tensors import Schema, TensorClass, TensorSpec
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind
from modelwire.wire import cbor
from tests.keys import NO_FILE
from tests.modelwire.models import model

from .folder import Vectors

HALF = np.float16


def said(recipe: Recipe, ids: range) -> dict[str, object]:
    return {"samples": len(recipe.rows), IDS: encode_ids(ids)}


def softmax() -> None:
    manifest, base = model(0)
    made = Vectors("recipe-updates", ModelState.of_base(manifest, base))
    rng = np.random.default_rng(9)
    x = np.maximum(rng.standard_normal((60, 37)), 0).astype(np.float32)
    labels = rng.integers(0, 40, 60).astype(np.uint32)
    head = OutputHeadSettings(37, 40, 40, rate=0.1, batch=16, seed=1)
    places = layers_in(manifest.schema, head, [("dense_kernel", "dense_bias")])
    int8, half = quantized(x, labels=labels), Rows(x.astype(HALF), labels=labels)
    momentum = replace(head, optimizer=Optimizer.MOMENTUM, schedule=Schedule.STAIRS, every=10, decay=1e-3, seed=2)
    adam = replace(head, optimizer=Optimizer.ADAM, schedule=Schedule.LINEAR, rate=0.01, rate_end=0.001, seed=3)

    def recipe(name: str, one: Recipe, ids: range) -> None:
        made.recipe(name, one, said(one, ids))

    recipe("1-sgd-int8", Recipe(head, places, int8), range(100, 160))
    recipe("2-momentum-float16", Recipe(momentum, places, half), range(100, 160))
    trained = [(w + rng.standard_normal(len(w)).astype(np.float32) * np.float32(0.02)).astype(np.float32) for w in made.state.weights]
    s = snap(made.state.copy(), [np.abs(trained[0]), *trained[1:]], no_residual(manifest), density=0.05, max_bytes=1 << 20)
    made.write("3-delta", s.kind, s.sections, s.state)
    recipe("4-adam-int8", Recipe(adam, places, int8.take(range(0, 60, 2))), range(100, 160, 2))
    recipe("5-adam-float16", Recipe(replace(adam, seed=4), places, half.take(range(3, 40))), range(103, 140))
    made.write("6-snapshot", Kind.SNAPSHOT, made.state.snapshot(), made.state)
    recipe("7-sgd-int8", Recipe(replace(head, seed=5), places, int8), range(100, 160))
    marked = Recipe(replace(adam, seed=6), places, half)
    marked = replace(marked, checkpoints=checkpoints_of(made.state, marked, 9))
    recipe("8-checkpoints", marked, range(200, 260))
    middle = rng.integers(-60, 60, 37)
    targets = (rng.integers(-8, 9, (20, 40)) / 8).astype(np.float32)
    around = Rows((middle + rng.integers(-4, 5, (20, 37))).astype(np.int8), targets=targets, scale=2.0**-7)  # layout 2: centred
    linear = OutputHeadSettings(37, 40, 30, loss=Loss.MSE, optimizer=Optimizer.ADAM, rate=0.01, batch=7)
    made.recipe("9-linear-centred", Recipe(linear, places, around), {})  # names no samples
    made.done("# Recipes on float32: every optimizer and schedule, labels and targets, rows of int8 and float16, checkpoints, wire 1")


def convolution() -> None:
    """A head of a 1x1 convolution on a backbone, behind a hidden layer whose matrix lies the other way round."""
    rng = np.random.default_rng(11)
    shapes = {"backbone": (3, 3, 2), "head_bias": (5,), "head_kernel": (5, 1, 1, 8), "hidden_bias": (8,), "hidden_kernel": (12, 8)}
    schema = Schema(tuple(TensorSpec(name, shape) for name, shape in sorted(shapes.items())))
    base = [(rng.standard_normal(t.size) * 0.3).astype(np.float32) for t in schema.tensors]
    for folder, exact in (("recipe-updates-convolution", False), ("recipe-updates-exact", True)):
        manifest = manifest_for(schema, base, **NO_FILE, exponents={}, exact=exact)
        assert (manifest.classes[0] is TensorClass.EXACT) is exact
        made = Vectors(folder, ModelState.of_base(manifest, base))
        x = rng.standard_normal((30, 12)).astype(np.float32)
        softmax = OutputHeadSettings(12, 5, 50, (8,), Activation.TANH, optimizer=Optimizer.ADAM, rate=0.02, decay=0.01, batch=8, seed=6)
        places = layers_in(schema, softmax, [("hidden_kernel", "hidden_bias"), ("head_kernel", "head_bias")])
        labels = rng.integers(0, 5, 30).astype(np.uint32)
        targets = (rng.integers(0, 9, (30, 5)) / 8).astype(np.float32)
        logistic = replace(softmax, loss=Loss.LOGISTIC, optimizer=Optimizer.MOMENTUM, activation=Activation.RELU, seed=7)
        mse = replace(softmax, loss=Loss.MSE, optimizer=Optimizer.SGD, seed=8)
        for name, recipe in (
            ("1-adam-int8", Recipe(softmax, places, quantized(x, labels=labels))),
            ("2-momentum-float16", Recipe(logistic, places, Rows(x.astype(HALF), targets=targets))),
            ("3-sgd-int8", Recipe(mse, places, quantized(x, targets=targets))),
        ):
            made.recipe(name, recipe, said(recipe, range(30)))
        what = "an exact base" if exact else "a base on the lattice"
        made.done(f"# Recipes with one hidden layer and a head that is a 1x1 convolution, with decay, on {what}, wire 1")


def deep() -> None:
    """Two hidden layers that learn their own features again: rows whose targets are null."""
    rng = np.random.default_rng(13)
    shapes = {"b1": (7,), "b2": (4,), "b3": (9,), "w1": (9, 7), "w2": (4, 7), "w3": (4, 9)}  # w2 lies the other way round
    schema = Schema(tuple(TensorSpec(name, shape) for name, shape in sorted(shapes.items())))
    base = [(rng.standard_normal(t.size) * 0.4).astype(np.float32) for t in schema.tensors]
    manifest = manifest_for(schema, base, **NO_FILE, exponents={})
    made = Vectors("recipe-updates-deep", ModelState.of_base(manifest, base))
    head = OutputHeadSettings(9, 9, 45, (7, 4), Activation.TANH, Loss.MSE, Optimizer.ADAM, rate=0.01, batch=10, seed=14)
    places = layers_in(schema, head, [("w1", "b1"), ("w2", "b2"), ("w3", "b3")])
    x = rng.standard_normal((35, 9)).astype(np.float32)
    for name, recipe in (
        ("1-own-targets-float16", Recipe(head, places, Rows(x.astype(HALF)))),
        ("2-own-targets-int8", Recipe(replace(head, activation=Activation.RELU, optimizer=Optimizer.SGD, rate=0.05), places, quantized(x))),
    ):
        made.recipe(name, recipe, said(recipe, range(1, 36)))
    made.done("# Recipes with two hidden layers whose rows are their own targets (null), wire 1")


def corners() -> None:
    """Recipes on verbatim tensors, on a parent in larger units than the manifest's, and with centred rows of float16."""
    rng = np.random.default_rng(19)
    shapes = {"b1": (6,), "b2": (5,), "w1": (8, 6), "w2": (6, 5)}
    schema = Schema(tuple(TensorSpec(name, shape) for name, shape in sorted(shapes.items())))
    base = [(rng.standard_normal(t.size) * 0.4).astype(np.float32) for t in schema.tensors]
    manifest = manifest_for(schema, base, **NO_FILE, exponents={}, verbatim=frozenset({"b1", "w1"}))
    made = Vectors("recipe-updates-corners", ModelState.of_base(manifest, base))
    head = OutputHeadSettings(8, 5, 25, (6,), Activation.TANH, optimizer=Optimizer.ADAM, rate=0.02, decay=0.01, batch=6, seed=20)
    places = layers_in(schema, head, [("w1", "b1"), ("w2", "b2")])
    labels = rng.integers(0, 5, 24).astype(np.uint32)
    x = rng.standard_normal((24, 8)).astype(np.float32)
    first = Recipe(head, places, quantized(x, labels=labels))
    made.recipe("1-verbatim-int8", first, said(first, range(1, 25)))
    trained = [w + rng.standard_normal(len(w)).astype(np.float32) * np.float32(0.05) for w in made.state.weights]
    widen = [schema.index("b2"), schema.index("w2")]
    s = snap(made.state.copy(), trained, no_residual(manifest), density=0.5, max_bytes=1 << 20, widen=widen)
    assert s.kind is Kind.SNAPSHOT and all(s.state.exponents[t] > manifest.exponents[t] for t in widen)
    made.write("2-snapshot", s.kind, s.sections, s.state)
    middle = (rng.standard_normal(8) * 2).astype(HALF).view(np.uint16)
    near = (middle + rng.integers(0, 5, (24, 8))).astype(np.uint16).view(HALF)
    second = Recipe(replace(head, seed=21), places, Rows(near, labels=labels))
    assert cbor.decode(second.encode())[4][5] == Layout.CENTRED  # type: ignore[index,call-overload]
    made.recipe("3-larger-units-float16-centred", second, said(second, range(25, 49)))
    made.done("# Recipes on verbatim tensors, on a parent in larger units than the manifest's, with centred rows of float16, wire 1")


def main() -> None:
    """Write the folders."""
    for make in (softmax, convolution, deep, corners):
        make()
