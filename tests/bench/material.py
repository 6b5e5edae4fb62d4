"""What the bench compresses: weights before and after a fine-tuning, all trained for real in numpy; nothing here is drawn at random.

All layers, the head alone, and a step of a chain, of a dense net, a CNN, a MobileNetV2-like net and a dense net of 13 million
weights; and the same weights as float16 and as int8 by post-training quantisation with the base's scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelwire.lattice.snap import no_residual, snap, training_start
from modelwire.lattice.state import ModelState
from modelwire.tensors import F32, U16, Schema
from modelwire.update.manifest import Manifest, manifest_for
from modelwire.update.sections import Sections
from tests.bench.chain import NETS, RATE, Net, Recipe, base_of, train
from tests.bench.convnets import cnn, mobilenet
from tests.keys import NO_FILE

STEPS, HEAD_STEPS, CHAIN_UPDATES = 60, 60, 3
MAX_BYTES = 64 << 20  # no budget: the density alone decides


@dataclass(frozen=True)
class Case:
    """One fine-tuning: a device's state, what it trained, and the density it would send at."""

    name: str
    state: ModelState
    trained: list[F32]
    residual: list[U16]
    density: float

    @property
    def manifest(self) -> Manifest:
        return self.state.manifest

    @property
    def weights(self) -> int:
        return self.manifest.schema.size

    @property
    def nbytes(self) -> int:
        return self.manifest.schema.nbytes

    def sections(self) -> Sections:
        return snap(self.state.copy(), self.trained, self.residual, density=self.density, max_bytes=MAX_BYTES).sections

    def files(self, dtype: str = "float32") -> tuple[bytes, bytes]:
        """Return (before, after) as files of bare weights: float32, float16 or int8."""
        return stored(self.state.weights, self.state.weights, dtype), stored(self.trained, self.state.weights, dtype)


@dataclass(frozen=True)
class Size:
    """Which nets, and how long they train."""

    dense: Recipe
    conv: Recipe
    mobile: Recipe
    large: Recipe


FULL = Size(
    NETS["mlp-265k"],
    NETS["cnn-284k"],
    NETS["mobilenet-2m"],
    Recipe(lambda: Net((256, 4096, 2560, 512, 10)), 256, base_steps=12, steps=6),
)
QUICK = Size(
    Recipe(lambda: Net((256, 512, 256, 10)), 256, base_steps=150, steps=10),
    Recipe(cnn, 256, base_steps=60, steps=5),
    Recipe(mobilenet, 256, base_steps=60, steps=3),
    Recipe(lambda: Net((256, 4096, 1024, 10)), 256, base_steps=6, steps=3),
)
TINY = Size(
    Recipe(lambda: Net((64, 32, 10)), 64, base_steps=10, steps=2),
    Recipe(lambda: cnn(4), 256, base_steps=3, steps=2),
    Recipe(lambda: mobilenet(32, ((1, 8, 1, 1), (2, 12, 2, 2))), 256, base_steps=3, steps=2),
    Recipe(lambda: Net((64, 128, 10)), 64, base_steps=3, steps=2),
)


def small_cases(size: Size) -> Iterator[Case]:
    """Yield all layers at 1 %, the head alone and a step of a chain at 0.5 %, of the dense net, the CNN and the MobileNet."""
    for name, recipe in (("mlp", size.dense), ("cnn", size.conv), ("mbn", size.mobile)):
        net, base, shifted = base_of(recipe, 0)
        state = _state_of(net.schema, base)
        steps = min(STEPS, 6 * recipe.steps)
        all_layers = train(net, base, shifted.x, shifted.y, steps, RATE, 3)
        yield Case(f"{name} all", state, all_layers, no_residual(state.manifest), 0.01)
        head = "top" if name == "mbn" else sorted(t.name for t in net.schema.tensors if t.name.startswith("dense"))[-1].split("_")[0]
        head_only = train(net, base, shifted.x, shifted.y, min(HEAD_STEPS, 6 * recipe.steps), RATE, 3, only=head)
        yield Case(f"{name} head", state, head_only, no_residual(state.manifest), 0.005)
        state, residual = state.copy(), no_residual(state.manifest)
        for version in range(1, CHAIN_UPDATES + 1):
            start, carried = training_start(state, residual)
            trained = train(net, start, shifted.x, shifted.y, recipe.steps, RATE, 100 + version)
            if version < CHAIN_UPDATES:
                snapped = snap(state, trained, carried, density=0.005, max_bytes=MAX_BYTES)
                state, residual = snapped.state, snapped.residual
        yield Case(f"{name} chain", state, trained, carried, 0.005)


def large_case(size: Size) -> Case:
    """Return all layers of the largest dense net, at 1 %."""
    net, base, shifted = base_of(size.large, 0)
    state = _state_of(net.schema, base)
    trained = train(net, base, shifted.x, shifted.y, size.large.steps, RATE, 3)
    return Case(f"mlp-{round(net.schema.size / 1e6)}m all", state, trained, no_residual(state.manifest), 0.01)


def stored(weights: list[F32], base: list[F32], dtype: str) -> bytes:
    """Return weights as they lie in a file of that type; int8 with one scale a tensor, the base's."""
    if dtype == "int8":
        return b"".join(w.astype(np.int8).tobytes() for w in codes(weights, base))
    return b"".join(w.astype(dtype).tobytes() for w in weights)


def codes(weights: list[F32], base: list[F32]) -> list[F32]:
    """Return weights as int8 codes, held as float32; one scale a tensor, the base's."""
    scales = [max(float(np.abs(b).max(initial=0.0)) / 127, 1e-12) for b in base]
    zero = np.float32(0)  # -0.0 is no code; added to it, this makes 0.0
    return [np.clip(np.rint(w / s), -127, 127).astype(np.float32) + zero for w, s in zip(weights, scales, strict=True)]


def _state_of(schema: Schema, base: list[F32]) -> ModelState:
    manifest = manifest_for(schema, base, **NO_FILE, exponents={})
    return ModelState.of_base(manifest, base)


