"""The golden records beside those of make.py: adopts and takes of every class, unknown kinds, overlapping keys, topics and their kinds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from modelwire import storage
from modelwire.lattice.between import difference
from modelwire.lattice.replay import kind_of
from modelwire.merkle import LEAF_BYTES
from modelwire.merkle import leaf as leaf_digest
from modelwire.update.container import parse, unsigned
from modelwire.update.header import Header
from modelwire.update.sections import Kind
from modelwire.wire import claims, numbers, parts, records, renewal, topics
from modelwire.wire.commands import PIECE_MAX, Adopt, Leaf, Take
from modelwire.wire.records import NOT_UNDERSTOOD, Command, Response, Welcome
from modelwire.wire.routes import CARRIES
from modelwire.wire.signing import Role
from modelwire.wire.welcome import KEY, key_in
from tests.keys import FLEET_ID
from tests.modelwire import golden

from . import barn, make_deployments
from .folder import WIRE_1, stored

KEYS = """
Of the device the private key is `00 01 02 .. 1f`; of the root, receipt, command and director 32 bytes `f1`, `f2`, `f3` and `f4`.
The fleet id is `00 01 02 .. 0f`. Files are only added, never changed.
"""
ADOPTS = f"""\
# Golden commands `adopt`, wire 1

Each `.bin` is one command whose update stands on the container `on` of the golden folder `folder` and leads back to that folder's base:
`exact.bin` is of kind 2, `mixed.bin` a delta of tensors of every type and class, those of 16 bits on the lattice among them.
`expected.json` has the root, the root proof, and the SHA-256 of all tensors as stored after it. Digests are hexadecimal.
{KEYS}"""
TAKES = f"""\
# Golden commands `take`, wire 1

Each `NAME.bin` is one command, `NAME-update.bin` the update that it names, and `NAME-transfer.bin` the record that describes it in parts
of 1,024 bytes, `NAME-part-N.bin` the parts. The update stands on the base of the golden folder `folder` and leads to its container `to`:
of kind 2 on an exact base, a delta of tensors of every type and class, and a snapshot, for the units are others than the base's.
`expected.json` has the root, the root proof, and the SHA-256 of all tensors as stored after it. Digests are hexadecimal.
{KEYS}"""
LEAF = f"""\
# Golden commands `leaf`, and the answers to them, wire 1

Each row of `expected.json` is a command `file` and what a device says to it, `answer`, whose head is the container `on` of the golden
folder `folder`: `stored_sha256` is the SHA-256 of the leaf number `leaf` of tensor number `tensor` as it is stored, `of` its bytes.
{KEYS}"""
UNKNOWN = f"""\
# Golden records of kinds that wire 1 does not know, and the answers to them

Each row of `expected.json` is a record `file`, the `role` that says it, and its `answer`: what the other side says to it, in the role
`answered_by`. The answer's names and time are those of the record, where that is of one device and model. A record to all devices has
the answer of the device `pi-7` for its model `digits`.
{KEYS}"""
OVERLAP = f"""\
# Golden trust records of which the second replaces the receipt key, and what is good when, wire 1

`trust-1.bin` names the receipt key, `trust-2.bin` another one (its private key is 32 bytes `f5`) and an overlap of a week;
`trust-3.bin` names that other key alone, without an overlap. `welcome-old.bin` is signed by the first receipt key, `welcome-new.bin` by
the second. Each row of `verdicts` in `expected.json` is a device that took the records `trust`, in this order, holds the newest time
`time`, and is told `record`: it takes it (`error` null) or refuses it.
{KEYS}"""
AGREEMENT = f"""\
# Golden records that say in `more` how single version numbers stand, wire 1

Each row of `expected.json` is a record `file` and the `role` that says it. What a reader takes from its `more` is under the names of the
keys: the runs of numbers as [epoch, first, last], the others in hexadecimal; a key that is not there counts for nothing, since
it is absent or has another form. `hello.bin` asks, `receipt.bin` and `welcome.bin` answer it, `odd.bin` is a hello all whose keys have
another form: it is read, and asks nothing.
{KEYS}"""
RENEWAL = f"""\
# Golden records that say in `more` by which certificate a broker knows a device, wire 1

Each row of `expected.json` is a record `file`, the `role` that says it, and what a reader takes from it: `held` of a hello, `brought` of a
welcome, in hexadecimal; empty where the key has another form.
{KEYS}"""
CLAIMS = f"""\
# Golden records that say in `more` what a claim is for and why it fails, wire 1

