"""Reads the golden vectors: the bases of a folder, its containers, and the state after each."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from modelwire import storage
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.state import ModelState
from modelwire.update.container import parse
from modelwire.update.manifest import parse_manifest
from modelwire.update.sections import Kind

WIRE_1 = Path(__file__).parent.parent / "vectors" / "wire-1"
_SAID: dict[str, Any] = {path.parent.name: json.loads(path.read_text()) for path in sorted(WIRE_1.glob("*/expected.json"))}
EXPECTED = {folder: said for folder, said in _SAID.items() if "updates" in said}  # the folders of containers
CASES = [(folder, row["name"]) for folder, expected in EXPECTED.items() for row in expected["updates"]]


@functools.cache
def base(folder: str, name: str | None = None) -> ModelState:
    """Return a base of a folder; the first one by default."""
    bases = EXPECTED[folder]["bases"]
    name = name or next(iter(bases))
    manifest = parse_manifest((WIRE_1 / folder / bases[name]["manifest"]).read_bytes())
    flat, raw, at = [], (WIRE_1 / folder / f"{name}.bin").read_bytes(), 0
    for spec in manifest.schema.tensors:
        end = at + spec.size * spec.dtype.width
        flat.append(storage.from_bytes(spec.dtype, raw[at:end]))
        at = end
    return ModelState.of_base(manifest, flat)


def row(folder: str, name: str) -> dict[str, Any]:
    """Return what a container must come to."""
    found: dict[str, Any] = next(r for r in EXPECTED[folder]["updates"] if r["name"] == name)
    return found


def data(folder: str, name: str) -> bytes:
    """Return a container's bytes."""
    return (WIRE_1 / folder / f"{name}.bin").read_bytes()


@functools.cache
def state_of(folder: str, name: str | None) -> ModelState:
    """Return the state after a container; of the first base with None. Not to be changed."""
    if name is None:
        return base(folder)
    container = parse(data(folder, name))
    if container.header.kind is Kind.SNAPSHOT:
        start = next(base(folder, b) for b, said in EXPECTED[folder]["bases"].items() if said["commit"] == container.header.base.hex())
    else:
        start = state_of(folder, row(folder, name)["on"])
    return rebuild(start, container)
