"""What a whole query costs on a net of 1,004,170 weights: its versions in a registry, kept states and all.

    python -m tests.evidence.compare.nearest_wide    12 devices x 8 versions; FULL=1: 20 x 20
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from edgecloud.graft.stock import read as read_stock
from edgecloud.graft.writing.build import FileBuilder, GraphBuilder
from edgecloud.keeping.compacting import Compactor
from edgecloud.registry import SqliteStore
from edgecloud.sketches import counting
from modelwire.tensors import Held, Schema
from modelwire.update.sections import Kind
from tests.edgecloud.centre import make_registry
from tests.edgecloud.device import TINY, Base
from tests.edgecloud.wide import WideDevice, add_version, enrol

from . import nearest

SMALL, LARGE = (12, 8), (20, 20)  # devices and versions of each
QUERIES = 12


def measure(full: bool) -> dict[str, float]:
    """Return the milliseconds and the processor's milliseconds of a query. full: of longer chains, whose states take longer to decode."""
    with tempfile.TemporaryDirectory() as folder, closing(_registry(Path(folder) / "fleet.db", *(LARGE if full else SMALL))) as store:
        names = [f"{line.device}@{one.version}" for line in store.lineages.all() for one in store.versions.of(line.id)]
        sizes = [row.size for line in store.lineages.all() for row in store.states.of(line.id)]
        print(f"kept states of {max(sizes):,} bytes at most", file=sys.stderr)
        return nearest.queries(store, names, QUERIES, "_1m")


def _registry(path: Path, devices: int, versions: int) -> SqliteStore:
    schema, flat = nearest.wide_start()
    base = _base(schema, flat)
    store = make_registry(path, base)
    known: dict[int, tuple[int, WideDevice]] = {}
    for number, state, sections in nearest.wide_chains(devices, versions, base.manifest, list(base.weights)):
        if number not in known:
            new = WideDevice(base, f"car-{number:03}")
            known[number] = enrol(store, new), new
        lineage, device = known[number]
        device.state = state
        row = add_version(store, lineage, device.seal(Kind.DELTA, tuple(sections)), base.manifest.commit)
        store.sketches.put(row.id, counting.encode(counting.of_state(state)))
    compactor = Compactor(store, settle=0, behind=1)
    while compactor.run() is not None:
        pass
    return store


def _base(schema: Schema, flat: Sequence[Held]) -> Base:
    """Return a base that lists these weights and computes nothing."""
    file = FileBuilder(read_stock(TINY.read_bytes()))
    initial, listed = GraphBuilder(file, "initial"), GraphBuilder(file, "get_weights")
    listed.call_once(initial)
    outputs = {}
    for spec, w in zip(schema.tensors, flat, strict=True):
        initial.assign(initial.variable(spec.name), initial.constant_of(w.reshape(spec.shape)))
        outputs[spec.name] = listed.read(listed.variable(spec.name), spec.shape)
    file.sign("get_weights", listed, {}, outputs)
    return Base(file.write({}))


if __name__ == "__main__":
    print(measure(bool(os.environ.get("FULL"))))
