"""One folder of golden vectors that is being written: bases, and containers each on another, with what they must rebuild to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelwire import storage
from modelwire.lattice.replay import kind_of, update_of
from modelwire.lattice.state import ModelState
from modelwire.output_head.recipe import Recipe
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.sections import Kind, Sections
from tests.keys import FLEET_ID
from tests.modelwire.models import KEY

WIRE_1 = Path(__file__).parent / "wire-1"


class Vectors:
    """Containers of the device pi-7, the model and the last version that was written."""

    def __init__(self, name: str, base: ModelState, *, base_name: str = "base") -> None:
        """base_name: of base.bin and manifest.bin, where there are several."""
        self.folder = WIRE_1 / name
        self.folder.mkdir(parents=True)  # never overwrites: vectors are only added
        self.state, self.on, self.parent, self.version = base, None, base.manifest.commit, 0
        self._states: dict[str | None, tuple[ModelState, bytes]] = {None: (base.copy(), base.manifest.commit)}
        self.rows: list[dict[str, object]] = []
        self.bases: dict[str, object] = {}
        self.add_base(base, base_name)

    def add_base(self, base: ModelState, name: str) -> None:
        """Write a base: its weights as they are stored, tensor after tensor, and its manifest."""
        beside = "manifest.bin" if name == "base" else f"{name}-manifest.bin"
        (self.folder / f"{name}.bin").write_bytes(stored(base))
        (self.folder / beside).write_bytes(base.manifest.encode())
        m = base.manifest
        self.bases[name] = {
            "manifest": beside, "commit": m.commit.hex(), "schema_id": m.schema.id.hex(), "root": m.root.hex(),
            "root_proof": base.root_parts.encode().hex(),
        }  # fmt: skip

    def write(
        self, name: str, kind: Kind, sections: Sections, after: ModelState, *, on: str | None = "",
        extension: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Write a container. on: the one that it stands on, None for the base; the last one when left out."""
        self._keep(name, kind, sections, after, on, extension or {}, b"")

    def recipe(self, name: str, recipe: Recipe, extension: Mapping[str, Any]) -> None:
        """Write the container of a recipe on the last state."""
        after = self.state.copy()
        after.apply(kind_of(after), update_of(after, recipe))
        self._keep(name, Kind.RECIPE, (), after, "", extension, recipe.encode())

    def _keep(
        self, name: str, kind: Kind, sections: Sections, after: ModelState, on: str | None, extension: Mapping[str, Any], recipe: bytes
    ) -> None:
        on = self.on if on == "" else on
        _, parent = self._states[on]
        self.version += 1
        m = after.manifest
        named = m.commit if kind is Kind.SNAPSHOT else b""
        header = Header(
            kind, "pi-7", "digits", 1, self.version, parent, m.schema.id, after.root, after.fingerprint, named, extension
        )  # fmt: skip
        made = seal(header, sections, m.schema, KEY, FLEET_ID, recipe=recipe)
        (self.folder / f"{name}.bin").write_bytes(made.data)
        self.rows.append(
            {
                "name": name, "on": on, "version": self.version, "kind": kind.name.lower(), "commit": made.commit.hex(),
                "root": after.root.hex(), "root_proof": after.root_parts.encode().hex(),
                "fingerprint": [f"{lane:016x}" for lane in after.fingerprint], "stored_sha256": hashlib.sha256(stored(after)).hexdigest(),
            }
        )  # fmt: skip
        self.state, self.on = after.copy(), name
        self._states[name] = (self.state, made.commit)

    def state_of(self, name: str | None) -> ModelState:
        """Return the state after a container; of the base with None."""
        return self._states[name][0].copy()

    def done(self, text: str) -> None:
        """Write expected.json and the README. text: what is special about this folder."""
        (self.folder / "expected.json").write_text(json.dumps({"bases": self.bases, "updates": self.rows}, indent=1) + "\n")
        (self.folder / "README.md").write_text(f"{text}\n\n{ABOUT}")


ABOUT = """\
Layout: every `.bin` that `expected.json` lists under `updates` is one signed container of the device `pi-7`, model `digits`, epoch 1.
`on` is the container that it stands on (null: version 0 of the base). `base.bin` has the base's tensors as they are stored, one after
the other in schema order, little-endian, without padding; `manifest.bin` beside it is the base's manifest. Of each update
`expected.json` has the version, kind, commit, root, root proof (the bytes whose SHA-256 is the root), the two lanes of the fingerprint and
the SHA-256 of all tensors as stored after it. Digests are hexadecimal.

Signed with the private key `00 01 02 .. 1f` in the fleet whose id is `00 01 02 .. 0f`. Files are only added, never changed.
"""


def stored(state: ModelState) -> bytes:
    """Return a state's weights as they are stored, one tensor after the other."""
    return b"".join(storage.to_bytes(t.dtype, np.asarray(w)) for t, w in zip(state.manifest.schema.tensors, state.weights, strict=True))
