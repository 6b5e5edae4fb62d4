"""MMlib's flow with this project: U1, U3-1-1..4, U2, U3-2-1..4, and U4, which recovers all of them. Real training, a real registry.

A node trains through a TFLite runtime, seals each version as one kind of update, and the centre takes it in with `synchronous=FULL`,
rebuilds and verifies it. Bytes are those of whole signed containers; times are of this machine. Schlegel and Sattler, EDBT 2023, section 4.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeagent.features.extractor import Extractor
from edgecloud.graft.grafting import Wish, graft
from edgecloud.registry import open_registry
from edgecloud.versions import materialise
from edgecommon.files import put_in_place
from edgecommon.runtime import RuntimeModel, load
from modelwire.lattice.replay import kind_of, update_of
from modelwire.lattice.snap import exactly, snap, training_start
from modelwire.output_head.recipe import Recipe, layers_in
from modelwire.output_head.rows import Rows
from modelwire.output_head_settings import OutputHeadSettings
from modelwire.tensors import F32, Held
from modelwire.tflite.file import write_weights
from modelwire.update.manifest import manifest_of
from modelwire.update.sections import Kind
from tests.edgecloud.centre import Centre, add_base, make_registry
from tests.edgecloud.device import Base, ScriptedDevice, Sent

from . import nets

BATCH, FIRST_STEPS, STEPS, UPDATES = 8, 400, 12, 4
FIRST_RATE, RATE = 0.02, 0.001  # from drawn weights to a trained model; of fine-tuning it, as is customary
DENSITY, MAX_BYTES = 0.0075, 1 << 26  # the agent's density; a kind is shown whole, whatever it takes
ROWS = 100  # of a recipe: samples that its head is trained on
DIGITS = Path(__file__).resolve().parents[1] / "models" / "data" / "digits.npz"
NETS = {"mobilenet_v2": nets.mobilenet_v2, "resnet18": nets.resnet18}
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Saved:
    """One version, as it was saved and recovered."""

    use: str  # U1, U3-1-1, ...
    kind: str
    sent: int  # bytes of the signed container
    stored: int  # bytes that the centre keeps of it
    save_s: float  # from trained weights to the receipt of the centre: snapped, sealed, taken in, committed
    recover_s: float  # from its name to the proven `.tflite` in memory
    exact: bool  # the recovered file is the device's, by SHA-256


@dataclass(frozen=True)
class Flow:
    """One run: a net, what of it is updated, and by which kind of update."""

    net: str
    relation: str  # full: all weights; partial: those of the last layer
    kind: str
    weights: int
    saved: tuple[Saved, ...]
    losses: tuple[float, ...] = ()  # at the end of each update, by the runtime

    @property
    def updates(self) -> tuple[Saved, ...]:
        """The versions that a node made: U3."""
        return tuple(s for s in self.saved if s.use.startswith("U3"))


@dataclass
class Learner:
    """What a node learns from: digits, drawn as large images, with samples of its own for each update."""

    rng: np.random.Generator
    x: F32 = field(init=False)
    y: Labels = field(init=False)

    def __post_init__(self) -> None:
        with np.load(DIGITS) as data:
            small, self.y = data["train_x"].astype(np.float32), data["train_y"].astype(np.int64)
        side = nets.SIDE // 8
        large = np.kron(small / np.float32(8) - np.float32(1), np.ones((1, side, side), np.float32))
        self.x = np.repeat(large[..., None], 3, axis=-1)

    def some(self, count: int) -> tuple[F32, Labels]:
        chosen = self.rng.permutation(len(self.x))[:count]
        return self.x[chosen], self.y[chosen]

    def train(self, model: RuntimeModel, steps: int, rate: float, samples: int = ROWS) -> float:
        """Train on so many samples of this update's own, and return the mean loss of the last steps."""
        x, y = self.some(samples)
        wanted = np.zeros((len(y), nets.CLASSES), np.float32)
        wanted[np.arange(len(y)), y] = 1
        losses = []
        for _ in range(steps):
            batch = self.rng.integers(0, len(x), BATCH)
            losses.append(model.train(x[batch], wanted[batch], rate))
        return float(np.mean(losses[-4:]))


