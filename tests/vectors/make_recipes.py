"""Write the golden vectors of whole signed recipe updates: every optimizer and type of row, an exact base, a head that is a convolution.

    python -m tests.vectors.make_recipes

Vectors are only added, never edited: it refuses to overwrite. tests/vectors/wire-1/recipes holds recipes without their containers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from modelwire.lattice.replay import kind_of, update_of
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.output_head.recipe import Recipe, layers_in
from modelwire.output_head.row_ids import KEY as IDS
from modelwire.output_head.row_ids import encode_ids
from modelwire.output_head.rows import Rows, quantized
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings, Schedule
from modelwire.tensors import Schema, TensorClass, TensorSpec
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind
from tests.keys import FLEET_ID, NO_FILE
from tests.modelwire.models import KEY, model

from .make_types import Vectors as Folder

WIRE_1 = Path(__file__).parent / "wire-1"


class Vectors(Folder):
    """One folder that is being written."""

    def recipe(self, name: str, recipe: Recipe, ids: range) -> None:
        """Write the container of a recipe on the last state."""
        m, after = self.manifest, self.state.copy()
        after.apply(kind_of(after), update_of(after, recipe))
        self.version += 1
        said = {"samples": len(recipe.rows), IDS: encode_ids(ids)}
        parent = (self.parent, m.schema.id, after.root, after.fingerprint, b"", said)
        header = Header(Kind.RECIPE, "pi-7", "types", 1, self.version, *parent)
        self.keep(name, seal(header, (), m.schema, KEY, FLEET_ID, recipe=recipe.encode()), after)


def softmax() -> None:
    manifest, base = model(0)
    made = Vectors(WIRE_1 / "recipe-updates", ModelState.of_base(manifest, base))
    rng = np.random.default_rng(9)
    x = np.maximum(rng.standard_normal((60, 37)), 0).astype(np.float32)
    labels = rng.integers(0, 40, 60).astype(np.uint32)
    head = OutputHeadSettings(37, 40, 40, rate=0.1, batch=16, seed=1)
    places = layers_in(manifest.schema, head, [("dense_kernel", "dense_bias")])
    int8, half = quantized(x, labels=labels), Rows(x.astype(np.float16), labels=labels)
    momentum = replace(head, optimizer=Optimizer.MOMENTUM, schedule=Schedule.STAIRS, every=10, decay=1e-3, seed=2)
    adam = replace(head, optimizer=Optimizer.ADAM, schedule=Schedule.LINEAR, rate=0.01, rate_end=0.001, seed=3)
    made.recipe("1-sgd-int8", Recipe(head, places, int8), range(100, 160))
    made.recipe("2-momentum-float16", Recipe(momentum, places, half), range(100, 160))
    trained = [(w + rng.standard_normal(len(w)).astype(np.float32) * np.float32(0.02)).astype(np.float32) for w in made.state.weights]
    s = snap(made.state.copy(), [np.abs(trained[0]), *trained[1:]], no_residual(manifest), density=0.05, max_bytes=1 << 20)
    made.write("3-delta", s.kind, s.sections, s.state)
    made.recipe("4-adam-int8", Recipe(adam, places, int8.take(range(0, 60, 2))), range(100, 160, 2))
    made.recipe("5-adam-float16", Recipe(replace(adam, seed=4), places, half.take(range(3, 40))), range(103, 140))
    made.write("6-snapshot", Kind.SNAPSHOT, made.state.snapshot(), made.state)
    made.recipe("7-sgd-int8", Recipe(replace(head, seed=5), places, int8), range(100, 160))
    made.done()


def convolution() -> None:
    """A head of a 1x1 convolution on a backbone, behind a hidden layer whose matrix lies the other way round."""
    rng = np.random.default_rng(11)
    shapes = {"backbone": (3, 3, 2), "head_bias": (5,), "head_kernel": (5, 1, 1, 8), "hidden_bias": (8,), "hidden_kernel": (12, 8)}
    schema = Schema(tuple(TensorSpec(name, shape) for name, shape in sorted(shapes.items())))
    base = [(rng.standard_normal(t.size) * 0.3).astype(np.float32) for t in schema.tensors]
    whole = manifest_for(schema, base, **NO_FILE, exponents={})
    for folder, classes in (("recipe-updates-convolution", whole.classes), ("recipe-updates-exact", (TensorClass.EXACT,) * 5)):
        exact = classes[0] is TensorClass.EXACT
        manifest = replace(whole, classes=classes, exponents=(0,) * 5) if exact else whole
        made = Vectors(WIRE_1 / folder, ModelState.of_base(manifest, base))
        x = rng.standard_normal((30, 12)).astype(np.float32)
        softmax = OutputHeadSettings(12, 5, 50, (8,), Activation.TANH, optimizer=Optimizer.ADAM, rate=0.02, batch=8, seed=6)
        places = layers_in(schema, softmax, [("hidden_kernel", "hidden_bias"), ("head_kernel", "head_bias")])
        labels = rng.integers(0, 5, 30).astype(np.uint32)
        targets = (rng.integers(0, 9, (30, 5)) / 8).astype(np.float32)
        made.recipe("1-adam-int8", Recipe(softmax, places, quantized(x, labels=labels)), range(30))
        logistic = replace(softmax, loss=Loss.LOGISTIC, optimizer=Optimizer.MOMENTUM, activation=Activation.RELU, seed=7)
        made.recipe("2-momentum-float16", Recipe(logistic, places, Rows(x.astype(np.float16), targets=targets)), range(30))
        mse = replace(softmax, loss=Loss.MSE, optimizer=Optimizer.SGD, seed=8)
        made.recipe("3-sgd-int8", Recipe(mse, places, quantized(x, targets=targets)), range(30))
        made.done()


def main() -> None:
    """Write the vectors into empty folders."""
    softmax()
    convolution()


if __name__ == "__main__":
    main()
