"""Twenty updates on the lattice against full float32 fine-tuning: bytes of whole signed containers, and held-out loss.

    python tests/bench/chain.py            a table
    python tests/bench/chain.py --json     {"nets": [{"net", "weights", "ratio", "loss", "loss_float32"}]}

The trainer is plain numpy (SGD with momentum, cross-entropy), so that the codec alone is judged. Real data: the digits,
up to 16 x 16 for the larger nets, each seed its own base and its own shifted world. Both sides see the same batches.
Batch normalisation learns its statistics with the base; fine-tuning leaves them frozen, on both sides.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

if __package__ in (None, ""):  # run as a script: the tree's root is what `tests` is imported from
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from modelwire.lattice.snap import Step, no_residual, snap, training_start
from modelwire.lattice.state import ModelState
from modelwire.tensors import F32, Schema, TensorSpec
from modelwire.update.container import parse, seal
from modelwire.update.header import Header
from modelwire.update.manifest import manifest_for
from modelwire.wire import signing
from tests.bench.convnets import cnn, mobilenet
from tests.keys import FLEET_ID, NO_FILE
from tests.worlds import MODELS, world

UPDATES, BATCH = 20, 32
BASE_RATE, RATE = 0.05, 0.01
DENSITY = 0.0075  # the agent's
KEY = signing.PrivateKey(bytes(31) + b"\1")


class Trainable(Protocol):
    """What a net must offer. Weights are flat, in schema order."""

    @property
    def schema(self) -> Schema: ...
    def initial(self, rng: np.random.Generator) -> list[F32]: ...
    def gradients(self, flat: list[F32], x: F32, y: NDArray[np.int64], live: bool = False) -> list[F32]: ...
    def judge(self, flat: list[F32], x: F32, y: NDArray[np.int64]) -> tuple[float, float]: ...


@dataclass(frozen=True)
class Recipe:
    """A net and how it is trained."""

    make: Callable[[], Trainable]
    inputs: int  # pixels
    base_steps: int = 500
    steps: int = 30  # an update


@dataclass(frozen=True)
class Result:
    """One net, mean over the seeds."""

    net: str
    weights: int
    ratio: float  # bytes of the float32 state over the mean whole container
    loss: float  # held-out, after the last update
    loss_float32: float  # the same, of full float32 fine-tuning
    accuracy: float
    accuracy_before: float
    bytes: float  # mean of a whole signed container
    largest: int  # bytes of the largest container
    losses: list[float]  # a seed each
    losses_float32: list[float]


@dataclass(frozen=True)
class Split:
    """Images and labels of one world."""

    x: F32
    y: NDArray[np.int64]
    test_x: F32
    test_y: NDArray[np.int64]


class Net:
    """A dense net over one flat vector of weights: kernels [in, out] and biases, in the order of the schema."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        specs = []
        for i, (a, b) in enumerate(itertools.pairwise(dims)):
            specs += [TensorSpec(f"dense{i}_bias", (b,)), TensorSpec(f"dense{i}_kernel", (a, b))]
        self.schema = Schema(tuple(specs))
        self.layers = len(dims) - 1

    def initial(self, rng: np.random.Generator) -> list[F32]:
        """Return He-initialised weights, flat, in schema order."""
        out = []
        for spec in self.schema.tensors:
            scale = np.sqrt(2 / spec.shape[0]) if len(spec.shape) == 2 else 0.0
            out.append((rng.standard_normal(spec.size) * scale).astype(np.float32))
        return out

    def forward(self, flat: list[F32], x: F32) -> list[F32]:
        """Return the activations of each layer, logits last."""
        h = [x]
        for i in range(self.layers):
            z = h[-1] @ flat[2 * i + 1].reshape(self.schema.tensors[2 * i + 1].shape) + flat[2 * i]
            h.append(np.maximum(z, 0) if i + 1 < self.layers else z)
        return h

    def gradients(self, flat: list[F32], x: F32, y: NDArray[np.int64], live: bool = False) -> list[F32]:
        h = self.forward(flat, x)
        e = np.exp(h[-1] - h[-1].max(1, keepdims=True))
        g = e / e.sum(1, keepdims=True)
        g[np.arange(len(y)), y] -= 1
        g /= np.float32(len(y))
        out: list[F32] = [np.zeros(0, np.float32)] * (2 * self.layers)
        for i in reversed(range(self.layers)):
            kernel = flat[2 * i + 1].reshape(self.schema.tensors[2 * i + 1].shape)
            out[2 * i], out[2 * i + 1] = g.sum(0), (h[i].T @ g).reshape(-1)
            if i:
                g = (g @ kernel.T) * (h[i] > 0)
        return out

    def judge(self, flat: list[F32], x: F32, y: NDArray[np.int64]) -> tuple[float, float]:
        """Return (cross-entropy in nats, accuracy 0 to 1)."""
        z = self.forward(flat, x)[-1].astype(np.float64)
        top = z.max(1)
        loss = top + np.log(np.exp(z - top[:, None]).sum(1)) - z[np.arange(len(y)), y]
        return float(loss.mean()), float((z.argmax(1) == y).mean())