def trainable(net: str, kept: Path | None = None, steps: int = FIRST_STEPS) -> bytes:
    """Return a net's trainable file, really trained for a while: what the server saves first, in U1.

    kept: folder in which the file lies for the next time: training takes a minute or two. Another recipe is another file.
    """
    made = graft(NETS[net](), Wish(train=("all",), modes=("head",), batch=BATCH)).file
    recipe = f"{steps} {FIRST_RATE} {ROWS} {BATCH}".encode()
    path = kept / f"{net}-{hashlib.sha256(made + recipe).hexdigest()[:16]}.tflite" if kept is not None else None
    if path is not None and path.exists():
        return path.read_bytes()
    trained = _first_trained(made, steps)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(_written(path.with_suffix(".partial"), trained), path, replace=True)
    return trained


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _first_trained(made: bytes, steps: int) -> bytes:
    model = load().open(made)
    try:
        Learner(np.random.default_rng(1)).train(model, steps, FIRST_RATE, 10 * ROWS)
        return write_weights(made, model.get_weights())
    finally:
        model.close()


@dataclass
class Node(ScriptedDevice):
    """A device that trains through the runtime, and seals what came out as one kind of update."""

    kind: str = "delta"
    relation: str = "full"
    rate: float = RATE
    learner: Learner = field(default_factory=lambda: Learner(np.random.default_rng(2)))
    losses: list[float] = field(default_factory=list)

    def start(self, folder: Path) -> None:
        """Open the base, its features too where recipes are to be made of them. folder: where a file of it may lie meanwhile."""
        self.runtime = load().open(self.base.file, signature="train" if self.relation == "full" else "train_head")
        if self.kind == "recipe":
            path = folder / f"{self.name}.tflite"
            path.write_bytes(self.base.file)
            self.extractor = Extractor(load(), path, model=self.model)

    def trained(self) -> list[Held]:
        """Return the weights after some steps from where the node stands; on the lattice it looks ahead into its residual."""
        schema = self.base.manifest.schema
        start, self.left = (list(self.state.weights), self.residual) if self.kind == "exact" else training_start(self.state, self.residual)
        self.runtime.set_weights(schema.shaped(start))
        self.losses.append(self.learner.train(self.runtime, STEPS, self.rate))
        return list(schema.flat(self.runtime.get_weights()))

    def close_round(self, trained: Sequence[Held]) -> Sent:
        """Adopt what was trained, and return the update that says so."""
        if self.kind == "exact":
            done = exactly(self.state, trained, self.residual)
        else:
            done = snap(self.state, trained, self.left, density=DENSITY, max_bytes=MAX_BYTES)
        self.state, self.residual = done.state, done.residual
        if self.kind == "snapshot":
            return self.seal(Kind.SNAPSHOT, self.state.snapshot())
        return self.seal(done.kind, done.sections)

    def rows(self) -> Recipe:
        """Return a recipe for the head, on the features of this update's samples."""
        x, y = self.learner.some(ROWS)
        features = np.stack([self.extractor.features(one) for one in x])
        scale = float(np.float32(max(float(np.abs(features).max()), 1e-6) / 127))
        rows = Rows(np.clip(np.rint(features / np.float32(scale)), -127, 127).astype(np.int8), y.astype(np.uint32), scale=scale)
        head = OutputHeadSettings(features=features.shape[1], outputs=nets.CLASSES, steps=STEPS, batch=BATCH, rate=self.rate, seed=1)
        return Recipe(head, layers_in(self.base.manifest.schema, head, self.extractor.head.layers), rows)

    def close_by_recipe(self, recipe: Recipe) -> Sent:
        """Train the head exactly as the centre will, and return the recipe."""
        self.state.apply(kind_of(self.state), update_of(self.state, recipe))
        return self.seal(Kind.RECIPE, (), recipe=recipe.encode())


