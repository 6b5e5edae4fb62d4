"""Write the golden vectors of wire 1: a base, a chain of containers, records and parts, with what each must rebuild to.

    python -m tests.vectors.make

Vectors are only added, never edited: run it for a new folder when the wire changes. It refuses to overwrite.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.update.container import parse
from modelwire.update.sections import Kind, add, invert
from modelwire.wire import parts, records
from tests.modelwire.models import KEY, model, sealed
from tests.modelwire.wire.examples import EXAMPLES

FOLDER = Path(__file__).parent / "wire-1"


def main() -> None:
    """Write the vectors into an empty folder."""
    folder = FOLDER / "updates"
    folder.mkdir(parents=True)
    manifest, base = model(0)
    (folder / "base.bin").write_bytes(b"".join(w.tobytes() for w in base))
    (folder / "manifest.bin").write_bytes(manifest.encode())
    state, residual, parent = ModelState.of_base(manifest, base), no_residual(manifest), manifest.commit
    made, rows = [], []
    for version in range(1, 7):
        rng = np.random.default_rng(version)
        size = np.float32(0.02) if version != 4 else np.float32(90.0)  # the fourth meets the end of the range
        trained = [(w + rng.standard_normal(len(w)).astype(np.float32) * size).astype(np.float32) for w in state.weights]
        trained[0] = np.abs(trained[0])
        widen = made[-1].clamped if made else ()
        s = snap(state.copy(), trained, residual, density=0.05, max_bytes=1 << 20, widen=widen)
        made.append(s)
        data = sealed(s.state, s.sections, kind=s.kind, version=version, parent=parent, extension={"loss_after": 1.0 / version})
        state, residual, parent = s.state, s.residual, parse(data).commit
        rows.append(write(folder, f"{version}-{s.kind.name.lower()}", data, state))
    squashed = add(made[0].sections, made[1].sections, manifest)
    data = sealed(made[1].state, squashed, version=2, extension={"skipped": [[1, 1]]})
    rows.append(write(folder, "squash-1-2", data, made[1].state))
    undone = ModelState.of_base(manifest, base)
    data = sealed(undone, invert(squashed), version=3, parent=parse(data).commit)
    rows.append(write(folder, "undo-squash", data, undone))
    rows.append(write(folder, "snapshot-6", sealed(state, state.snapshot(), kind=Kind.SNAPSHOT, version=6), state))
    about = {"manifest_commit": manifest.commit.hex(), "schema_id": manifest.schema.id.hex(), "root": manifest.root.hex()}
    (folder / "expected.json").write_text(json.dumps({"base": about, "updates": rows}, indent=1) + "\n")

    folder = FOLDER / "records"
    folder.mkdir()
    for n, record in enumerate(EXAMPLES):
        (folder / f"{n}-{record.KIND}.bin").write_bytes(records.encode(record, KEY))
    whole = bytes(range(256)) * 4
    transfer = parts.describe(whole, fleet="demo", device="pi-7", model="digits", at=1_700_000_000, part=400)
    (folder / "parts-transfer.bin").write_bytes(records.encode(transfer, KEY))
    for i in range(parts.count(transfer)):
        (folder / f"parts-{i}.bin").write_bytes(parts.cut(whole, transfer, i))


def write(folder: Path, name: str, data: bytes, state: ModelState) -> dict[str, object]:
    """Write one container and return what it must rebuild to."""
    (folder / f"{name}.bin").write_bytes(data)
    digest = hashlib.sha256(b"".join(w.tobytes() for w in state.weights)).hexdigest()
    return {"name": name, "commit": parse(data).commit.hex(), "root": state.root.hex(), "weights_sha256": digest}


if __name__ == "__main__":
    main()
