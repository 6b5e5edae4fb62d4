"""Every golden vector, read by a decoder that was written from the pages alone: stranger."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.modelwire.stranger import (
    cards,
    cbor,
    coder,
    ed25519,
    keys,
    limits,
    links,
    planes,
    proof,
    records,
    rows,
    statements,
    topics,
    transfer,
)
from tests.modelwire.stranger import ed25519_plain as plain
from tests.modelwire.stranger.apply import rebuild
from tests.modelwire.stranger.coder_write import encode as encode_stream
from tests.modelwire.stranger.commands import answer_not_understood, check_taken, read_adopt, read_body, read_take
from tests.modelwire.stranger.container import DELTA, EXACT, KINDS, RECIPE, SNAPSHOT, Container, commit_of, read_container
from tests.modelwire.stranger.crc import crc32c
from tests.modelwire.stranger.errors import (
    BadSignature,
    DigestMismatch,
    Malformed,
    NotUnderstood,
    RootMismatch,
    WireError,
    WrongFleet,
    WrongKeyKind,
    WrongRole,
)
from tests.modelwire.stranger.head import read_head, read_recipe
from tests.modelwire.stranger.manifest import FLOAT32, INT32, LATTICE, VERBATIM, Tensor, read_manifest
from tests.modelwire.stranger.merkle import leaves, path, sha256, tree
from tests.modelwire.stranger.root import lane_sum, read_root_proof
from tests.modelwire.stranger.rows import Rows
from tests.modelwire.stranger.state import State, ordered, read_base, weights_of
from tests.modelwire.stranger.trainer import Training
from tests.modelwire.stranger.trust import Trust

VECTORS = Path(__file__).parent.parent / "vectors" / "wire-1"
FLEET = bytes(range(16))
DEVICE_KEY = bytes(range(32))
DEVICE = ed25519.public_key(DEVICE_KEY)
PRIVATE = {1: DEVICE_KEY, 2: b"\xf2" * 32, 3: b"\xf3" * 32, 4: b"\xf3" * 32, 5: b"\xf4" * 32, 6: b"\xf1" * 32}
PUBLIC = {role: ed25519.public_key(key) for role, key in PRIVATE.items()}
CHAINS = sorted(
    p.parent.name for p in VECTORS.glob("*/expected.json") if b'"updates"' in p.read_bytes()
)
Array = npt.NDArray[Any]


def load(name: str) -> Any:
    """Read a JSON file of the vectors."""
    return json.loads((VECTORS / name).read_text())


@cache
def expected(folder: str) -> dict[str, Any]:
    """Give what a chain's folder expects, by name."""
    return {u["name"]: u for u in load(f"{folder}/expected.json")["updates"]}


@cache
def bases(folder: str) -> tuple[State, ...]:
    """Read all bases of a folder."""
    out = []
    for name, base in load(f"{folder}/expected.json")["bases"].items():
        manifest = read_manifest((VECTORS / folder / base["manifest"]).read_bytes())
        out.append(read_base(manifest, (VECTORS / folder / f"{name}.bin").read_bytes()))
    return tuple(out)


@cache
def container(folder: str, name: str) -> Container:
    """Read one update."""
    return read_container((VECTORS / folder / f"{name}.bin").read_bytes())


def parent_of(folder: str, name: str) -> tuple[bytes, State]:
    """Give commit and state of what an update stands on."""
    on = expected(folder)[name]["on"]
    if on is not None:
        return container(folder, on).commit, version(folder, on)
    wanted = container(folder, name).header.parent
    for base in bases(folder):
        if base.manifest.commit == wanted:
            return wanted, base
    raise AssertionError("no base has the commit that the update names as parent")


@cache
def version(folder: str, name: str) -> State:
    """Rebuild one version, checkpoints too."""
    return rebuild(container(folder, name), parent_of(folder, name)[1], bases(folder), prove_checkpoints=True)


ALL_UPDATES = [(folder, name) for folder in CHAINS for name in expected(folder)]


@pytest.mark.parametrize("folder", CHAINS)
def test_base(folder: str) -> None:
    """Commit, schema id, root and root proof of each base."""
    for (_, wanted), base in zip(load(f"{folder}/expected.json")["bases"].items(), bases(folder), strict=True):
        assert base.manifest.commit.hex() == wanted["commit"]
        assert base.manifest.schema_id.hex() == wanted["schema_id"]
        assert base.root.hex() == wanted["root"]
        assert base.root_proof.hex() == wanted["root_proof"]
        assert base.fingerprint == (0, 0)
        assert cbor.encode(cbor.decode(base.manifest.raw)) == base.manifest.raw


@pytest.mark.parametrize(("folder", "name"), ALL_UPDATES)
def test_update(folder: str, name: str) -> None:
    """Commit, signature, parent, root, root proof, fingerprint and stored bytes of each update."""
    wanted, update = expected(folder)[name], container(folder, name)
    assert (update.header.device, update.header.model, update.header.epoch) == ("pi-7", "digits", 1)
    assert update.header.version == wanted["version"]
    assert KINDS[update.header.kind] == wanted["kind"]
    assert update.commit.hex() == wanted["commit"]
    assert update.verify([DEVICE], FLEET) == DEVICE
    assert update.signature == ed25519.sign(DEVICE_KEY, ed25519.UPDATE, FLEET, update.commit)
    with pytest.raises(BadSignature):
        update.verify([DEVICE], bytes(16))
    commit, _ = parent_of(folder, name)
    assert update.header.parent == commit
    state = version(folder, name)
    assert state.root.hex() == wanted["root"] == update.header.root.hex()
    assert state.root_proof.hex() == wanted["root_proof"]
    schema_id, _, units, _ = read_root_proof(state.root_proof)
    assert (schema_id, tuple(units)) == (state.manifest.schema_id, state.units)
    assert [f"{lane:016x}" for lane in state.fingerprint] == wanted["fingerprint"]
    assert hashlib.sha256(b"".join(state.stored)).hexdigest() == wanted["stored_sha256"]


