"""Golden vectors: what wire 1 wrote once must rebuild to the same bits for ever, and be written the same way today."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from modelwire import storage
from modelwire.identity import parse_root_parts
from modelwire.lattice.replay import first_apart
from modelwire.lattice.state import ModelState
from modelwire.output_head.forgotten import forgotten_of
from modelwire.output_head.row_ids import encode_ids, ids_of
from modelwire.output_head.rows import Layout
from modelwire.tensors import Dtype, TensorClass
from modelwire.update.container import parse, parse_unsigned, seal
from modelwire.update.proof import check_chain, parse_header_proof
from modelwire.update.sections import Kind
from modelwire.wire import cbor, log, parts, records
from modelwire.wire.commands import Adopt, task_of
from modelwire.wire.keys import KeyKind, read_key, write_key
from modelwire.wire.signing import Role
from tests.keys import FLEET_ID, RECEIPT

from .golden import CASES, EXPECTED, WIRE_1, base, data, row, state_of
from .models import KEY
from .wire.examples import EXAMPLES, KEYS

RECORDS = json.loads((WIRE_1 / "records" / "expected.json").read_text())


def stored(state: ModelState) -> str:
    whole = b"".join(storage.to_bytes(t.dtype, w) for t, w in zip(state.manifest.schema.tensors, state.weights, strict=True))
    return hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("folder", EXPECTED)
def test_the_bases_have_the_commit_schema_and_root_of_the_day(folder: str) -> None:
    for name, about in EXPECTED[folder]["bases"].items():
        manifest = base(folder, name).manifest
        assert manifest.commit.hex() == about["commit"] and manifest.schema.id.hex() == about["schema_id"]
        assert manifest.root.hex() == about["root"] == parse_root_parts(bytes.fromhex(about["root_proof"])).root.hex()


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_a_golden_update_rebuilds_to_the_same_bits(folder: str, name: str) -> None:
    expected, container, state = row(folder, name), parse(data(folder, name)), state_of(folder, name)
    container.verify(KEY.public, FLEET_ID)
    assert (container.commit.hex(), container.header.version) == (expected["commit"], expected["version"])
    assert (state.root.hex(), stored(state)) == (expected["root"], expected["stored_sha256"])
    assert state.root_parts.encode().hex() == expected["root_proof"]
    assert state.fingerprint == state.measure_fingerprint() == container.header.fingerprint
    assert [f"{lane:016x}" for lane in state.fingerprint] == expected["fingerprint"]


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_a_golden_update_is_sealed_the_same_way_today(folder: str, name: str) -> None:
    container, schema = parse(data(folder, name)), state_of(folder, name).manifest.schema
    recipe = container.recipe().encode() if container.header.kind is Kind.RECIPE else b""
    sections = () if recipe else container.sections(schema)
    assert seal(replace(container.header), sections, schema, KEY, FLEET_ID, recipe=recipe).data == data(folder, name)


@pytest.mark.parametrize(("folder", "name"), CASES)
def test_a_golden_recipe_names_the_samples_of_its_rows_and_its_checkpoints_hold(folder: str, name: str) -> None:
    container = parse(data(folder, name))
    if container.header.kind is not Kind.RECIPE:
        assert "rows" not in container.header.extension
        return
    recipe = container.recipe()
    if "rows" in container.header.extension:
        ids = ids_of(container.header.extension, len(recipe.rows))
        assert ids is not None and encode_ids(ids) == container.header.extension["rows"]
    assert first_apart(state_of(folder, row(folder, name)["on"]), recipe) == 0


@pytest.mark.parametrize("folder", EXPECTED)
def test_versions_rise_and_parents_are_those_that_are_named(folder: str) -> None:
    first = next(iter(EXPECTED[folder]["bases"].values()))["commit"]
    rows = EXPECTED[folder]["updates"]
    assert [r["version"] for r in rows] == list(range(1, len(rows) + 1))
    for one in rows:
        parent = row(folder, one["on"])["commit"] if one["on"] else first
        assert parse(data(folder, one["name"])).header.parent.hex() == parent


def test_the_vectors_hold_what_they_are_said_to_hold() -> None:
    exact, mixed = base("exact").manifest, base("mixed").manifest
    assert exact.all_exact and {t.dtype for t in exact.schema.tensors} == set(Dtype)
    assert set(mixed.classes) == set(TensorClass) and {t.dtype for t in mixed.schema.tensors} == set(Dtype)
    headers = {case: parse(data(*case)).header for case in CASES}
    assert headers["updates", "5-snapshot"].kind is Kind.SNAPSHOT  # after a clamp, in larger units
    assert state_of("updates", "5-snapshot").exponents != list(base("updates").manifest.exponents)
    # One root, sealed in two ways.
    assert row("updates", "2-delta")["root"] == row("updates", "8-squash-1-2")["root"]
    assert row("updates", "6-snapshot")["root"] == row("updates", "7-snapshot")["root"]
    assert "later" in headers["updates", "10-later-keys"].extension and forgotten_of(headers["updates", "10-later-keys"].extension)
    large = base("large").manifest.schema.tensors
    assert max(t.size * t.dtype.width for t in large) > 2 * 65_536 and large[0].size > 262_144
    a, b = (base("base-change", name).manifest.commit for name in "ab")
    assert [headers["base-change", n].base for n in ("2-snapshot-b", "4-snapshot-a")] == [b, a]
    marked = parse(data("recipe-updates", "8-checkpoints")).recipe()
    assert marked.checkpoints is not None and len(marked.checkpoints.roots) == 4
    deep = parse(data("recipe-updates-deep", "1-own-targets-float16")).recipe()
    assert len(deep.head.hidden) == 2 and deep.rows.labels is None and deep.rows.targets is None
    assert parse(data("recipe-updates-exact", "1-adam-int8")).recipe().head.decay > 0


def test_the_corners_are_where_they_are_said_to_be() -> None:
    manifest = base("corners").manifest
    scalars = [t for t, spec in enumerate(manifest.schema.tensors) if not spec.shape]
    assert manifest.more and {manifest.schema.tensors[t].dtype for t in scalars} == {Dtype.FLOAT32, Dtype.FLOAT16}
    assert all(manifest.lattice(t) and state_of("corners", "1-delta").integers[t].any() for t in scalars)
    empty = [e.tensor for e in parse(data("corners", "2-snapshot")).entries if not e.count]
    assert empty and {e.tensor for e in parse(data("corners", "3-delta")).entries} > set(empty)
    folder = "recipe-updates-corners"
    recipe = parse(data(folder, "1-verbatim-int8")).recipe()
    manifest, parent = base(folder).manifest, state_of(folder, "2-snapshot")
    assert [manifest.verbatim(layer.matrix) for layer in recipe.layers] == [True, False]
    assert parent.exponents[recipe.layers[1].matrix] > manifest.exponents[recipe.layers[1].matrix]
    centred = parse(data(folder, "3-larger-units-float16-centred"))
    assert cbor.decode(bytes(centred.stream))[4][1:6:4] == [Dtype.FLOAT16, Layout.CENTRED]  # type: ignore[index,call-overload]


@pytest.mark.parametrize("case", RECORDS, ids=lambda case: case["file"])
def test_a_golden_record_reads_and_writes_the_same(case: dict[str, object]) -> None:
    golden = (WIRE_1 / "records" / str(case["file"])).read_bytes()
    role, record = Role[str(case["role"]).upper()], EXAMPLES[int(str(case["example"]))]
    signed = records.parse(golden)
    signed.verify(KEYS[role].public, FLEET_ID, "who", role)
    assert signed.record == record
    assert records.encode(signed.record, KEYS[role], FLEET_ID, role=role) == golden


def test_there_is_a_golden_record_of_every_kind_and_role() -> None:
    assert {(c["kind"], c["role"]) for c in RECORDS} == {(k, r.name.lower()) for k, cls in records.KINDS.items() for r in cls.ROLES}


@pytest.mark.parametrize("name", ["adopt", "adopt-plain"])
def test_a_golden_adopt_leads_from_version_1_to_the_base(name: str) -> None:
    signed = records.parse((WIRE_1 / "records" / f"{name}.bin").read_bytes())
    signed.verify(KEYS[Role.COMMAND].public, FLEET_ID, "who", Role.COMMAND)
    command = records.expect(signed, records.Command)
    task = task_of(command)
    assert isinstance(task, Adopt)
    update = parse_unsigned(task.update)
    assert update.header.parent == command.parent == bytes.fromhex(row("updates", "1-delta")["commit"])
    assert (forgotten_of(update.header.extension) is not None) is (name == "adopt")
    after = state_of("updates", "1-delta").copy()
    after.apply_container(update)
    assert after.root == update.header.root == base("updates").root


def test_golden_parts_join() -> None:
    folder = WIRE_1 / "records"
    transfer = records.expect(records.parse((folder / "parts-transfer.bin").read_bytes()), records.Transfer)
    held = {}
    for i in range(parts.count(transfer)):
        part = parts.parse((folder / f"parts-{i}.bin").read_bytes())
        parts.check(transfer, part)
        held[part.index] = part.data
    whole = parts.join(transfer, held)
    assert whole == bytes(i * i % 251 for i in range(5000))
    out = parts.describe(whole, fleet="demo", device="pi-7", model="digits", at=1_700_000_000, part=2000)
    assert out.transfer == transfer
    assert [out.cut(i) for i in range(out.count)] == [(folder / f"parts-{i}.bin").read_bytes() for i in range(out.count)]


def test_golden_keys_read_and_write_the_same() -> None:
    golden = json.loads((WIRE_1 / "records" / "keys.json").read_text())
    assert set(golden) == {kind.prefix for kind in KeyKind}
    for kind in KeyKind:
        key = read_key(golden[kind.prefix], kind, "keys.json")
        assert key == bytes(range(len(key))) and write_key(kind, key) == golden[kind.prefix]


def test_golden_links_follow_and_are_signed() -> None:
    link = None
    for one in json.loads((WIRE_1 / "records" / "links.json").read_text()):
        link = log.next_link(link, bytes.fromhex(one["entry"]))
        assert link.encode().hex() == one["link"] and log.parse_link(bytes.fromhex(one["link"])) == link
        link.verify(RECEIPT.public, FLEET_ID, bytes.fromhex(one["signature"]))


def test_golden_header_proofs_prove_their_chain() -> None:
    folder = WIRE_1 / "proofs"
    expected = json.loads((folder / "expected.json").read_text())
    proofs = [parse_header_proof((folder / one["file"]).read_bytes()) for one in expected["versions"]]
    assert [(p.commit.hex(), p.header.root.hex()) for p in proofs] == [(v["commit"], v["root"]) for v in expected["versions"]]
    assert check_chain(proofs, bytes.fromhex(expected["base"]), KEY.public, FLEET_ID) == proofs[-1].commit and len(proofs) == 20
