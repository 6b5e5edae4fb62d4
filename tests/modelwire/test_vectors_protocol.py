"""Golden adopts, takes, unknown kinds, overlapping keys, topics and cards: what wire 1 says of them, for ever, and is written today."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from modelwire import storage
from modelwire.cards.card import merge, parse_card
from modelwire.deploying import plans, variants
from modelwire.deploying import reports as deploying_reports
from modelwire.deploying import terms as deploying_terms
from modelwire.errors import ModelWireError
from modelwire.lattice.rebuild import apply, prove_root
from modelwire.merkle import LEAF_BYTES, leaf
from modelwire.tensors import Dtype
from modelwire.update.adopting import read_adopted, read_taken
from modelwire.wire import claims, numbers, parts, records, renewal, topics, welcome
from modelwire.wire.commands import PIECE_MAX, Adopt, Leaf, Take, task_of
from modelwire.wire.records import NOT_UNDERSTOOD, Command, Response, Transfer, Unknown
from modelwire.wire.routes import CARRIES
from modelwire.wire.signing import Role
from modelwire.wire.trust import Trusted
from tests.keys import FLEET, FLEET_ID
from tests.vectors import barn, make_deployments
from tests.vectors.folder import stored
from tests.vectors.make_cards import said

from .golden import WIRE_1, state_of


def expected(folder: str) -> Any:
    return json.loads((WIRE_1 / folder / "expected.json").read_text())


def data(folder: str, name: str) -> bytes:
    return (WIRE_1 / folder / name).read_bytes()


@pytest.mark.parametrize("case", expected("adopts"), ids=lambda case: case["file"])
def test_a_golden_adopt_leads_back_to_the_base(case: dict[str, str]) -> None:
    signed = records.parse(data("adopts", case["file"]))
    signed.verify(barn.COMMAND.public, FLEET_ID, "who", Role.COMMAND)
    command = records.expect(signed, Command)
    task = task_of(command)
    assert isinstance(task, Adopt)
    update = read_adopted(task.update, command)
    assert update.header.kind.name.lower() == case["kind"]
    after = state_of(case["folder"], case["on"]).copy()
    apply(after, update)
    prove_root(after, update)
    assert (after.root.hex(), after.root_parts.encode().hex()) == (case["root"], case["root_proof"])
    assert hashlib.sha256(stored(after)).hexdigest() == case["stored_sha256"]


def test_the_golden_adopts_are_of_kind_2_and_of_a_lattice_of_16_bits() -> None:
    assert [case["kind"] for case in expected("adopts")] == ["exact", "delta"]
    manifest = state_of("mixed", None).manifest
    assert {manifest.schema.tensors[t].dtype for t in manifest.kept} == {Dtype.FLOAT16, Dtype.BFLOAT16}


@pytest.mark.parametrize("case", expected("takes"), ids=lambda case: case["name"])
def test_a_golden_take_leads_from_the_base_to_a_version(case: dict[str, Any]) -> None:
    signed = records.parse(data("takes", f"{case['name']}.bin"))
    signed.verify(barn.COMMAND.public, FLEET_ID, "who", Role.COMMAND)
    command = records.expect(signed, Command)
    task = task_of(command)
    assert isinstance(task, Take)
    described = records.parse(data("takes", f"{case['name']}-transfer.bin"))
    described.verify(barn.RECEIPT.public, FLEET_ID, "who", Role.RECEIPT)
    transfer = records.expect(described, Transfer)
    task.check(transfer)
    pieces = [parts.parse(data("takes", f"{case['name']}-part-{n}.bin")) for n in range(case["parts"])]
    for piece in pieces:
        parts.check(transfer, piece)
    whole = parts.join(transfer, {piece.index: piece.data for piece in pieces})
    assert whole == data("takes", f"{case['name']}-update.bin") and hashlib.sha256(whole).digest() == task.id
    update = read_taken(whole, command)
    assert update.header.kind.name.lower() == case["kind"]
    after = state_of(case["folder"], None).copy()
    apply(after, update)
    prove_root(after, update)
    assert (after.root.hex(), after.root_parts.encode().hex()) == (case["root"], case["root_proof"])
    assert hashlib.sha256(stored(after)).hexdigest() == case["stored_sha256"]


@pytest.mark.parametrize("case", expected("leaf"), ids=lambda case: case["file"])
def test_a_golden_answer_to_leaf_holds_the_bytes_of_the_leaf_that_was_asked_for(case: dict[str, Any]) -> None:
    signed, said = records.parse(data("leaf", case["file"])), records.parse(data("leaf", case["answer"]))
    signed.verify(barn.COMMAND.public, FLEET_ID, "who", Role.COMMAND)
    said.verify(barn.DEVICE.public, FLEET_ID, "who", Role.DEVICE)
    command, answer = records.expect(signed, Command), records.expect(said, Response)
    task, state = task_of(command), state_of(case["folder"], case["on"])
    assert isinstance(task, Leaf) and (task.tensor, task.leaf, task.start) == (case["tensor"], case["leaf"], case["start"])
    spec = state.manifest.schema.tensors[task.tensor]
    whole = storage.to_bytes(spec.dtype, state.weights[task.tensor])[task.leaf * LEAF_BYTES :][:LEAF_BYTES]
    assert (leaf(whole), len(whole)) == (task.digest, case["of"]) and hashlib.sha256(whole).hexdigest() == case["stored_sha256"]
    assert answer.body == {"bytes": whole[task.start : task.start + PIECE_MAX], "of": len(whole)} and answer.number == command.number


@pytest.mark.parametrize("case", expected("unknown-kinds"), ids=lambda case: case["file"])
def test_a_golden_record_of_an_unknown_kind_is_answered(case: dict[str, Any]) -> None:
    role, by = Role[case["role"].upper()], Role[case["answered_by"].upper()]
    signed = records.parse(data("unknown-kinds", case["file"]))
    signed.verify(barn.KEYS[role].public, FLEET_ID, "who", role)
    assert isinstance(signed.record, Unknown) and signed.record.number == case["number"]
    answer = Response(*barn.WHO, case["number"], False, NOT_UNDERSTOOD, {})
    assert records.encode(answer, barn.KEYS[by], FLEET_ID, role=by) == data("unknown-kinds", case["answer"])


@pytest.mark.parametrize("case", expected("overlap")["verdicts"], ids=lambda case: f"{len(case['trust'])}-{case['time']}-{case['record']}")
def test_a_golden_welcome_is_taken_while_its_key_is_good(case: dict[str, Any]) -> None:
    trusted = Trusted(FLEET)
    for name in case["trust"]:
        trusted = trusted.take(records.parse(data("overlap", name)))
    verdict = None
    try:
        trusted.verify(records.parse(data("overlap", case["record"])), case["time"])
    except ModelWireError as error:
        verdict = type(error).__name__
    assert verdict == case["error"]


def test_a_golden_topic_has_its_parts_and_carries_its_kinds() -> None:
    rows = expected("topics")
    assert {(row["way"], row["leaf"]) for row in rows} == CARRIES.keys()
    for row in rows:
        topic = topics.parse(row["topic"])
        assert str(topic) == row["topic"]
        assert [getattr(topic, part) for part in ("fleet", "device", "model", "way", "leaf")] == [
            row[part] for part in ("fleet", "device", "model", "way", "leaf")
        ]
        assert [cls.KIND for cls in CARRIES[topic.way, topic.leaf]] == row["kinds"]


def test_golden_cards_say_and_add_what_they_did() -> None:
    whole = expected("cards")
    cards = {row["file"]: parse_card(data("cards", row["file"])) for row in whole["cards"]}
    assert sorted(cards) == sorted(path.name for path in Path(WIRE_1 / "cards").glob("*.bin"))
    for row in whole["cards"]:
        card = cards[row["file"]]
        assert {"file": row["file"], **said(card)} == row
        assert card.encode() == data("cards", row["file"])
    for row in whole["merged"]:
        a, b = (cards[name] for name in row["of"])
        assert merge(a, b).encode() == merge(b, a).encode() == data("cards", row["file"])


@pytest.mark.parametrize("case", expected("agreement"), ids=lambda case: case["file"])
def test_what_a_golden_record_says_of_single_numbers_is_taken(case: dict[str, Any]) -> None:
    signed = records.parse(data("agreement", case["file"]))
    role = Role[case["role"].upper()]
    signed.verify(barn.KEYS[role].public, FLEET_ID, "who", role)
    more, taken = signed.record.more, case["taken"]
    for key in (numbers.LOST, numbers.DROPPED, numbers.UNSURE, numbers.MISSING):
        assert [[s.epoch, s.first, s.last] for s in numbers.read(more, key)] == taken.get(key, [])
    assert (welcome.key_in(signed.record).hex() if isinstance(signed.record, records.Welcome) else "") == taken.get("key", "")
    link = numbers.witness_in(more)
    assert (numbers.nonce_in(more).hex(), link.encode().hex() if link else "") == (taken.get("nonce", ""), taken.get("witness", ""))


def test_the_golden_records_about_numbers_are_as_they_are_written_today() -> None:
    assert [case["file"] for case in expected("agreement")] == [f"{name}.bin" for name in barn.agreement()]
    for name, record in barn.agreement().items():
        assert records.encode(record, barn.KEYS[record.ROLES[0]], FLEET_ID) == data("agreement", f"{name}.bin")


def test_what_a_golden_record_says_of_a_certificate_is_taken_and_written_so_today() -> None:
    said = barn.renewal_records()
    assert [case["file"] for case in expected("renewal")] == [f"{name}.bin" for name in said]
    for case, record in zip(expected("renewal"), said.values(), strict=True):
        read = records.parse(data("renewal", case["file"])).record
        assert read.more == record.more
        assert records.encode(record, barn.KEYS[record.ROLES[0]], FLEET_ID) == data("renewal", case["file"])
        taken = renewal.held(read.more) if "held" in case else renewal.brought(read.more)
        assert taken.hex() == case.get("held", case.get("brought"))


def test_what_a_golden_record_says_of_a_claim_is_taken_and_written_so_today() -> None:
    said = barn.claim_records()
    assert [case["file"] for case in expected("claims")] == [f"{name}.bin" for name in said]
    for case, record in zip(expected("claims"), said.values(), strict=True):
        read = records.parse(data("claims", case["file"])).record
        assert read.more == record.more
        assert records.encode(record, barn.KEYS[record.ROLES[0]], FLEET_ID) == data("claims", case["file"])
        what, taken = ("serial", claims.serial_in(read.more)) if "serial" in case else ("refused", claims.refusal_in(read.more))
        assert taken == case[what]


def test_golden_words_about_deployments_are_read_and_written_so_today() -> None:
    said = make_deployments.said()
    assert expected("deployments") == make_deployments.rows() and [r["file"] for r in make_deployments.rows()] == [f"{n}.bin" for n in said]
    for name, sealed in said.items():
        assert data("deployments", f"{name}.bin") == sealed
    assert variants.read(said["variant"], barn.ROOT.public, FLEET_ID) == make_deployments.VARIANT
    assert plans.read_plan(said["plan"], barn.COMMAND.public, FLEET_ID) == make_deployments.PLAN
    assert plans.read_decision(said["decision"], barn.COMMAND.public, FLEET_ID) == make_deployments.DECISION
    terms = [deploying_terms.read(records.parse(said[name]).record.more) for name in ("desired", "desired-back")]
    assert [t is not None and (t.variant, t.back) for t in terms] == [(said["variant"], False), (b"", True)]
    assert deploying_reports.figures_in(records.parse(said["report"]).record.more) == make_deployments.FIGURES
    assert deploying_reports.figures_in(records.parse(said["report-plain"]).record.more) is None
