"""What 20 really trained versions give on 1,000 probes, layer by layer: bytes as kept against raw float32, and a second query's time.

    python -m tests.evidence.compare.intermediates

Two fleets of cars that read digits in six worlds (50,826 weights): `whole`, whose rounds train all layers, so that no layer is another's;
`heads`, whose rounds train the last layer alone, so that what stands in front of it is the base's bits. MISTIQUE's figures are 6 (a CNN's
intermediates, pooled) to 110 times (pipelines that share most).
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgecloud.probes import intermediates, sets
from edgecloud.probes.intermediates import IntermediateSettings, VersionSeen
from edgecloud.registry import ProbeRow, SqliteStore
from edgecloud.versions import materialise, naming
from edgecommon.runtime import RuntimeModel
from modelwire.lattice.snap import snap, training_start
from modelwire.update.sections import Kind
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice, Sent
from tests.planted import WORLDS, Plan, SeenRows, fleet, seen
from tests.planted import probes as held_out
from tests.stock import runtime
from tests.worlds import MODELS

VERSIONS, PROBES = 20, 1000
BATCH, STEPS, RATE = 32, 20, 0.05
REPEATS = 3


def measure(full: bool) -> dict[str, float]:
    """Return the figures. full: nothing more; the sizes are those of the promise."""
    with tempfile.TemporaryDirectory(prefix="intermediates-") as name:
        folder = Path(name)
        planted = fleet(folder / "whole", Plan(per_world=4, rounds=3))
        whole = planted.open()
        over, speedup = _figures(whole, [f"{device}@latest" for device in planted.worlds][:VERSIONS], "all layers trained")
        whole.close()
        heads = make_registry(folder / "heads.db", base := Base.of(MODELS / "digits.tflite"))
        over_heads, speedup_heads = _figures(heads, _train_heads(heads, base), "last layer trained")
        heads.close()
    return {
        "intermediates_over_raw": over, "intermediates_speedup": speedup, "intermediates_over_raw_heads": over_heads,
        "intermediates_speedup_heads": speedup_heads,
    }  # fmt: skip


def _figures(store: SqliteStore, names: list[str], what: str) -> tuple[float, float]:
    """Return raw bytes over those that are kept, and the time of computing over that of a second query."""
    parts = [held_out(world, -(-PROBES // len(WORLDS))) for world in WORLDS]
    x, y = (np.concatenate([getattr(part, name) for part in parts])[:PROBES] for name in ("x", "y"))
    probes = sets.probe_set(x, y)
    row = sets.add(store, "worlds", probes, now=1)
    settings = IntermediateSettings.from_environment()
    reruns, reads = list[float](), list[float]()
    for _ in range(REPEATS):
        reruns.append(_timed(store, names, row, probes, settings, exact=True)[0])
    kept = _timed(store, names, row, probes, settings)[1]
    for _ in range(REPEATS):
        took, again = _timed(store, names, row, probes, settings)
        reads.append(took)
    if any(one.reason or not one.kept for one in kept) or not all(one.read for one in again):
        raise RuntimeError(f"{what}: not all versions were kept and read: {[one for one in kept if not one.kept][:1]}")
    raw, stored = sum(one.raw for one in kept), store.intermediates.total()
    pairs = [(a, b) for old, new in zip(kept, again, strict=True) for a, b in zip(old.layers, new.layers, strict=True)]
    lost = max(float(np.linalg.norm(a.values - b.values) / (np.linalg.norm(a.values) or 1)) for a, b in pairs)
    rerun, read = statistics.median(reruns), statistics.median(reads)
    print(
        f"{what}: {len(names)} versions on {len(probes)} rows, {raw:,} bytes raw, {stored:,} kept ({raw / stored:.1f} x),"
        f" off by {lost:.2%} of a layer's norm at most; computed in {rerun:.2f} s, read in {read:.3f} s ({rerun / read:.0f} x)",
        file=sys.stderr,
    )  # fmt: skip
    return raw / stored, rerun / read


def _timed(
    store: SqliteStore, names: list[str], row: ProbeRow, probes: sets.ProbeSet, settings: IntermediateSettings, *, exact: bool = False
) -> tuple[float, list[VersionSeen]]:
    places, bases = [naming.find(store, naming.parse(name)) for name in names], materialise.LoadedBases(store)
    started = time.perf_counter()
    found = intermediates.seen(store, places, row, probes, bases, now=1, layers=True, exact=exact, settings=settings)
    return time.perf_counter() - started, found


def _train_heads(store: SqliteStore, base: Base) -> list[str]:
    """Return the names of versions whose last layer was trained on what their car sees, and nothing else."""
    centre, model, names = Centre(store), runtime().open(base.file, model="digits"), list(WORLDS)
    out = []
    for number in range(VERSIONS):
        device = centre.meet(ScriptedDevice(base, name=f"car-{number:02}"))
        rows = seen(WORLDS[names[number % len(names)]], np.random.default_rng([5, number]), BATCH * STEPS)
        centre.deliver(device, _round(device, model, rows))
        out.append(f"{device.name}@latest")
    centre.rebuild()
    return out


def _round(device: ScriptedDevice, model: RuntimeModel, rows: SeenRows) -> Sent:
    schema = device.base.manifest.schema
    start, residual = training_start(device.state, device.residual)
    first, eye = schema.shaped(start), np.eye(10, dtype=np.float32)
    model.set_weights(first)
    for at in range(0, len(rows), BATCH):
        model.train(rows.x[at : at + BATCH], eye[rows.y[at : at + BATCH]], RATE)
        after = model.get_weights()  # the layers in front go back to where they were: the step was the last layer's alone
        model.set_weights({name: after[name] if name.startswith("output") else first[name] for name in first})
    made = snap(device.state, schema.flat(model.get_weights()), residual, density=0.05, max_bytes=1 << 20)
    device.state, device.residual = made.state, made.residual
    return device.seal(Kind.DELTA, made.sections)


if __name__ == "__main__":
    print(json.dumps(measure(full=False), indent=1))