NETS = {
    "mlp-51k": Recipe(lambda: Net((64, 256, 128, 10)), 64),
    "mlp-265k": Recipe(lambda: Net((256, 512, 256, 10)), 256),
    "mlp-658k": Recipe(lambda: Net((256, 896, 448, 64, 10)), 256),
    "cnn-284k": Recipe(cnn, 256, base_steps=300, steps=10),
    "mobilenet-2m": Recipe(mobilenet, 256, base_steps=200, steps=8),
}
SMALL = ("mlp-51k", "mlp-265k", "mlp-658k")


def train(
    net: Trainable,
    start: list[F32],
    x: F32,
    y: NDArray[np.int64],
    steps: int,
    rate: float,
    seed: int,
    *,
    live: bool = False,
    only: str = "",
) -> list[F32]:
    """Return new weights after `steps` of SGD with momentum 0.9; `only`: of the tensors whose name starts so."""
    rng = np.random.default_rng(seed)
    flat = [a.copy() for a in start]
    velocity = [np.zeros_like(a) for a in flat]
    for _ in range(steps):
        pick = rng.integers(0, len(y), BATCH)
        gradients = net.gradients(flat, x[pick], y[pick], live)
        for spec, a, v, g in zip(net.schema.tensors, flat, velocity, gradients, strict=True):
            if not spec.name.startswith(only):
                continue
            v *= np.float32(0.9)
            v += g
            a -= np.float32(rate) * v
    return flat


Watch = Callable[[int, list[F32], list[F32], bytes], None]  # version, freely trained weights before and after, the container


@dataclass(frozen=True)
class Course:
    """One seed of one net."""

    schema: Schema
    base: ModelState
    sealed: list[bytes]  # the containers
    lattice: tuple[float, float]  # held-out loss and accuracy of what the centre rebuilt last
    loss_float32: float
    accuracy_before: float

    @property
    def sizes(self) -> list[int]:
        return [len(body) for body in self.sealed]


def base_of(recipe: Recipe, seed: int) -> tuple[Trainable, list[F32], Split]:
    """Return (net, the base's weights, the world that it does not know yet)."""
    net = recipe.make()
    plain, shifted = data(seed, recipe.inputs)
    start = net.initial(np.random.default_rng(seed))
    return net, train(net, start, plain.x, plain.y, recipe.base_steps, BASE_RATE, 1, live=True), shifted


def chain(recipe: Recipe, seed: int, density: float, *, updates: int = UPDATES, watch: Watch | None = None) -> Course:
    """Return how a device and full float32 fine-tuning fare over `updates` updates from one base."""
    net, base, shifted = base_of(recipe, seed)
    held: Step | None = None
    manifest = manifest_for(net.schema, base, **NO_FILE, exponents={})
    state, residual = ModelState.of_base(manifest, base), no_residual(manifest)
    cloud = ModelState.of_base(manifest, base)
    free, parent, bodies = [a.copy() for a in base], manifest.commit, list[bytes]()
    for version in range(1, updates + 1):
        before, free = free, train(net, free, shifted.x, shifted.y, recipe.steps, RATE, 100 + version)
        start, carried = training_start(state, residual)
        trained = train(net, start, shifted.x, shifted.y, recipe.steps, RATE, 100 + version)
        snapped = snap(state, trained, carried, density=density, max_bytes=96 * 1024, held=held)
        state, residual, held = snapped.state, snapped.residual, snapped.step
        header = Header(
            snapped.kind, f"pi-{seed}", "digits", 1, version, parent, net.schema.id, state.root, state.fingerprint
        )
        sealed = seal(header, snapped.sections, net.schema, KEY, FLEET_ID).data
        received = parse(sealed)
        received.verify(KEY.public, FLEET_ID)
        cloud.apply_container(received)
        if cloud.root != state.root:
            raise SystemExit(f"seed {seed}, update {version}: the rebuilt weights are not the device's")
        parent = received.commit
        bodies.append(sealed)
        if watch:
            watch(version, before, free, sealed)
    test = shifted.test_x, shifted.test_y
    origin = ModelState.of_base(manifest, base)
    return Course(net.schema, origin, bodies, net.judge(cloud.weights, *test), net.judge(free, *test)[0], net.judge(base, *test)[1])