Each row of `expected.json` is a record `file`, the `role` that says it, and what a reader takes from it: the `serial` of a hello, null
where the key has another form, or why it was `refused`, of a welcome; empty where the key has another form. The 80 bytes of `claim`
prove nothing.
{KEYS}"""
DEPLOYMENTS = f"""\
# Golden words about deployments, wire 1

`variant.bin`, `plan.bin` and `decision.bin` are statements; of each a row of `expected.json` has its `file`, the `role` whose key has
sealed it, its `magic`, and the map that it `says`. `desired.bin`, `desired-back.bin`, `report.bin` and `report-plain.bin` are records; of
these a row has the `terms` or the `figures` that are in their `more`, empty where they are not there. Bytes are hexadecimal.
{KEYS}"""
TOPICS = """\
# Golden topics, wire 1

Each row of `expected.json` is a topic with its parts, and the kinds of records that it carries; `others` says what else: `container`
or `part`. On `up/card` nothing is read. Files are only added, never changed.
"""


def _folder(name: str, text: str) -> Path:
    folder = WIRE_1 / name
    folder.mkdir()  # never overwrites: vectors are only added
    (folder / "README.md").write_text(text)
    return folder


def _write(folder: Path, said: object) -> None:
    (folder / "expected.json").write_text(json.dumps(said, indent=1) + "\n")


def adopts() -> None:
    """Write commands to take over the base's weights again, on an exact base and on one of every class."""
    folder, rows = _folder("adopts", ADOPTS), []
    for name, on in (("exact", "1-exact"), ("mixed", "1-delta")):
        before, after = golden.state_of(name, on), golden.base(name)
        first, m = parse(golden.data(name, on)), after.manifest
        header = Header(
            first.header.kind, barn.DEVICE_NAME, barn.MODEL, 1, 2, first.commit, m.schema.id, after.root, after.fingerprint
        )
        task = Adopt(unsigned(header, difference(before, after), m.schema))
        command = Command(*barn.WHO, 12, barn.AT + barn.WEEK, barn.STATE, 1, first.commit, task.VERB, task.body())
        (folder / f"{name}.bin").write_bytes(records.encode(command, barn.COMMAND, FLEET_ID))
        rows.append(
            {
                "file": f"{name}.bin", "folder": name, "on": on, "kind": header.kind.name.lower(), "root": after.root.hex(),
                "root_proof": after.root_parts.encode().hex(), "stored_sha256": hashlib.sha256(stored(after)).hexdigest(),
            }
        )  # fmt: skip
    _write(folder, rows)


def takes() -> None:
    """Write commands to take over a version of an older epoch on a fresh state folder, each with its update in parts."""
    folder, rows = _folder("takes", TAKES), []
    for name, to in (("exact", "1-exact"), ("mixed", "1-delta"), ("corners", "2-snapshot")):
        before, after = golden.base(name), golden.state_of(name, to)
        m = after.manifest
        snapshot = before.exponents != after.exponents
        kind = Kind.SNAPSHOT if snapshot else kind_of(after)
        header = Header(
            kind, barn.DEVICE_NAME, barn.MODEL, 2, 1, m.commit, m.schema.id, after.root, after.fingerprint, m.commit if snapshot else b""
        )
        update = unsigned(header, after.snapshot() if snapshot else difference(before, after), m.schema)
        out = parts.describe(update, fleet=barn.FLEET_NAME, device=barn.DEVICE_NAME, model=barn.MODEL, at=barn.AT, part=2048)
        task = Take(out.transfer.id, len(update))
        command = Command(*barn.WHO, 12, barn.AT + barn.WEEK, barn.STATE, 2, m.commit, task.VERB, task.body())
        files = {
            f"{name}.bin": records.encode(command, barn.COMMAND, FLEET_ID), f"{name}-update.bin": update,
            f"{name}-transfer.bin": records.encode(out.transfer, barn.RECEIPT, FLEET_ID, role=Role.RECEIPT),
            **{f"{name}-part-{n}.bin": out.cut(n) for n in range(out.count)},
        }  # fmt: skip
        for file, content in files.items():
            (folder / file).write_bytes(content)
        rows.append(
            {
                "name": name, "folder": name, "to": to, "kind": kind.name.lower(), "parts": out.count, "root": after.root.hex(),
                "root_proof": after.root_parts.encode().hex(), "stored_sha256": hashlib.sha256(stored(after)).hexdigest(),
            }
        )  # fmt: skip
    _write(folder, rows)