@pytest.mark.parametrize(("folder", "name"), ALL_UPDATES)
def test_extension(folder: str, name: str) -> None:
    """What stands beside each update: row ids, what was forgotten."""
    update = container(folder, name)
    raw = (VECTORS / folder / f"{name}.bin").read_bytes()
    at = 32 + update.preamble.header
    assert raw[at : at + update.preamble.extension] == (cbor.encode(update.extension) if update.extension else b"")
    if "rows" in update.extension:
        recipe = read_recipe(update.body)
        assert len(rows.read_ids(update.extension["rows"], recipe.rows.count)) == recipe.rows.count
    if "forgot" in update.extension:
        forgot = rows.read_forgot(update.extension["forgot"])
        assert forgot.samples or forgot.rows
    if update.header.kind == RECIPE:
        assert cbor.encode(cbor.decode(update.body)) == update.body


@pytest.mark.parametrize(("folder", "name"), ALL_UPDATES)
def test_damage(folder: str, name: str) -> None:
    """A flipped bit anywhere is refused."""
    raw = bytearray((VECTORS / folder / f"{name}.bin").read_bytes())
    for at in range(0, len(raw), 97):
        raw[at] ^= 1
        with pytest.raises(WireError):
            read_container(bytes(raw)).verify([DEVICE], FLEET)
        raw[at] ^= 1


def test_forgot_of_later_keys() -> None:
    """The one update that has forgotten samples and rows, beside a key that nobody knows."""
    update = container("updates", "10-later-keys")
    assert update.extension["later"] == {"what": [1, None, True]}
    assert rows.read_forgot(update.extension["forgot"]) == rows.Forgot((3, 8, 200), 0, ())


def test_checkpoints_are_there() -> None:
    """One recipe has checkpoints, and a wrong one is noticed."""
    update = container("recipe-updates", "8-checkpoints")
    recipe = read_recipe(update.body)
    assert recipe.checkpoints is not None and len(recipe.checkpoints.roots) >= 1
    value = cbor.decode(update.body)
    value[5][1] = bytes(32) + value[5][1][32:]
    other = Container(update.preamble, update.header, {}, (), cbor.encode(value), update.commit, update.signature)
    _, parent = parent_of("recipe-updates", "8-checkpoints")
    with pytest.raises(RootMismatch):
        rebuild(other, parent, bases("recipe-updates"), prove_checkpoints=True)
    assert rebuild(other, parent, bases("recipe-updates")).root == version("recipe-updates", "8-checkpoints").root


def test_undo_is_the_base() -> None:
    """The inverse of a squash takes the model back to its base."""
    for folder, name in (("updates", "9-undo-squash"), ("exact", "6-undo-squash")):
        assert version(folder, name).root == bases(folder)[0].root


def test_snapshot_on_a_model_that_moved() -> None:
    """A snapshot gives the same root on whatever it is applied."""
    for folder, name in ALL_UPDATES:
        if container(folder, name).header.kind == SNAPSHOT:
            for other in expected(folder):
                again = rebuild(container(folder, name), version(folder, other), bases(folder))
                assert again.root == version(folder, name).root


def test_proofs() -> None:
    """Twenty header proofs, one on the other."""
    wanted = load("proofs/expected.json")
    raw = [(VECTORS / "proofs" / v["file"]).read_bytes() for v in wanted["versions"]]
    chain = proof.read_chain(raw, bytes.fromhex(wanted["base"]), [DEVICE], FLEET)
    assert len(chain) == len(raw) == 20
    for number, (link, v) in enumerate(zip(chain, wanted["versions"], strict=True), 1):
        assert link.commit.hex() == v["commit"]
        assert link.header.root.hex() == v["root"]
        assert v["file"] == f"{number}.bin"
    with pytest.raises(WireError):
        proof.read_chain(raw[1:], bytes.fromhex(wanted["base"]), [DEVICE], FLEET)


def read(name: str) -> records.Record:
    """Read a record of the vectors."""
    return records.read_record((VECTORS / "records" / name).read_bytes())


@pytest.mark.parametrize("wanted", load("records/expected.json"), ids=lambda w: w["file"])
def test_record(wanted: dict[str, Any]) -> None:
    """Every record: kind, role, signature, topic, its one form."""
    record = read(wanted["file"])
    assert (record.kind, records.ROLES[record.role]) == (wanted["kind"], wanted["role"])
    assert record.verify([PUBLIC[record.role]], FLEET) == PUBLIC[record.role]
    assert record.signature == ed25519.sign(
        PRIVATE[record.role], records.domain(record.role), FLEET, record.raw[:-64]
    )
    assert cbor.encode(record.fields) == record.raw[24:-64]
    if record.kind in ("hello", "enrol"):
        assert record.verify_own_key(FLEET) == DEVICE
    with pytest.raises(WrongFleet):
        record.verify([PUBLIC[record.role]], bytes(16))
    topic = topics.topic_of(record)
    assert (topic is None) == (record.kind == "act")
    if topic is not None:
        topics.check_record(topics.read_topic(str(topic)), record)
    if record.kind == "command":
        assert read_body(record) == record.fields["body"]


