"""A board with a second base: variants of the tiny model, staged as they would be when they were fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeagent.deploying import learned, places, switching
from edgeagent.deploying.learned import BroughtOver
from edgeagent.service.goal import Goal
from edgeagent.state.beside.rows import PlacedBase
from edgeagent.state.lineage import Lineage
from modelwire.deploying.variants import Variant
from modelwire.lattice.state import ModelState
from modelwire.tflite.file import read_weights, write_weights
from modelwire.update.manifest import Manifest, manifest_of
from tests.edgeagent.boards import TINY, Rig, fill
from tests.edgeagent.centre import Centre


def scaled(by: float, file: bytes = TINY) -> bytes:
    """Return a base of the same tensors with other weights; by 1.01 its units are the same, by 3 they are others."""
    return write_weights(file, {name: (w * np.float32(by)).astype(w.dtype) for name, w in read_weights(file).items()})


NEAR, FAR = scaled(1.01), scaled(3.0)


def variant_of(file: bytes, number: int = 1, *, exact: bool = False) -> Variant:
    """Return what the root key would say of a base."""
    m = manifest_of(file, exact=exact)
    return Variant("home", "tiny", "v", m.commit, m.file_sha256, m.file_size, m.file_tree, m.schema.id, exact, "", 0, (), 0, number)


def know(centre: Centre, *files: bytes) -> None:
    """Let a centre in memory hold these bases."""
    for file in files:
        manifest = manifest_of(file)
        centre.bases[manifest.commit] = (manifest, manifest.schema.flat(read_weights(file)))


def received(lineage: Lineage, file: bytes) -> Path:
    """Return where a file lies that was fetched for a model."""
    path = lineage.store.folder.parents[1] / f"fetched-{lineage.name}"
    path.write_bytes(file)
    return path


def staged(lineage: Lineage, file: bytes, number: int = 1) -> PlacedBase:
    return places.stage(lineage, variant_of(file), received(lineage, file), number=number, now=10)


def state_of(manifest: Manifest, file: bytes) -> ModelState:
    return ModelState.of_base(manifest, manifest.schema.flat(read_weights(file)))


def ways(lineage: Lineage) -> list[BroughtOver]:
    """Return the ways in which what was learned goes over to what is staged."""
    placed = lineage.beside.under_way()
    assert placed is not None
    stored = lineage.load()
    return learned.brought_over(stored.state, stored.residual, state_of(placed.parsed(), lineage.beside_store(placed).base()))


def soaked(lineage: Lineage, file: bytes, number: int = 1) -> PlacedBase:
    """Stage a base and serve the best of the ways on trial."""
    staged(lineage, file, number)
    best = ways(lineage)[0]
    return switching.soak(lineage, best.state, best.residual, best.word, now=11)


def gone_back(lineage: Lineage, file: bytes, number: int = 2) -> None:
    """Serve the passive base on trial again."""
    assert places.back(lineage, manifest_of(file).commit, number=number, now=12) is not None
    switching.soak_as_it_lies(lineage, now=12)


def train(r: Rig, rounds: int) -> None:
    """Let so many rounds more be trained, sent and verified."""
    if not r.device.spool.count("tiny"):
        fill(r.device)
    r.agent.stopping = ""  # of a serve before
    r.run(Goal(rounds=r.lineage.head().rounds + rounds, timeout=60))