def leaf() -> None:
    """Write commands for pieces of leaves, and their answers: a whole leaf in two, the short last one of a tensor, one of 16 bits."""
    folder, rows = _folder("leaf", LEAF), []
    for number, (name, on, tensor, place, start) in enumerate(
        (("large", "1-delta", 0, 1, 0), ("large", "1-delta", 0, 1, PIECE_MAX), ("mixed", "1-delta", 1, 0, 0)), 12
    ):
        state = golden.state_of(name, on)
        data = storage.to_bytes(state.manifest.schema.tensors[tensor].dtype, state.weights[tensor])[place * LEAF_BYTES :][:LEAF_BYTES]
        task = Leaf(tensor, place, start, leaf_digest(data))
        command = Command(*barn.WHO, number, barn.AT + barn.WEEK, barn.STATE, 1, b"", task.VERB, task.body())
        piece = data[start : start + PIECE_MAX]
        answer = Response(*barn.WHO, number, True, f"{len(piece)} bytes of {len(data)}", {"bytes": piece, "of": len(data)})
        (folder / f"{number}.bin").write_bytes(records.encode(command, barn.COMMAND, FLEET_ID))
        (folder / f"{number}-answer.bin").write_bytes(records.encode(answer, barn.DEVICE, FLEET_ID, role=Role.DEVICE))
        rows.append(
            {
                "file": f"{number}.bin", "answer": f"{number}-answer.bin", "folder": name, "on": on, "tensor": tensor, "leaf": place,
                "start": start, "of": len(data), "stored_sha256": hashlib.sha256(data).hexdigest(),
            }
        )  # fmt: skip
    _write(folder, rows)


def unknown_kinds() -> None:
    """Write records of a later release, up and down, with and without a number, to one device and to all."""
    folder, rows = _folder("unknown-kinds", UNKNOWN), []
    without = {key: value for key, value in barn.unknown().items() if key != "number"}
    cases: tuple[tuple[str, Role, Mapping[str, object], int], ...] = (
        ("down", Role.RECEIPT, barn.unknown(), 7),
        ("up", Role.DEVICE, barn.unknown(number=(1 << 63) - 1), (1 << 63) - 1),
        ("without-number", Role.COMMAND, without, 0),
        ("number-too-high", Role.DIRECTOR, barn.unknown(number=1 << 63), 0),
        ("number-of-text", Role.ROOT, barn.unknown(number="7", more={"why": None}), 0),
        ("to-all", Role.RECEIPT, barn.unknown(device="all", model="all"), 7),
    )
    for name, role, content, number in cases:
        (folder / f"{name}.bin").write_bytes(barn.signed(content, role))  # type: ignore[arg-type]
        by = Role.RECEIPT if role is Role.DEVICE else Role.DEVICE
        answer = Response(*barn.WHO, number, False, NOT_UNDERSTOOD, {})
        (folder / f"{name}-answer.bin").write_bytes(records.encode(answer, barn.KEYS[by], FLEET_ID, role=by))
        rows.append(
            {"file": f"{name}.bin", "role": role.name.lower(), "answer": f"{name}-answer.bin", "answered_by": by.name.lower(),
             "number": number}
        )  # fmt: skip
    _write(folder, rows)


def overlap() -> None:
    """Write trust records and welcomes, and which are taken at which time."""
    folder = _folder("overlap", OVERLAP)
    since = barn.AT + 1000
    said = {
        "trust-1.bin": barn.trust(), "trust-2.bin": barn.trust(2, since=since, overlap=barn.WEEK, receipt=barn.NEXT_RECEIPT),
        "trust-3.bin": barn.trust(3, since=since + 500, receipt=barn.NEXT_RECEIPT),
    }  # fmt: skip
    for name, record in said.items():
        (folder / name).write_bytes(records.encode(record, barn.ROOT, FLEET_ID))
    welcome = barn.RECORDS["welcome"]
    assert isinstance(welcome, Welcome)
    for name, key in (("welcome-old.bin", barn.RECEIPT), ("welcome-new.bin", barn.NEXT_RECEIPT)):
        (folder / name).write_bytes(records.encode(welcome, key, FLEET_ID))
    last, rows = since + barn.WEEK, []
    for trust, time, old, new in (
        (1, 0, True, False), (1, last + 1, True, False), (2, 0, True, True), (2, since, True, True), (2, last, True, True),
        (2, last + 1, False, True), (3, 0, True, True), (3, since + 501, False, True),
    ):  # fmt: skip
        for record, good in (("welcome-old.bin", old and trust < 3), ("welcome-new.bin", new)):
            names = [f"trust-{n}.bin" for n in range(1, trust + 1)]
            rows.append({"trust": names, "time": time, "record": record, "error": None if good else "BadSignature"})
    _write(folder, {"verdicts": rows})