def test_record_damage() -> None:
    """A flipped bit anywhere in a record is refused."""
    for wanted in load("records/expected.json"):
        raw = bytearray((VECTORS / "records" / wanted["file"]).read_bytes())
        for at in range(0, len(raw), 5):
            raw[at] ^= 1
            with pytest.raises(WireError):
                record = records.read_record(bytes(raw))
                record.verify(PUBLIC.values(), FLEET)
            raw[at] ^= 1


def test_more() -> None:
    """More is ignored, but for critical keys."""
    plain = read("1-hello.bin")
    assert plain.more == {"site": "hall"}
    assert read("7-command.bin").more == {"why": [1, None, {"x": 0.5}]}
    fields = dict(plain.fields) | {"more": {"!site": "hall"}}
    with pytest.raises(NotUnderstood):
        records.read_record(seal(1, fields))
    with pytest.raises(Malformed):
        records.read_record(seal(1, dict(plain.fields) | {"more": {}}))


def seal(role: int, fields: dict[str, Any]) -> bytes:
    """Write a record."""
    content = cbor.encode(fields)
    raw = records.MAGIC + bytes([1, role]) + len(content).to_bytes(2, "little") + FLEET + content
    return raw + ed25519.sign(PRIVATE[role], records.domain(role), FLEET, raw)


def test_unknown_kind() -> None:
    """A kind of a later release is read, and answered."""
    fields = {"kind": "tomorrow", "fleet": "barn", "device": "all", "model": "digits", "at": 1, "number": 7, "x": [1.5]}
    record = records.read_record(seal(2, fields))
    record.verify([PUBLIC[2]], FLEET)
    assert not record.known
    assert answer_not_understood(record) == {"number": 7, "ok": False, "text": "not understood", "body": {}}
    assert answer_not_understood(records.read_record(seal(2, fields | {"number": True})))["number"] == 0


def test_refused_records() -> None:
    """Some faults, by their names."""
    hello = dict(read("0-hello.bin").fields)
    for role, change, error in (
        (2, {}, WrongRole), (1, {"epoch": True}, Malformed), (1, {"epoch": -1}, Malformed), (1, {"device": "all"}, Malformed),
        (1, {"trainers": [2, 1]}, Malformed), (1, {"agent": "a\nb"}, Malformed), (1, {"state": bytes(15)}, Malformed),
        (1, {"later": 1}, Malformed), (1, {"fleet": "-barn"}, Malformed),
    ):
        with pytest.raises(error):
            records.read_record(seal(role, hello | change))


def test_trust() -> None:
    """The two trust records, one after the other, and the keys that they name."""
    root = PUBLIC[6]
    line = keys.write_key("edge-fleet-pub", root + FLEET)
    trust = Trust(keys.read_fleet(line))
    with pytest.raises(BadSignature):
        trust.read(read("2-welcome.bin"))
    first, second = read("20-trust.bin"), read("21-trust.bin")
    trust.take(first)
    for name in ("2-welcome.bin", "3-welcome.bin", "5-command.bin", "17-desired.bin", "10-receipt.bin"):
        trust.read(read(name))
    assert trust.newest == 1700000009
    trust.take(second)
    with pytest.raises(Malformed):
        trust.take(first)
    assert len(trust.keys(records.RECEIPT)) == 2
    trust.newest = second.fields["since"] + second.fields["overlap"] + 1
    assert len(trust.keys(records.RECEIPT)) == 1
    trust.newest = second.fields["until"] + 1
    with pytest.raises(BadSignature):
        trust.read(read("5-command.bin"))


def test_adopt() -> None:
    """Both adopts lead from version 1 of updates to the base's weights."""
    parent = version("updates", "1-delta")
    for name, forgets in (("adopt.bin", True), ("adopt-plain.bin", False)):
        command = read(name)
        command.verify([PUBLIC[3]], FLEET)
        update = read_adopt(command)
        assert update.signature is None
        assert update.header.parent == container("updates", "1-delta").commit == command.fields["parent"]
        state = rebuild(update, parent, bases("updates"))
        assert state.root == bases("updates")[0].root
        assert state.stored == bases("updates")[0].stored
        assert ("forgot" in update.extension) == forgets
        if forgets:
            assert rows.read_forgot(update.extension["forgot"]) == rows.Forgot((3, 8), 0, ())
    with pytest.raises(Malformed):
        read_adopt(read("6-command.bin"))


def test_parts() -> None:
    """The transfer's parts, in any order, and the file that they make."""
    record = read("parts-transfer.bin")
    record.verify([PUBLIC[record.role]], FLEET)
    receiver = transfer.Receiver(record.fields)
    assert receiver.count == 5
    file = bytes(i * i % 251 for i in range(5000))
    nodes = leaves(file, 1024)
    assert tree(nodes) == receiver.tree
    for number in (4, 0, 3, 1, 2):
        raw = (VECTORS / "records" / f"parts-{number}.bin").read_bytes()
        part = transfer.read_part(raw)
        assert part.index == number
        assert list(part.path) == path(number, nodes)
        with pytest.raises(WireError):
            receiver.take(raw[:-1] + bytes([raw[-1] ^ 1]))
        assert receiver.take(raw)
        assert not receiver.take(raw)
    assert receiver.join() == file
    assert receiver.have() == b"\x1f"
    assert sha256(file) == receiver.id
    wanted = read("16-wanted-device.bin").fields["have"]
    offered = transfer.Receiver(read("14-transfer-device.bin").fields)
    assert transfer.read_have(wanted, offered.count) == [True, False, True, False]


