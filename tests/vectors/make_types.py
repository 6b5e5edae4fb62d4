"""Write the golden vectors of all storage types: an exact base with planes, and a base of mixed classes with sums of every type.

    python -m tests.vectors.make_types

Vectors are only added, never edited: run it for a new folder when the wire changes. It refuses to overwrite.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from modelwire import storage
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.update.container import Sealed, seal
from modelwire.update.header import Header
from modelwire.update.sections import Kind, Sections, add, invert
from tests.keys import FLEET_ID
from tests.modelwire.lattice import test_exact, test_narrow
from tests.modelwire.models import KEY, exact_update
from tests.modelwire.raw_planes import raw_snapshot

FOLDER = Path(__file__).parent / "wire-1"


def main() -> None:
    """Write the vectors into empty folders."""
    exact = Vectors(FOLDER / "exact", test_exact.base(7))
    start = exact.state
    made = []
    for version in (1, 2, 3):
        kind, sections, after = exact_update(exact.state, test_exact.trained(version, exact.state.weights, 1 / version))
        exact.write(f"{version}-exact", kind, sections, after)
        made.append((sections, after))
    squashed = add(made[0][0], made[1][0], start.manifest)
    exact.state = start
    exact.write("squash-1-2", Kind.EXACT, squashed, made[1][1], version=2)
    exact.write("undo-squash", Kind.EXACT, invert(squashed), start, version=3)
    exact.write("snapshot-3", Kind.SNAPSHOT, made[2][1].snapshot(), made[2][1], version=3)
    exact.write("raw-3", Kind.SNAPSHOT, raw_snapshot(made[2][1]), made[2][1], version=3)
    exact.done()

    mixed = Vectors(FOLDER / "mixed", test_narrow.base(7))
    residual = no_residual(mixed.state.manifest)
    for version in (1, 2, 3):
        s = snap(mixed.state, test_narrow.trained(version, mixed.state), residual, density=0.1, max_bytes=1 << 20)
        mixed.write(f"{version}-delta", s.kind, s.sections, s.state)
        residual = s.residual
    mixed.write("snapshot-3", Kind.SNAPSHOT, mixed.state.snapshot(), mixed.state, version=3)
    mixed.done()


class Vectors:
    """One folder that is being written, and the state after the last of its containers."""

    def __init__(self, folder: Path, base: ModelState) -> None:
        folder.mkdir()
        self.folder, self.state, self.manifest = folder, base, base.manifest
        self.parent, self.version, self.rows = base.manifest.commit, 0, list[dict[str, object]]()
        (folder / "base.bin").write_bytes(stored(base))
        (folder / "manifest.bin").write_bytes(base.manifest.encode())

    def write(self, name: str, kind: Kind, sections: Sections, after: ModelState, *, version: int = 0) -> None:
        """Write one container on the last one, and what it must rebuild to."""
        m = self.manifest
        self.version = version or self.version + 1
        named = m.commit if kind is Kind.SNAPSHOT else b""
        header = Header(kind, "pi-7", "types", 1, self.version, self.parent, m.schema.id, after.root, after.fingerprint, named)
        self.keep(name, seal(header, sections, m.schema, KEY, FLEET_ID), after)

    def keep(self, name: str, update: Sealed, after: ModelState) -> None:
        """Write a container that was sealed on the last one."""
        (self.folder / f"{name}.bin").write_bytes(update.data)
        commit = update.commit
        self.rows.append(
            {"name": name, "commit": commit.hex(), "root": after.root.hex(), "stored_sha256": hashlib.sha256(stored(after)).hexdigest()}
        )
        self.state, self.parent = after, commit

    def done(self) -> None:
        m = self.manifest
        about = {"manifest_commit": m.commit.hex(), "schema_id": m.schema.id.hex(), "root": m.root.hex()}
        (self.folder / "expected.json").write_text(json.dumps({"base": about, "updates": self.rows}, indent=1) + "\n")


def stored(state: ModelState) -> bytes:
    """Return a state's weights as they are stored, one tensor after the other."""
    return b"".join(storage.to_bytes(t.dtype, np.asarray(w)) for t, w in zip(state.manifest.schema.tensors, state.weights, strict=True))


if __name__ == "__main__":
    main()
