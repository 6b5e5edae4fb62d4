"""Makes a snapshot of a large model as a file, or applies one, in a process of its own: what it takes at its peak is measured.

    python -m tests.edgecloud.mapped_apply make FILE WEIGHTS
    python -m tests.edgecloud.mapped_apply apply FILE WEIGHTS     prints the growth of the peak and the model state, in bytes
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgecloud.registry.mapping import open_container
from modelwire import limits
from modelwire.lattice.state import ModelState
from modelwire.tensors import F32, Schema, TensorSpec
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.manifest import Manifest, manifest_for
from modelwire.update.sections import Kind, Section
from modelwire.wire import signing
from tests.keys import FLEET_ID, NO_FILE

COLUMNS = 1024
ROWS = 1024  # of one tensor


def base_of(weights: int) -> tuple[Manifest, list[F32]]:
    """Return a base of that many weights, the same each time."""
    whole, rest = divmod(weights // COLUMNS, ROWS)
    shapes = [(ROWS, COLUMNS)] * whole + ([(rest, COLUMNS)] if rest else [])
    schema = Schema(tuple(TensorSpec(f"t{i:04}", shape) for i, shape in enumerate(shapes)))
    base = [np.random.default_rng(i).standard_normal(t.size, np.float32) for i, t in enumerate(schema.tensors)]
    return manifest_for(schema, base, **NO_FILE, exponents={}), base


def make(file: Path, weights: int) -> None:
    """Write a snapshot in which every other weight has moved."""
    manifest, base = base_of(weights)
    state, sections = ModelState.of_base(manifest, base), []
    for t, spec in enumerate(manifest.schema.tensors):
        rng = np.random.default_rng(1000 + t)
        index = np.flatnonzero(rng.random(spec.size, np.float32) < 0.5).astype(np.uint32)
        value = rng.integers(1, 9, len(index), np.int32) * rng.choice(np.array([-1, 1], np.int32), len(index))
        sections.append(Section(t, index, value, 96, manifest.exponents[t]))
        del rng
    state.apply(Kind.DELTA, sections)
    header = Header(
        Kind.SNAPSHOT, "pi-7", "large", 1, 1, manifest.commit, manifest.schema.id, state.root, state.fingerprint, manifest.commit
    )
    file.write_bytes(seal(header, sections, manifest.schema, signing.PrivateKey(bytes(range(32))), FLEET_ID, limits.LARGE).data)


def peak() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def apply(file: Path, weights: int) -> None:
    manifest, base = base_of(weights)
    before = peak()
    state = ModelState.of_base(manifest, base)
    update = open_container(file)
    state.apply_container(update)
    grown = peak() - before
    assert state.root == update.header.root
    print(grown, 8 * weights, file.stat().st_size)


if __name__ == "__main__":
    {"make": make, "apply": apply}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