def data(seed: int, inputs: int) -> tuple[Split, Split]:
    """Return (plain digits, the shifted world of `seed`)."""
    w = world("digits", seed)
    shifted = Split(_up(w.train_x, inputs), w.train_y, _up(w.test_x, inputs), w.test_y)
    raw = np.load(MODELS / "data" / "digits.npz")
    x, test_x = (_up((raw[side] / 16.0).astype(np.float32), inputs) for side in ("train_x", "test_x"))
    return Split(x, w.train_y, test_x, w.test_y), shifted


def _up(x: F32, inputs: int) -> F32:
    """Return images with `inputs` pixels: 8 x 8 as they are, or doubled by linear interpolation."""
    images = x.reshape(-1, 8, 8)
    if inputs == 64:
        return np.ascontiguousarray(images.reshape(-1, 64))
    at = np.linspace(0, 7, 16)
    low = np.minimum(at.astype(int), 6)
    part = (at - low).astype(np.float32)
    rows = images[:, low] * (1 - part)[:, None] + images[:, low + 1] * part[:, None]
    both = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    return np.ascontiguousarray(both.reshape(len(x), -1), dtype=np.float32)


def run(names: list[str], seeds: int, density: float) -> Iterator[Result]:
    """Yield the result of each net, mean over `seeds` seeds."""
    for name in names:
        runs = []
        for seed in range(seeds):
            print(f"{name}, seed {seed}: {UPDATES} updates ...", file=sys.stderr, flush=True)
            runs.append(chain(NETS[name], seed, density))
        yield result_of(name, runs)


def result_of(name: str, runs: list[Course]) -> Result:
    """Return the mean over the seeds of one net."""
    schema = runs[0].schema
    sizes = [s for r in runs for s in r.sizes]
    return Result(
        name,
        schema.size,
        round(schema.nbytes / float(np.mean(sizes)), 1),
        round(float(np.mean([r.lattice[0] for r in runs])), 4),
        round(float(np.mean([r.loss_float32 for r in runs])), 4),
        round(float(np.mean([r.lattice[1] for r in runs])), 4),
        round(float(np.mean([r.accuracy_before for r in runs])), 4),
        round(float(np.mean(sizes)), 1),
        max(sizes),
        [round(r.lattice[0], 4) for r in runs],
        [round(r.loss_float32, 4) for r in runs],
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--seeds", type=int, default=3, help="seeds to average over (default 3)")
    parser.add_argument("--density", type=float, default=DENSITY, help="most entries of an update by all (default 0.0075, as the agent's)")
    parser.add_argument("--net", action="append", choices=sorted(NETS), help="only this net; may be repeated (default: the dense nets)")
    args = parser.parse_args(argv)
    results = list(run(args.net or list(SMALL), args.seeds, args.density))
    if args.json:
        print(json.dumps({"nets": [asdict(r) for r in results]}))
        return
    print(f"{'net':12} {'weights':>8} {'bytes':>7} {'1/ratio':>8} {'accuracy':>18} {'loss':>8} {'float32':>8}")
    for r in results:
        accuracy = f"{r.accuracy_before:.3f} -> {r.accuracy:.3f}"
        print(f"{r.net:12} {r.weights:8} {r.bytes:7.0f} {r.ratio:8.0f} {accuracy:>18} {r.loss:8.4f} {r.loss_float32:8.4f}")


if __name__ == "__main__":
    main()
