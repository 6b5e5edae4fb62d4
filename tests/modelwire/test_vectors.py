"""Golden vectors: what wire 1 wrote once must rebuild to the same bits for ever, and be written the same way today."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.state import ModelState
from modelwire.update.container import parse, seal
from modelwire.update.header import Header
from modelwire.update.manifest import parse_manifest
from modelwire.update.sections import Kind
from modelwire.wire import parts, records
from tests.keys import FLEET_ID

from .models import KEY
from .wire.examples import EXAMPLES

WIRE_1 = Path(__file__).parent.parent / "vectors" / "wire-1"
UPDATES = WIRE_1 / "updates"
EXPECTED = json.loads((UPDATES / "expected.json").read_text())
ON = {"squash-1-2": None, "undo-squash": "squash-1-2", "snapshot-6": None, "1-delta": None}


def base() -> ModelState:
    manifest = parse_manifest((UPDATES / "manifest.bin").read_bytes())
    flat, raw, at = [], (UPDATES / "base.bin").read_bytes(), 0
    for spec in manifest.schema.tensors:
        flat.append(np.frombuffer(raw, "<f4", spec.size, at).copy())
        at += 4 * spec.size
    return ModelState.of_base(manifest, flat)


def state_of(name: str | None) -> ModelState:
    if name is None:
        return base()
    names = [u["name"] for u in EXPECTED["updates"]]
    before = ON[name] if name in ON else names[names.index(name) - 1]
    return rebuild(state_of(before), parse((UPDATES / f"{name}.bin").read_bytes()))


def test_the_base_has_the_commit_schema_and_root_of_the_day() -> None:
    manifest = parse_manifest((UPDATES / "manifest.bin").read_bytes())
    about = EXPECTED["base"]
    assert (manifest.commit.hex(), manifest.schema.id.hex(), manifest.root.hex()) == (
        about["manifest_commit"], about["schema_id"], about["root"],
    )  # fmt: skip
    assert base().root == manifest.root


@pytest.mark.parametrize("expected", EXPECTED["updates"], ids=lambda u: u["name"])
def test_a_golden_update_rebuilds_to_the_same_bits(expected: dict[str, str]) -> None:
    data = (UPDATES / f"{expected['name']}.bin").read_bytes()
    container = parse(data)
    container.verify(KEY.public, FLEET_ID)
    assert container.commit.hex() == expected["commit"]
    state = state_of(expected["name"])
    assert state.root.hex() == expected["root"]
    assert hashlib.sha256(b"".join(w.tobytes() for w in state.weights)).hexdigest() == expected["weights_sha256"]


@pytest.mark.parametrize("expected", EXPECTED["updates"], ids=lambda u: u["name"])
def test_a_golden_update_is_sealed_the_same_way_today(expected: dict[str, str]) -> None:
    data = (UPDATES / f"{expected['name']}.bin").read_bytes()
    container = parse(data)
    schema = base().manifest.schema
    h = container.header
    again = Header(
        h.kind, h.device, h.model, h.epoch, h.version, h.parent, h.schema_id, h.root, h.fingerprint, h.base, h.extension
    )
    assert seal(again, container.sections(schema), schema, KEY, FLEET_ID).data == data


def test_the_golden_chain_holds_a_clamp_and_its_snapshot() -> None:
    kinds = [parse((UPDATES / f"{u['name']}.bin").read_bytes()).header.kind for u in EXPECTED["updates"][:6]]
    assert kinds.count(Kind.SNAPSHOT) == 1 and kinds[4] is Kind.SNAPSHOT


@pytest.mark.parametrize("n", range(len(EXAMPLES)))
def test_a_golden_record_reads_and_writes_the_same(n: int) -> None:
    data = (WIRE_1 / "records" / f"{n}-{EXAMPLES[n].KIND}.bin").read_bytes()
    signed = records.parse(data)
    signed.verify(KEY.public, "pi-7")
    assert signed.record == EXAMPLES[n]
    assert records.encode(signed.record, KEY) == data


def test_golden_parts_join() -> None:
    folder = WIRE_1 / "records"
    transfer = records.expect(records.parse((folder / "parts-transfer.bin").read_bytes()), records.Transfer)
    held = {}
    for i in range(parts.count(transfer)):
        part = parts.parse((folder / f"parts-{i}.bin").read_bytes())
        parts.check(transfer, part)
        held[part.index] = part.data
    assert parts.join(transfer, held) == bytes(range(256)) * 4
