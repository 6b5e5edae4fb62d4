"""Golden vectors of all types and of recipes: what was written once must rebuild to the same bits for ever, and be sealed alike today."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from modelwire import storage
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.state import ModelState
from modelwire.output_head.row_ids import encode_ids, ids_of
from modelwire.tensors import Dtype, TensorClass
from modelwire.update.container import parse, seal
from modelwire.update.manifest import parse_manifest
from modelwire.update.sections import Kind
from tests.keys import FLEET_ID
from tests.modelwire.raw_planes import raw_weights

from .models import KEY

WIRE_1 = Path(__file__).parent.parent / "vectors" / "wire-1"
FOLDERS = ("exact", "mixed", "recipe-updates", "recipe-updates-convolution", "recipe-updates-exact")
EXPECTED = {folder: json.loads((WIRE_1 / folder / "expected.json").read_text()) for folder in FOLDERS}
ON = {"squash-1-2": None, "snapshot-3": None, "raw-3": None}  # the others are each on the one before
CASES = [(folder, row["name"]) for folder, expected in EXPECTED.items() for row in expected["updates"]]


@functools.cache
def base(folder: str) -> ModelState:
    manifest = parse_manifest((WIRE_1 / folder / "manifest.bin").read_bytes())
    flat, raw, at = [], (WIRE_1 / folder / "base.bin").read_bytes(), 0
    for spec in manifest.schema.tensors:
        end = at + spec.size * spec.dtype.width
        flat.append(storage.from_bytes(spec.dtype, raw[at:end]))
        at = end
    return ModelState.of_base(manifest, flat)


def row(folder: str, name: str) -> dict[str, str]:
    found: dict[str, str] = next(r for r in EXPECTED[folder]["updates"] if r["name"] == name)
    return found


def data(folder: str, name: str) -> bytes:
    return (WIRE_1 / folder / f"{name}.bin").read_bytes()


def state_of(folder: str, name: str) -> ModelState:
    names = [r["name"] for r in EXPECTED[folder]["updates"]]
    place = names.index(name)
    before = base(folder) if name in ON or not place else state_of(folder, names[place - 1])
    return rebuild(before, parse(data(folder, name)))


@pytest.mark.parametrize("folder", EXPECTED)
def test_the_base_has_the_commit_schema_and_root_of_the_day(folder: str) -> None:
    manifest, about = base(folder).manifest, EXPECTED[folder]["base"]
    assert manifest.commit.hex() == about["manifest_commit"] and manifest.schema.id.hex() == about["schema_id"]
    assert manifest.root.hex() == about["root"]


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_a_golden_update_rebuilds_to_the_same_bits(folder: str, name: str) -> None:
    expected, container = row(folder, name), parse(data(folder, name))
    container.verify(KEY.public, FLEET_ID)
    assert container.commit.hex() == expected["commit"]
    state = state_of(folder, name)
    bits = b"".join(storage.to_bytes(t.dtype, w) for t, w in zip(state.manifest.schema.tensors, state.weights, strict=True))
    assert (state.root.hex(), hashlib.sha256(bits).hexdigest()) == (expected["root"], expected["stored_sha256"])
    assert state.fingerprint == state.measure_fingerprint() == container.header.fingerprint


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_a_golden_update_is_sealed_the_same_way_today(folder: str, name: str) -> None:
    container, schema = parse(data(folder, name)), base(folder).manifest.schema
    recipe = container.recipe().encode() if container.header.kind is Kind.RECIPE else b""
    sections = () if recipe else container.sections(schema)
    assert seal(replace(container.header), sections, schema, KEY, FLEET_ID, recipe=recipe).data == data(folder, name)


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_a_golden_recipe_names_the_samples_of_its_rows(folder: str, name: str) -> None:
    container = parse(data(folder, name))
    if container.header.kind is Kind.RECIPE:
        ids = ids_of(container.header.extension, len(container.recipe().rows))
        assert ids is not None and encode_ids(ids) == container.header.extension["rows"]
    else:
        assert "rows" not in container.header.extension


def test_raw_planes_give_the_weights_without_the_base() -> None:
    schema = base("exact").manifest.schema
    flat = raw_weights(parse(data("exact", "raw-3")).sections(schema), schema)
    assert [a.tobytes() for a in flat] == [a.tobytes() for a in state_of("exact", "3-exact").weights]


def test_the_vectors_hold_every_type_and_class() -> None:
    exact, mixed = base("exact").manifest, base("mixed").manifest
    assert exact.all_exact and {t.dtype for t in exact.schema.tensors} == set(Dtype)
    assert set(mixed.classes) == set(TensorClass) and {t.dtype for t in mixed.schema.tensors} == set(Dtype)