def agreement() -> None:
    """Write a hello that asks about numbers, its answers, and a hello whose keys have other forms."""
    folder, rows = _folder("agreement", AGREEMENT), []
    for name, record in barn.agreement().items():
        (folder / f"{name}.bin").write_bytes(records.encode(record, barn.KEYS[record.ROLES[0]], FLEET_ID))
        taken: dict[str, object] = {}
        for key in (numbers.LOST, numbers.DROPPED, numbers.UNSURE, numbers.MISSING):
            if runs := numbers.read(record.more, key):
                taken[key] = [[s.epoch, s.first, s.last] for s in runs]
        if nonce := numbers.nonce_in(record.more):
            taken[numbers.NONCE] = nonce.hex()
        if link := numbers.witness_in(record.more):
            taken[numbers.WITNESS] = link.encode().hex()
        if isinstance(record, Welcome) and (key := key_in(record)):
            taken[KEY] = key.hex()
        rows.append({"file": f"{name}.bin", "role": record.ROLES[0].name.lower(), "taken": taken})
    _write(folder, rows)


def certificates() -> None:
    """Write a hello and a welcome about a certificate, and both with values of other forms."""
    folder, rows = _folder("renewal", RENEWAL), []
    for name, record in barn.renewal_records().items():
        (folder / f"{name}.bin").write_bytes(records.encode(record, barn.KEYS[record.ROLES[0]], FLEET_ID))
        what, read = ("brought", renewal.brought) if isinstance(record, Welcome) else ("held", renewal.held)
        rows.append({"file": f"{name}.bin", "role": record.ROLES[0].name.lower(), what: read(record.more).hex()})
    _write(folder, rows)


def claims_said() -> None:
    """Write hellos with a claim, a welcome that says why it fails, and both with values of other forms."""
    folder, rows = _folder("claims", CLAIMS), []
    for name, record in barn.claim_records().items():
        (folder / f"{name}.bin").write_bytes(records.encode(record, barn.KEYS[record.ROLES[0]], FLEET_ID))
        taken: dict[str, object] = {"serial": claims.serial_in(record.more)}
        if isinstance(record, Welcome):
            taken = {"refused": claims.refusal_in(record.more)}
        rows.append({"file": f"{name}.bin", "role": record.ROLES[0].name.lower(), **taken})
    _write(folder, rows)


def deployments() -> None:
    """Write a variant's statement, a plan, a decision, and what goes to a device and comes back."""
    folder = _folder("deployments", DEPLOYMENTS)
    for name, data in make_deployments.said().items():
        (folder / f"{name}.bin").write_bytes(data)
    _write(folder, make_deployments.rows())


def good_topics() -> None:
    """Write a topic of each leaf, and what comes there."""
    folder, rows = _folder("topics", TOPICS), []
    for (way, leaf), kinds in CARRIES.items():
        models = ("all",) if leaf in topics.OF_NO_MODEL else (barn.MODEL, "0.a_b-c")
        devices = (barn.DEVICE_NAME, "all") if leaf == "trust" else (barn.DEVICE_NAME, "9" * 64)
        for device in devices:
            for model in models:
                others = ["container"] if leaf == "update" else ["part"] if leaf == "part" else []
                rows.append(
                    {
                        "topic": f"e1/{barn.FLEET_NAME}/{device}/{model}/{way}/{leaf}", "fleet": barn.FLEET_NAME, "device": device,
                        "model": model, "way": way, "leaf": leaf, "kinds": [cls.KIND for cls in kinds], "others": others,
                    }
                )  # fmt: skip
    _write(folder, rows)


def main() -> None:
    """Write the folders."""
    for make in (adopts, takes, leaf, unknown_kinds, overlap, good_topics, agreement, certificates, claims_said, deployments):
        make()
