"""MMM's fleet: thousands of small battery models of one shape, of which a tenth learns in each cycle, half of those in part.

Each cell ages in its own way: the data are drawn from a plain equivalent-circuit model with parameters of its own, so every model
really has something to learn. Strassenburg et al., EDBT 2023 ("MMM"): 5,000 cells, a tenth updated a cycle. That rate is from memory
of the paper.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecloud.graft.grafting import Wish, graft
from edgecloud.registry import open_registry
from edgecloud.versions import materialise
from edgecommon.runtime import RuntimeModel, load
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import exactly, snap, training_start
from modelwire.tensors import F32, Held
from modelwire.tflite.file import write_weights
from modelwire.update.sections import Kind
from tests.edgecloud.centre import Centre, add_base, make_registry
from tests.edgecloud.device import ScriptedDevice, Sent

from . import nets
from .flow import base_of

CELLS, CYCLES, SHARE = 5000, 3, 10  # one cell in ten learns in a cycle
BATCH, STEPS, FIRST_STEPS, RATE = 16, 60, 2000, 0.01
DENSITY = 0.05  # of 5,000 weights: fewer entries than this say little
KINDS = ("snapshot", "delta", "exact")


@dataclass(frozen=True)
class Cycles:
    """What the fleet's updates came to, of one kind."""

    kind: str
    cells: int
    versions: int
    weights: int
    sent: int  # bytes of all updates
    stored: int  # bytes of all updates and the base
    whole: int  # bytes of the same versions, each stored whole as float32: what MMM's full list takes
    save_s: float  # of all versions, training left out
    recover_s: float  # of all last versions, each from the registry, as `.tflite`
    loss_before: float
    loss_after: float
    exact: int  # recovered versions whose file is the cell's, by SHA-256


def cell_data(rng: np.random.Generator, cell: int, count: int) -> tuple[F32, F32]:
    """Return samples of one cell, and its voltage beside them: current, charge, temperature, and two states of its circuit.

    An equivalent circuit: open-circuit voltage over the charge, a resistance that has aged as this cell has, and two RC pairs.
    """
    own = np.random.default_rng([7, cell])
    resistance, fade, slow, fast = own.uniform(0.02, 0.12), own.uniform(0.7, 1.0), own.uniform(0.01, 0.05), own.uniform(0.005, 0.03)
    current, charge, warmth = rng.uniform(-2, 2, count), rng.uniform(0.05, 1, count) * fade, rng.uniform(-1, 1, count)
    one, two = current * (1 - np.exp(-rng.uniform(0, 3, count))), current * (1 - np.exp(-rng.uniform(0, 9, count)))
    open_circuit = 0.6 * charge + 0.15 * np.log(charge + 0.02) + 0.1 * charge**3
    voltage = open_circuit - current * resistance * (1 - 0.3 * warmth) - slow * one - fast * two
    return np.stack([current, charge, warmth, one, two], 1).astype(np.float32), voltage[:, None].astype(np.float32)


def base_file() -> bytes:
    """Return the battery model, trained on a mixture of cells: what every cell begins with."""
    made = graft(nets.battery(), Wish(train=("all",), modes=("head",), loss="mse", batch=BATCH)).file
    model = load().open(made)
    rng = np.random.default_rng(5)
    try:
        for step in range(FIRST_STEPS):
            model.train(*cell_data(rng, step % 50, BATCH), RATE)
        return write_weights(made, model.get_weights())
    finally:
        model.close()


def run(kind: str, folder: Path, cells: int = CELLS, cycles: int = CYCLES) -> Cycles:
    """Let a fleet learn and be recovered. folder: an empty one for its registry."""
    base = base_of(base_file(), exact=kind == "exact")
    make_registry(folder / "fleet.db", None).close()
    store = open_registry(folder / "fleet.db", synchronous="FULL")
    centre, whole_mode, head_mode = Centre(store), load().open(base.file), load().open(base.file, signature="train_head")
    add_base(store, base, "battery")
    fleet: dict[int, ScriptedDevice] = {}
    sent = versions = 0
    save_s = before = after = 0.0
    order = np.random.default_rng(9)
    try:
        for _ in range(cycles):
            for place, cell in enumerate(order.permutation(cells)[: cells // SHARE]):
                if cell not in fleet:
                    fleet[cell] = centre.meet(ScriptedDevice(base, f"cell-{cell}", "battery"))
                device, model = fleet[cell], head_mode if place % 2 else whole_mode
                trained, left, losses = _learn(device, model, kind, int(cell))
                before, after = before + float(np.mean(losses[:8])), after + float(np.mean(losses[-8:]))
                began = time.perf_counter()
                update = _close(device, kind, trained, left)
                centre.deliver(device, update)
                save_s += time.perf_counter() - began
                sent, versions = sent + len(update.data), versions + 1
            if not all(one.ok for one in centre.rebuild()):
                raise AssertionError("the centre refused a version of the fleet")
        last = {cell: device.made[device.version] for cell, device in fleet.items()}
    finally:
        store.close()
        whole_mode.close()
        head_mode.close()
    recover_s, exact = _recover(folder, last)
    size = base.manifest.schema.size
    return Cycles(kind, cells, versions, size, sent, sent + len(base.file), 4 * size * versions, save_s, recover_s,
                  before / versions, after / versions, exact)  # fmt: skip


def _learn(device: ScriptedDevice, model: RuntimeModel, kind: str, cell: int) -> tuple[list[Held], Residual, list[float]]:
    """Return the weights that a cell's training comes to, the residual that goes with them, and the losses on the way."""
    schema, exact = device.base.manifest.schema, kind == "exact"
    start, left = (list(device.state.weights), device.residual) if exact else training_start(device.state, device.residual)
    model.set_weights(schema.shaped(start))
    losses = [model.train(*cell_data(device.rng, cell, BATCH), RATE) for _ in range(STEPS)]
    return list(schema.flat(model.get_weights())), left, losses


def _close(device: ScriptedDevice, kind: str, trained: Sequence[Held], left: Residual) -> Sent:
    """Adopt what was trained, and return the update that says so."""
    done = exactly(device.state, trained, left) if kind == "exact" else snap(device.state, trained, left, density=DENSITY)
    device.state, device.residual = done.state, done.residual
    return device.seal(Kind.SNAPSHOT, device.state.snapshot()) if kind == "snapshot" else device.seal(done.kind, done.sections)


def _recover(folder: Path, last: dict[int, Sent]) -> tuple[float, int]:
    """Return the seconds that it takes to recover the last version of every cell, and how many are exact."""
    store = open_registry(folder / "fleet.db", readonly=True)
    try:
        began, exact = time.perf_counter(), 0
        bases = materialise.LoadedBases(store)
        for sent in last.values():
            version = store.versions.by_commit(sent.commit)
            assert version is not None
            file = materialise.file_of(materialise.rebuild(store, version, bases), bases[version.base])
            exact += hashlib.sha256(file).digest() == sent.file_sha256
        return time.perf_counter() - began, exact
    finally:
        store.close()