def run(
    net: str, file: bytes, relation: str, kind: str, folder: Path, *, nodes: int = 1, updates: int = UPDATES, rate: float = RATE
) -> Flow:  # fmt: skip
    """Run the flow of one net and kind, and return its versions. file: the trainable net, as U1 saves it; folder: an empty one.

    nodes, updates: of DIST-5, 5 nodes and 10 updates of each in both phases. rate: at which nodes train.
    """
    exact = kind == "exact"
    first = base_of(file, exact=exact)
    make_registry(folder / "fleet.db", None).close()
    store = open_registry(folder / "fleet.db", synchronous="FULL")
    try:
        centre = Centre(store)
        saved: list[tuple[str, str, int, int, float, Any]] = []
        began = time.perf_counter()
        add_base(store, first, "u1")
        saved.append(("U1", "base", len(file), len(file), time.perf_counter() - began, first))
        losses: list[float] = []
        for phase in (1, 2):
            base = first
            if phase == 2:  # a new model, trained on from U1 by the server
                base = base_of(trained_on(file), exact=exact)
                began = time.perf_counter()
                add_base(store, base, "u2")
                saved.append(("U2", "base", len(file), len(file), time.perf_counter() - began, base))
            for number in range(nodes):
                node = Node(base, f"node-{phase}-{number + 1}", "net", kind=kind, relation=relation, seed=number, rate=rate)
                node.learner = Learner(np.random.default_rng([2, phase, number]))
                saved += _phase(centre, node, folder, f"U3-{phase}", updates)
                losses += node.losses
        return Flow(net, relation, kind, first.manifest.schema.size, tuple(_recovered(folder, saved)), tuple(losses))
    finally:
        store.close()


def _phase(centre: Centre, node: Node, folder: Path, use: str, updates: int) -> list[tuple[str, str, int, int, float, Any]]:
    """Let one node save so many updates, and the centre verify them."""
    saved = []
    centre.meet(node)
    node.start(folder)
    try:
        for i in range(updates):
            made = node.rows() if node.kind == "recipe" else node.trained()
            began = time.perf_counter()
            sent = node.close_by_recipe(made) if isinstance(made, Recipe) else node.close_round(made)
            centre.deliver(node, sent)
            saved.append((f"{use}-{i + 1}", node.kind, len(sent.data), len(sent.data), time.perf_counter() - began, sent))
    finally:
        node.runtime.close()
    judged = centre.rebuild()
    if not all(one.ok for one in judged) or len(judged) != updates:
        raise AssertionError([one.reason for one in judged])
    return saved


def _recovered(folder: Path, saved: Sequence[tuple[str, str, int, int, float, Any]]) -> Iterator[Saved]:
    """U4: recover each version as a process does that has only the registry, and hold it against what the node had."""
    for use, kind, sent, stored, save_s, what in saved:
        store = open_registry(folder / "fleet.db", readonly=True)
        try:
            began = time.perf_counter()
            bases = materialise.LoadedBases(store)
            if isinstance(what, Base):
                file = bytes(bases[what.manifest.commit].file.data)
                wanted = hashlib.sha256(what.file).digest()
            else:
                version = store.versions.by_commit(what.commit)
                assert version is not None
                file = materialise.file_of(materialise.rebuild(store, version, bases), bases[version.base])
                wanted = what.file_sha256
            took = time.perf_counter() - began
        finally:
            store.close()
        yield Saved(use, kind, sent, stored, save_s, took, hashlib.sha256(file).digest() == wanted)


def base_of(file: bytes, *, exact: bool) -> Base:
    """Return a base whose tensors are all exact, or on the lattice."""
    base = Base(file)
    if exact:
        base.manifest = manifest_of(file, exact=True)
    return base


def trained_on(file: bytes) -> bytes:
    """Return the model that the server derives from U1: all its weights trained further, on samples of its own."""
    model = load().open(file)
    try:
        Learner(np.random.default_rng(3)).train(model, STEPS, RATE)
        return write_weights(file, model.get_weights())
    finally:
        model.close()