def test_links() -> None:
    """The log's links and their signatures."""
    link = links.START
    for item in load("records/links.json"):
        link = link.following(bytes.fromhex(item["entry"]))
        raw, signature = bytes.fromhex(item["link"]), bytes.fromhex(item["signature"])
        assert link.raw == raw
        assert links.verify_link(raw, signature, [PUBLIC[2]], FLEET) == link
        with pytest.raises(BadSignature):
            links.verify_link(raw, signature, [PUBLIC[3]], FLEET)
    assert links.read_link(read("3-welcome.bin").fields["log"]).number == 1


def test_keys() -> None:
    """A key of each kind."""
    lines = load("records/keys.json")
    assert set(lines) == set(keys.DIGITS)
    for kind, line in lines.items():
        raw = keys.read_key(f" {line}\n", kind)
        assert raw == bytes(range(keys.DIGITS[kind] // 2))
        assert keys.write_key(kind, raw) == line
        with pytest.raises(WrongKeyKind):
            keys.read_key(line, "edge-device-pub" if kind != "edge-device-pub" else "edge-device-key")
        with pytest.raises(Malformed):
            keys.read_key(line[:-1], kind)
    fleet = keys.read_fleet(lines["edge-fleet-pub"])
    assert (fleet.root_key, fleet.fleet_id) == (bytes(range(32)), bytes(range(32, 48)))


def test_topics() -> None:
    """Topics that the page names, and some that it refuses."""
    assert topics.read_topic("e1/barn/pi-7/digits/up/hello").leaf == "hello"
    record = read("20-trust.bin")
    for text in ("e1/demo/pi-7/all/dn/trust", "e1/demo/all/all/dn/trust"):
        topics.check_record(topics.read_topic(text), record)
    for text in (
        "e1/barn/pi-7/digits/up", "e2/barn/pi-7/digits/up/hello", "e1/barn/pi-7/digits/up/x", "e1/barn/pi-7/all/up/hello",
        "e1/barn/all/digits/up/hello", "e1/barn/pi-7/digits/dn/trust", "e1/Barn/pi-7/digits/up/hello",
    ):
        with pytest.raises(Malformed):
            topics.read_topic(text)
    with pytest.raises(Malformed):
        topics.check_record(topics.read_topic("e1/demo/pi-7/digits/up/rsp"), read("0-hello.bin"))


def test_adopts_of_other_classes() -> None:
    """One of kind 2, and one of a lattice of 16-bit types: both lead back to their base."""
    for wanted in load("adopts/expected.json"):
        command = records.read_record((VECTORS / "adopts" / wanted["file"]).read_bytes())
        command.verify([PUBLIC[3]], FLEET)
        update = read_adopt(command)
        assert (KINDS[update.header.kind], update.header.parent) == (wanted["kind"], command.fields["parent"])
        state = rebuild(update, version(wanted["folder"], wanted["on"]), bases(wanted["folder"]))
        assert (state.root.hex(), state.root_proof.hex()) == (wanted["root"], wanted["root_proof"])
        assert hashlib.sha256(b"".join(state.stored)).hexdigest() == wanted["stored_sha256"]


def test_takes() -> None:
    """Updates that came in parts lead from the base to a version: of kind 2, of every class, and a snapshot in other units."""
    kinds = []
    for wanted in load("takes/expected.json"):
        folder, name = VECTORS / "takes", wanted["name"]
        command = records.read_record((folder / f"{name}.bin").read_bytes())
        command.verify([PUBLIC[3]], FLEET)
        assert read_body(command) == command.fields["body"]
        described = records.read_record((folder / f"{name}-transfer.bin").read_bytes())
        described.verify([PUBLIC[2]], FLEET)
        check_taken(command, described)
        receiver = transfer.Receiver(described.fields)
        assert all(receiver.take((folder / f"{name}-part-{n}.bin").read_bytes()) for n in range(wanted["parts"]))
        data = (folder / f"{name}-update.bin").read_bytes()
        assert receiver.join() == data and receiver.id == command.fields["body"]["id"]
        update = read_take(command, data)
        kinds.append(KINDS[update.header.kind])
        state = rebuild(update, bases(wanted["folder"])[0], bases(wanted["folder"]))
        assert (state.root.hex(), state.root_proof.hex()) == (wanted["root"], wanted["root_proof"])
        assert hashlib.sha256(b"".join(state.stored)).hexdigest() == wanted["stored_sha256"]
    assert kinds == ["exact", "delta", "snapshot"] == [wanted["kind"] for wanted in load("takes/expected.json")]


def test_pieces_of_leaves() -> None:
    """What a device answers to `leaf` are bytes of the leaf with the digest that the command names."""
    for wanted in load("leaf/expected.json"):
        command = records.read_record((VECTORS / "leaf" / wanted["file"]).read_bytes())
        command.verify([PUBLIC[3]], FLEET)
        body = read_body(command)
        stored = bytes(version(wanted["folder"], wanted["on"]).stored[wanted["tensor"]])
        leaf = stored[wanted["leaf"] * 65_536 :][:65_536]
        assert body is not None and body["digest"] == hashlib.sha256(b"\0" + leaf).digest()
        assert (len(leaf), hashlib.sha256(leaf).hexdigest()) == (wanted["of"], wanted["stored_sha256"])
        answer = records.read_record((VECTORS / "leaf" / wanted["answer"]).read_bytes())
        answer.verify([PUBLIC[1]], FLEET)
        assert answer.fields["body"] == {"bytes": leaf[body["start"] :][:32_768], "of": len(leaf)}


def test_unknown_kinds_of_the_vectors() -> None:
    """Records of later kinds, and what is answered to them."""
    numbers = {name: number for number, name in records.ROLES.items()}
    for wanted in load("unknown-kinds/expected.json"):
        record = records.read_record((VECTORS / "unknown-kinds" / wanted["file"]).read_bytes())
        record.verify([PUBLIC[numbers[wanted["role"]]]], FLEET)
        answer = records.read_record((VECTORS / "unknown-kinds" / wanted["answer"]).read_bytes())
        answer.verify([PUBLIC[numbers[wanted["answered_by"]]]], FLEET)
        assert not record.known
        for key, value in answer_not_understood(record).items():
            assert answer.fields[key] == value
        assert answer.fields["number"] == wanted["number"]


def runs_of(value: object) -> list[list[int]]:
    """Return the runs under a key of `more`, as the page says them; none for another form."""
    out = []
    for one in value if isinstance(value, list) and len(value) <= 32 else []:
        if not (isinstance(one, list) and len(one) == 3 and all(type(n) is int for n in one)):
            return []
        if not (0 < one[0] < 2**32 and 1 <= one[1] <= one[2] < 2**62):
            return []
        out.append(one)
    return out


def test_agreement() -> None:
    """What a hello asks about single numbers, and what answers it."""
    numbers = {name: number for number, name in records.ROLES.items()}
    for wanted in load("agreement/expected.json"):
        record = records.read_record((VECTORS / "agreement" / wanted["file"]).read_bytes())
        record.verify([PUBLIC[numbers[wanted["role"]]]], FLEET)
        more = record.fields["more"]
        taken: dict[str, object] = {key: runs for key in ("lost", "dropped", "unsure", "missing") if (runs := runs_of(more.get(key)))}
        for key, size in (("nonce", 16), ("witness", 40), ("key", 32)):
            value = more.get(key)
            if isinstance(value, bytes) and len(value) == size and (size != 40 or 0 < int.from_bytes(value[:8], "little") < 2**63):
                taken[key] = value.hex()
        assert taken == wanted["taken"], wanted["file"]


def test_certificates_of_the_vectors() -> None:
    """Which certificate a hello says, and which a welcome brings."""
    numbers = {name: number for number, name in records.ROLES.items()}
    for wanted in load("renewal/expected.json"):
        record = records.read_record((VECTORS / "renewal" / wanted["file"]).read_bytes())
        record.verify([PUBLIC[numbers[wanted["role"]]]], FLEET)
        value = record.fields["more"].get("certificate")
        fits = range(32, 33) if "held" in wanted else range(33, 8193)
        taken = value.hex() if isinstance(value, bytes) and len(value) in fits else ""
        assert taken == wanted["held" if "held" in wanted else "brought"], wanted["file"]


def test_claims_of_the_vectors() -> None:
    """For which serial number a hello has its claim, and what a welcome says against it."""
    numbers = {name: number for number, name in records.ROLES.items()}
    for wanted in load("claims/expected.json"):
        record = records.read_record((VECTORS / "claims" / wanted["file"]).read_bytes())
        record.verify([PUBLIC[numbers[wanted["role"]]]], FLEET)
        more = record.fields["more"]
        key, least, most, nothing = ("serial", 0, 64, None) if "serial" in wanted else ("claim", 1, 200, "")
        value = more.get(key)
        fits = isinstance(value, str) and least <= len(value) <= most and value.isascii() and value.isprintable()
        assert (value if fits else nothing) == wanted["serial" if "serial" in wanted else "refused"], wanted["file"]


def test_deployments() -> None:
    """A variant, a plan and a decision under their keys; the terms of desireds and the figures of reports."""
    numbers = {name: number for number, name in records.ROLES.items()}

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        return value.hex() if isinstance(value, bytes) else [plain(one) for one in value] if isinstance(value, list) else value

    for wanted in load("deployments/expected.json"):
        data, role = (VECTORS / "deployments" / wanted["file"]).read_bytes(), numbers[wanted["role"]]
        if "says" in wanted:
            magic, says = statements.read_statement(data, [PUBLIC[role]], FLEET)
            assert (magic.hex(), plain(says)) == (wanted["magic"], wanted["says"])
            for other in [n for n in PUBLIC if PUBLIC[n] != PUBLIC[role]]:
                with pytest.raises(BadSignature):
                    statements.read_statement(data, [PUBLIC[other]], FLEET)
            continue
        record = records.read_record(data)
        record.verify([PUBLIC[role]], FLEET)
        if "terms" in wanted:
            terms = statements.read_terms(record.more)
            assert plain(terms) == wanted["terms"]
            if terms["variant"]:
                assert statements.read_statement(terms["variant"], [PUBLIC[6]], FLEET)[1]["commit"] == record.fields["variant"]
        else:
            assert plain(statements.read_figures(record.more)) == wanted["figures"]


def test_overlap() -> None:
    """The second trust record replaces the receipt key; which welcome is good at which time."""
    line = keys.write_key("edge-fleet-pub", PUBLIC[6] + FLEET)
    for wanted in load("overlap/expected.json")["verdicts"]:
        trust = Trust(keys.read_fleet(line))
        for name in wanted["trust"]:
            trust.take(records.read_record((VECTORS / "overlap" / name).read_bytes()))
        trust.newest = wanted["time"]
        record = records.read_record((VECTORS / "overlap" / wanted["record"]).read_bytes())
        if wanted["error"]:
            with pytest.raises(BadSignature):
                trust.read(record)
        else:
            trust.read(record)


def test_topics_of_the_vectors() -> None:
    """A topic of each leaf, and its parts."""
    for wanted in load("topics/expected.json"):
        topic = topics.read_topic(wanted["topic"])
        for part in ("fleet", "device", "model", "way", "leaf"):
            assert getattr(topic, part) == wanted[part]
        assert topics.LEAVES[topic.place] == set(wanted["kinds"])


@pytest.mark.parametrize("item", load("kernels/coder.json"), ids=lambda i: i["what"])
def test_coder(item: dict[str, Any]) -> None:
    """Sections and their stream."""
    shapes = [(s["rows"], s["columns"], len(s["index"])) for s in item["sections"]]
    out = coder.decode(bytes.fromhex(item["stream"]), shapes)
    assert [(s.index, s.value) for s in out] == [(s["index"], s["value"]) for s in item["sections"]]
    assert encode_stream(out).hex() == item["stream"]


@pytest.mark.parametrize("item", load("kernels/refused.json"), ids=lambda i: i["what"])
def test_refused(item: dict[str, Any]) -> None:
    """Streams that no encoder writes, and why."""
    rule = {
        "no encoder writes these bytes": "K[1267]", "the bytes end too early": "K3", "there are more bytes than needed": "K[45]",
    }
    with pytest.raises(Malformed, match=rule[item["reason"]]):
        coder.decode(bytes.fromhex(item["stream"]), [(item["rows"], item["columns"], item["count"])])


@pytest.mark.parametrize("item", load("kernels/checksum.json"), ids=lambda i: str(i["crc32c"]))
def test_checksum(item: dict[str, Any]) -> None:
    """CRC-32C."""
    assert crc32c(bytes.fromhex(item["data"])) == item["crc32c"]


def array(text: str) -> Array:
    """Read an array of the kernels' vectors."""
    dtype, _, digits = text.partition(" ")
    return np.frombuffer(bytes.fromhex(digits), np.dtype(dtype).newbyteorder("<")).astype(np.dtype(dtype))


@pytest.mark.parametrize("number", range(4))
def test_head(number: int) -> None:
    """Trainings, to the bit: weights, slots, losses, outputs."""
    item = load("kernels/head.json")[number]
    head = read_head(cbor.decode(bytes.fromhex(item["recipe"])))
    before = {key: array(text) for key, text in item["before"].items()}
    features = before["features"].astype(np.float32)
    if before["features"].dtype == np.int8:
        features = features * np.float32(item["scale"])
    features = features.reshape(-1, head.features)
    wanted = before["wanted"]
    if wanted.dtype == np.uint32:
        given = Rows(features, wanted.astype(np.int64), None)
    else:
        given = Rows(features, None, wanted.reshape(len(features), -1))
    training = Training(head, given, before["weights"], before["slots"])
    losses = np.array(training.run(head.steps // 3) + training.run(head.steps - head.steps // 3), np.float32)
    results = {
        "weights": training.weights, "slots": training.slots, "losses": losses, "outputs": training.forward(features)[-1],
    }
    for key, text in item["after"].items():
        assert results[key].tobytes() == array(text).tobytes(), key


def kernels(file: str, *names: str) -> list[dict[str, Any]]:
    """Give the calls of some kernels."""
    return [item for item in load(f"kernels/{file}.json") if item["kernel"] in names]


def arrays(item: dict[str, Any], when: str) -> dict[str, Array]:
    """Give the arrays of a call."""
    return {key: array(text) for key, text in item[when].items()}


def test_lattice_apply() -> None:
    """Weights from base and Q, and Q from base and weights."""
    for item in kernels("lattice", "apply_lattice", "weights_from_q", "q_from_weights"):
        before, after, facts = arrays(item, "before"), arrays(item, "after"), item["facts"]
        base = before["base"].view(np.uint32)
        t = Tensor("t", FLOAT32, (base.size,), LATTICE, facts["exponent"])
        q = before["q"].astype(np.int64)
        if item["kernel"] == "q_from_weights":
            start, w = before["base"].astype(np.float64), before["w"].astype(np.float64)
            assert np.array_equal(np.rint((w - start) / 2.0 ** facts["exponent"]), after["q"])
            continue
        if item["kernel"] == "apply_lattice":
            q[before["index"]] += before["value"].astype(np.int64) * facts["step"]
            assert np.array_equal(q, after["q"])
        assert weights_of(t, base, q, facts["exponent"]).tobytes() == after["w"].tobytes()


def test_verbatim_apply() -> None:
    """Bits of base and Q, mod 2^32."""
    for item in kernels("verbatim", "apply_verbatim"):
        before, after = arrays(item, "before"), arrays(item, "after")
        q = before["q"].astype(np.int64)
        q[before["index"]] += before["value"]
        t = Tensor("t", INT32, (q.size,), VERBATIM, 0)
        assert weights_of(t, before["base"], q, 0).tobytes() == after["w"].tobytes()
        assert np.array_equal(q, after["q"])


def test_kernel_fingerprints() -> None:
    """Sums over all entries, and over those of a delta."""
    items = kernels("lattice", "fingerprint", "fingerprint_sparse") + kernels("verbatim", "fingerprint", "fingerprint_sparse")
    assert len(items) == 10
    for item in items:
        before, facts = arrays(item, "before"), item["facts"]
        q = before["q"] if "q" in before else before["value"].astype(np.int64) * facts["step"]
        index = np.arange(q.size) if "q" in before else before["index"].astype(np.int64)
        shift = 32 if facts["verbatim"] else 0
        assert [lane_sum(index + facts["start"], q, lane, shift) for lane in (0, 1)] == item["result"]


def from_bfloat16(bits: Array) -> Array:
    """Read bfloat16."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


@pytest.mark.filterwarnings("ignore")
def test_writer_kernels() -> None:
    """Compute differences, snap and adopt, as the README of the kernels says."""
    for item in kernels("lattice", "differences", "snap", "adopt"):
        before, after, facts = arrays(item, "before"), arrays(item, "after"), item["facts"]
        out = (before["trained"] - before["w"]) + from_bfloat16(before["residual"])
        if item["kernel"] == "differences":
            assert out.tobytes() == after["out"].tobytes()
        elif item["kernel"] == "snap":
            index = np.flatnonzero((np.abs(out) >= np.float32(facts["threshold"])) & (out != 0))
            size = np.abs(out[index]) / (np.float32(facts["step"]) * np.float32(2.0 ** facts["exponent"]))
            value = (np.sign(out[index]) * np.maximum(np.rint(size), np.float32(1))).astype(np.int64)
            q = before["q"][index].astype(np.int64)
            low, high = -((limits.Q_MAX + q) // facts["step"]), (limits.Q_MAX - q) // facts["step"]
            cut = np.clip(value, low, high)
            assert np.array_equal(index[cut != 0], array(item["result"][0]))
            assert np.array_equal(cut[cut != 0], array(item["result"][1]))
            assert np.count_nonzero(cut != value) == item["result"][2]
        else:
            q = before["q"].astype(np.int64)
            q[before["index"]] += before["value"].astype(np.int64) * facts["step"]
            t = Tensor("t", FLOAT32, (q.size,), LATTICE, facts["exponent"])
            w = weights_of(t, before["base"].view(np.uint32), q, facts["exponent"]).view(np.float32)
            rest = (out - (w - before["w"])).view(np.uint32).astype(np.uint64)
            rounded = (rest + 0x7FFF + ((rest >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
            assert np.array_equal(q, after["q"])
            assert w.tobytes() == after["w"].tobytes()
            assert np.array_equal(rounded, after["residual"])


def test_examples_of_the_page() -> None:
    """The stream of the container in short, and the planes of the exact update."""
    section = coder.decode(bytes.fromhex("fd9088"), [(2, 4, 2)])[0]
    assert (section.index, section.value) == ([1, 6], [3, -1])
    assert encode_stream([section]).hex() == "fd9088"
    head = Tensor("head", 2, (4,), 2, 0)
    raw = bytes.fromhex("02000000" "0100000109" "020000010201" "00000000")
    assert planes.differences(raw, head).tolist() == [1, 0, 0, -1]


def test_streams_written_again() -> None:
    """Every stream of every update, written once more, has the same bytes."""
    for folder, name in ALL_UPDATES:
        update = container(folder, name)
        coded = [row for row in update.rows if row.codec == 1]
        start = next(b for b in bases(folder) if b.manifest.schema_id == update.header.schema_id)
        stream = update.body[: len(update.body) - sum(row.count for row in update.rows if row.codec == 2)]
        if update.header.kind != RECIPE:
            shapes = [(*start.manifest.tensors[row.tensor].matrix, row.count) for row in coded]
            assert encode_stream(coder.decode(stream, shapes)) == stream


def test_ordered_of_the_page() -> None:
    """The numbers that the page names."""
    t = Tensor("t", 2, (4,), 2, 0)
    signed = ordered(np.array([0xBC00, 0x8000, 0, 0x3C00], np.uint16), t)
    assert [int(x) - 65536 if x > 32767 else int(x) for x in signed] == [-15361, -1, 0, 15360]


CARDS = load("cards/expected.json")


def card(name: str) -> cards.Card:
    """Read one data card."""
    return cards.read_card((VECTORS / "cards" / name).read_bytes())


@pytest.mark.parametrize("wanted", CARDS["cards"], ids=lambda w: w["file"])
def test_card(wanted: dict[str, Any]) -> None:
    """What a card holds, and its one form; a flipped bit is another card or none."""
    raw = (VECTORS / "cards" / wanted["file"]).read_bytes()
    read_card = cards.read_card(raw)
    assert read_card.encode() == raw
    assert (read_card.samples, list(read_card.loss), read_card.tags) == (wanted["samples"], wanted["loss"], wanted["tags"])
    assert {str(label): n for label, n in read_card.labels.items()} == wanted["labels"]
    assert ([] if read_card.hours is None else [read_card.hours.get(hour, 0) for hour in range(24)]) == wanted["hours"]
    assert {name: list(pair) for name, pair in read_card.entries.items()} == wanted["entries"]
    for sketch, channel in zip(read_card.channels, wanted["channels"], strict=True):
        for key in ("name", "centre", "scale", "bound", "count", "missing", "level"):
            assert getattr(sketch, key) == channel[key], key
        assert (str(sketch.sum), str(sketch.squares)) == (channel["sum"], channel["squares"])
        assert {str(key): n for key, n in sketch.buckets.items()} == channel["buckets"]
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        try:
            assert cards.read_card(changed).encode() == changed
        except WireError as error:
            assert isinstance(error, Malformed)


def test_merged_cards() -> None:
    """Two cards, and the card of both, in either order."""
    for wanted in CARDS["merged"]:
        a, b = (card(name) for name in wanted["of"])
        assert cards.merge(a, b).encode() == cards.merge(b, a).encode() == card(wanted["file"]).encode()


def refused_files() -> set[str]:
    """Name the files that the negative vectors list, and those that they are read with."""
    out = set()
    for index in VECTORS.glob("refused/*/index.json"):
        folder = f"refused/{index.parent.name}"
        out.add(f"{folder}/index.json")
        for vector in json.loads(index.read_text()):
            held = vector.get("with", {})
            names = [vector["file"], *held.get("trust", []), *(held[key] for key in ("transfer", "update", "take") if key in held)]
            out |= {f"{folder}/{name}" for name in names}
    return out


def test_every_vector_was_read() -> None:
    """No file of any folder is left out."""
    read_files = {f"{folder}/{name}.bin" for folder, name in ALL_UPDATES}
    for folder in CHAINS:
        read_files |= {f"{folder}/expected.json"}
        for name, base in load(f"{folder}/expected.json")["bases"].items():
            read_files |= {f"{folder}/{name}.bin", f"{folder}/{base['manifest']}"}
    read_files |= {f"proofs/{v['file']}" for v in load("proofs/expected.json")["versions"]} | {"proofs/expected.json"}
    read_files |= {f"records/{v['file']}" for v in load("records/expected.json")} | {"records/expected.json"}
    read_files |= {f"records/parts-{n}.bin" for n in range(5)}
    read_files |= {
        f"records/{n}" for n in ("parts-transfer.bin", "adopt.bin", "adopt-plain.bin", "keys.json", "links.json")
    }
    read_files |= {f"kernels/{n}.json" for n in ("coder", "refused", "checksum", "head", "lattice", "verbatim")}
    for folder, named in (("adopts", ("file",)), ("leaf", ("file", "answer")), ("unknown-kinds", ("file", "answer"))):
        read_files |= {f"{folder}/{row[name]}" for row in load(f"{folder}/expected.json") for name in named}
        read_files |= {f"{folder}/expected.json"}
    for taken in load("takes/expected.json"):
        kinds = ("", "-update", "-transfer", *(f"-part-{n}" for n in range(taken["parts"])))
        read_files |= {f"takes/{taken['name']}{kind}.bin" for kind in kinds} | {"takes/expected.json"}
    read_files |= {f"agreement/{row['file']}" for row in load("agreement/expected.json")} | {"agreement/expected.json"}
    read_files |= {f"deployments/{row['file']}" for row in load("deployments/expected.json")} | {"deployments/expected.json"}
    read_files |= {f"renewal/{row['file']}" for row in load("renewal/expected.json")} | {"renewal/expected.json"}
    read_files |= {f"claims/{row['file']}" for row in load("claims/expected.json")} | {"claims/expected.json"}
    verdicts = load("overlap/expected.json")["verdicts"]
    read_files |= {f"overlap/{name}" for row in verdicts for name in [row["record"], *row["trust"]]} | {"overlap/expected.json"}
    read_files |= {"topics/expected.json", "cards/expected.json"} | {f"cards/{wanted['file']}" for wanted in CARDS["cards"]}
    there = {str(p.relative_to(VECTORS)) for p in VECTORS.rglob("*") if p.suffix in (".bin", ".json")}
    assert there == read_files | refused_files()


def test_the_decoder_knows_nothing_of_the_project() -> None:
    """It takes numpy, cryptography and the standard library, and of the project not a line."""
    folder = Path(__file__).parent / "stranger"
    for module in folder.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or top in ("numpy", "cryptography"), f"{module.name} imports {name}"


def test_commit_is_of_its_parts() -> None:
    """The commit, computed once more from a container's parts."""
    update = container("updates", "1-delta")
    raw = (VECTORS / "updates" / "1-delta.bin").read_bytes()
    at = 32 + update.preamble.header
    end = at + update.preamble.extension
    assert commit_of(raw[:32], raw[32:at], sha256(raw[at:end]), sha256(raw[end:-96])) == update.commit
    assert update.header.kind == DELTA != EXACT
    with pytest.raises(DigestMismatch):
        read_container(raw[:40] + bytes([raw[40] ^ 1]) + raw[41:])


def library_says(key: bytes, message: bytes, signature: bytes) -> bool:
    """Ask the library."""
    try:
        ed25519.verify([key], b"", b"", message, signature)
    except BadSignature:
        return False
    return True


def test_signature_step_by_step() -> None:
    """The page's own steps agree with the library, on signatures of every folder."""
    for folder in CHAINS:
        update = next(container(folder, name) for name in expected(folder))
        assert update.signature is not None
        message = ed25519.UPDATE + FLEET + update.commit
        assert plain.check(DEVICE, message, update.signature)
        late = int.from_bytes(update.signature[32:], "little") + plain.L
        for signature in (update.signature[:32] + late.to_bytes(32, "little"), bytes(64)):
            assert not plain.check(DEVICE, message, signature)
            assert not library_says(DEVICE, message, signature)


def small_order_keys() -> list[bytes]:
    """Give all points of order 1, 2, 4 and 8 in all their forms."""
    torsion = next(
        t for y in range(2, 99) if (a := plain.decode(y.to_bytes(32, "little")))
        and plain.times(4, t := plain.times(plain.L, a)) != plain.IDENTITY
    )
    keys_out = set()
    for n in range(8):
        x, y = plain.times(n, torsion)
        for form in (y, y + plain.P):
            for sign in (x & 1, 1) if x == 0 else (x & 1,):
                if form < 1 << 255:
                    keys_out.add((form | sign << 255).to_bytes(32, "little"))
    return sorted(keys_out)


def test_small_order() -> None:
    """Keys of small order are not refused, in none of their forms, by the page's steps and by the library."""
    keys_out = small_order_keys()
    assert len(keys_out) == 14
    for key in keys_out:
        point = plain.decode(key)
        assert point is not None
        minus = (plain.P - point[0]) % plain.P, point[1]
        good = 0
        for s in range(1, 40):
            signature = plain.encode(plain.add(plain.times(s, plain.BASE), plain.times(s % 8, minus)))
            signature += s.to_bytes(32, "little")
            verdict = plain.check(key, b"message", signature)
            assert verdict == library_says(key, b"message", signature)
            good += verdict
        assert good
