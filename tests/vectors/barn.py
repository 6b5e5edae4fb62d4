"""The fleet `barn` of docs/protocol.md: the keys, the records and the files of its examples and of its negative vectors."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelwire.lattice.state import ModelState
from modelwire.output_head.recipe import HeadLayer, Recipe
from modelwire.output_head.rows import quantized
from modelwire.output_head_settings import OutputHeadSettings
from modelwire.tensors import Schema, TensorSpec
from modelwire.update import container
from modelwire.update.header import Header
from modelwire.update.manifest import Manifest, manifest_for
from modelwire.update.sections import Kind, Section
from modelwire.wire import cbor, claims, keys, log, numbers, parts, records, renewal
from modelwire.wire.records import (
    Act,
    Command,
    Desired,
    Enrol,
    Hello,
    Level,
    Presence,
    Receipt,
    Record,
    Report,
    Response,
    Transfer,
    Trust,
    Wait,
    Wanted,
    Welcome,
)
from modelwire.wire.signing import PrivateKey, Role
from modelwire.wire.welcome import KEY as ANSWERED
from tests.keys import COMMAND, DIRECTOR, FLEET, FLEET_ID, NO_FILE, RECEIPT, ROOT

FLEET_NAME, DEVICE_NAME, MODEL = "barn", "pi-7", "digits"
TOPIC = f"e1/{FLEET_NAME}/{DEVICE_NAME}/{MODEL}"
OF_ALL = f"e1/{FLEET_NAME}/{DEVICE_NAME}/all"
AT = 1_700_000_000
WHO = (FLEET_NAME, DEVICE_NAME, MODEL, AT)
DEVICE = PrivateKey(bytes(range(32)))  # 00 01 .. 1f
STRANGER = PrivateKey(b"\xf6" * 32)
NEXT_RECEIPT, NEXT_ROOT = PrivateKey(b"\xf5" * 32), PrivateKey(b"\xf7" * 32)
OTHER_FLEET = bytes(range(16, 32))
KEYS = {
    Role.DEVICE: DEVICE, Role.RECEIPT: RECEIPT, Role.COMMAND: COMMAND, Role.ACT: COMMAND, Role.DIRECTOR: DIRECTOR, Role.ROOT: ROOT,
}  # fmt: skip
STATE = bytes(range(0xA0, 0xB0))
FILE = bytes(n * n % 251 for n in range(2500))  # what goes in parts: three of them
WEEK = 7 * 86_400
_ENVELOPE = struct.Struct("<4sBBH16s")


def base() -> tuple[Manifest, ModelState]:
    """Return the container page's base: one tensor of 2 x 4."""
    schema = Schema((TensorSpec("dense_kernel", (2, 4)),))
    weights = [np.array([0.5, -0.25, 1, -0.0, 0.125, 0.75, -1, 0], np.float32)]
    manifest = manifest_for(schema, weights, **NO_FILE, exponents={})
    return manifest, ModelState.of_base(manifest, weights)


MANIFEST, BASE = base()


def head_after(state: ModelState, sections: tuple[Section, ...]) -> ModelState:
    """Return the model after a delta."""
    after = state.copy()
    after.apply(Kind.DELTA, sections)
    return after


# Version 1 of the container page: entry 1 moves by 3 steps, entry 6 by -1 step, of 40 units.
FIRST = (Section(0, np.array([1, 6], np.uint32), np.array([3, -1], np.int32), 40, -14),)
HEAD = head_after(BASE, FIRST)


def header(state: ModelState, kind: Kind = Kind.DELTA, **fields: Any) -> Header:
    """Return the header of version 1 on the base, with other `fields`."""
    plain = Header(
        kind, DEVICE_NAME, MODEL, 1, 1, MANIFEST.commit, MANIFEST.schema.id, state.root, state.fingerprint,
        MANIFEST.commit if kind is Kind.SNAPSHOT else b"",
    )  # fmt: skip
    return replace(plain, **fields)


UPDATE = container.seal(header(HEAD), FIRST, MANIFEST.schema, DEVICE, FLEET_ID)
BACK = (Section(0, np.array([6], np.uint32), np.array([1], np.int32), 40, -14),)  # what an `adopt` asks for
ADOPTED = head_after(HEAD, BACK)


def adopt(**fields: Any) -> bytes:
    """Return the container that a command `adopt` carries, with other `fields` of its header."""
    named = {"parent": UPDATE.commit, "version": 2, **fields}
    return container.unsigned(header(ADOPTED, **named), BACK, MANIFEST.schema)


def adopt_snapshot() -> bytes:
    """Return the same model as a snapshot."""
    return container.unsigned(header(ADOPTED, Kind.SNAPSHOT, parent=UPDATE.commit, version=2), ADOPTED.snapshot(), MANIFEST.schema)


def adopt_recipe() -> bytes:
    """Return an update of kind recipe for the same model."""
    rows = quantized(np.ones((2, 4), np.float32), labels=np.array([0, 1], np.uint32))
    recipe = Recipe(OutputHeadSettings(4, 2, 1), (HeadLayer(0, 1, False),), rows)
    return container.unsigned(header(ADOPTED, Kind.RECIPE, parent=UPDATE.commit, version=2), (), MANIFEST.schema, recipe=recipe.encode())


def take(update: bytes, **changed: Any) -> dict[str, cbor.Value]:
    """Return the map of a command to take this update over, with other fields."""
    said = {"id": sha(update), "size": len(update)}
    return values("command", **{"verb": "take", "parent": UPDATE.commit, "body": said, **changed})


def trust(
    number: int = 1, *, since: int = AT, until: int = 0, overlap: int = 0, root: PrivateKey = ROOT, receipt: PrivateKey = RECEIPT
) -> Trust:
    """Return a trust record of the fleet."""
    return Trust(FLEET_NAME, "all", "all", AT, number, since, until, overlap, root.public, receipt.public, COMMAND.public, DIRECTOR.public)


def outgoing() -> parts.Outgoing:
    """Return FILE as it goes in parts of 1,024 bytes."""
    return parts.describe(FILE, fleet=FLEET_NAME, device=DEVICE_NAME, model=MODEL, at=AT, part=2048, what="bundle")


OUT = outgoing()
DIGEST = UPDATE.commit
RECORDS: dict[str, Record] = {
    "hello": Hello(
        *WHO, DEVICE.public, STATE, MANIFEST.commit, 0, 0, MANIFEST.commit, "litert 2.3.0; aarch64; auto; 1 thread", "0.1.0", 1, b"", b"",
        False, (1,),
    ),
    "welcome": Welcome(*WHO, STATE, "ok", 1, 0, MANIFEST.commit, 0, 0, AT + 2, b"", 0, b"", b"", 0, (1,)),
    "wait": Wait(*WHO, 90, "the disk is nearly full"),
    "command": Command(*WHO, 7, AT + WEEK, STATE, 1, b"", "snapshot", {}),
    "response": Response(*WHO, 7, True, "snapshot @2", {}),
    "receipt": Receipt(*WHO, 1, 1, DIGEST, Level.STORED, "", b"", 0, 0),
    "presence": Presence(*WHO, 4, True),
    "transfer": OUT.transfer,
    "wanted": Wanted(*WHO, OUT.transfer.id, b"\x05"),
    "desired": Desired(*WHO, 3, AT + WEEK, DIGEST, 4096, 2),
    "report": Report(*WHO, 3, DIGEST, "soaking", 2, "active", 4096, 0.875, None, ""),
    "enrol": Enrol(FLEET_NAME, DEVICE_NAME, "all", AT, DEVICE.public, b"token", "10000000abcdef", "0.1.0"),
    "trust": trust(),
    "act": Act(FLEET_NAME, DEVICE_NAME, "all", AT, 1, "admit", DEVICE.public),
}  # fmt: skip
LEAF = {
    "hello": "up/hello", "welcome": "dn/cmd", "wait": "dn/cmd", "command": "dn/cmd", "receipt": "dn/receipt", "presence": "up/state",
    "desired": "dn/desired", "report": "up/report", "enrol": "up/enrol", "trust": "dn/trust",
}  # fmt: skip


def values(kind: str, **changed: cbor.Value) -> dict[str, cbor.Value]:
    """Return the map of a record of this kind, with changed or further fields."""
    record = RECORDS[kind]
    read = cbor.decode(records.encode(record, DEVICE, FLEET_ID)[_ENVELOPE.size : -64])
    assert isinstance(read, dict)
    return {**read, **changed}


def unknown(**changed: cbor.Value) -> dict[str, cbor.Value]:
    """Return the map of a record of a kind that wire 1 does not know."""
    return {"kind": "tomorrow", "fleet": FLEET_NAME, "device": DEVICE_NAME, "model": MODEL, "at": AT, "number": 7, "what": [1.5], **changed}


def signed(
    content: Mapping[str, cbor.Value] | bytes, role: Role | None = None, key: PrivateKey | None = None, *, fleet: bytes = FLEET_ID,
    domain: bytes | None = None, bound: bytes | None = None, magic: bytes = records.MAGIC, version: int = records.VERSION,
    number: int | None = None, length: int | None = None,
) -> bytes:  # fmt: skip
    """Return a record, right but for what is said: whose key, domain, fleet id (in the envelope, bound by the signature), head."""
    if role is None:
        assert not isinstance(content, bytes)
        role = records.KINDS[str(content["kind"])].ROLES[0]
    body = content if isinstance(content, bytes) else cbor.encode(dict(content))
    body = _ENVELOPE.pack(magic, version, role if number is None else number, len(body) if length is None else length, fleet) + body
    return body + (key or KEYS[role]).sign(role.domain if domain is None else domain, fleet if bound is None else bound, body)


def transfer(**changed: Any) -> Transfer:
    """Return the transfer of FILE, with other fields."""
    return replace(OUT.transfer, **changed)


def fleet_pub() -> str:
    """Return fleet.pub's line."""
    return keys.write_fleet(FLEET)


def renewal_records() -> dict[str, Record]:
    """Return a hello that says which certificate the device has, a welcome that brings one, and both with values of other forms."""
    hello, welcome = RECORDS["hello"], RECORDS["welcome"]
    chain = b"\x30\x26" + bytes(range(38))  # one element of DER: of what is in it the wire knows nothing
    return {
        "hello": replace(hello, more={renewal.KEY: DIGEST}),
        "welcome": replace(welcome, more={renewal.KEY: chain}),
        "odd-hello": replace(hello, more={renewal.KEY: DIGEST[:31]}),
        "odd-welcome": replace(welcome, more={renewal.KEY: bytes(renewal.CHAIN_MAX + 1)}),
    }


def claim_records() -> dict[str, Record]:
    """Return a hello that says the serial number of its proof, the welcome that says why its claim fails, and others of other forms."""
    hello, welcome = RECORDS["hello"], RECORDS["welcome"]
    asked = replace(hello, claim=bytes(range(80)))
    said = replace(welcome, status="quarantine")
    return {
        "hello": replace(asked, more={claims.SERIAL: "10000000abcdef"}),
        "hello-of-a-board-without-a-number": replace(asked, more={claims.SERIAL: ""}),
        "welcome": replace(said, more=claims.refusal_said("it was for 100 boards, and all are in")),
        "odd-hello": replace(asked, more={claims.SERIAL: "1" * (claims.SERIAL_MAX + 1)}),
        "odd-welcome": replace(said, more={claims.REFUSED: "it has\nexpired"}),
    }


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def agreement() -> dict[str, Record]:
    """Return a hello that asks how numbers stand, its answers, and a hello whose keys have other forms."""
    nonce = {numbers.NONCE: bytes(range(0xD0, 0xE0))}
    hello, welcome, receipt = (RECORDS[kind] for kind in ("hello", "welcome", "receipt"))
    assert isinstance(hello, Hello) and isinstance(welcome, Welcome) and isinstance(receipt, Receipt)
    asks: dict[str, cbor.Value] = {
        **nonce, **numbers.said(numbers.LOST, [numbers.Span(1, 3, 5)]), **numbers.said(numbers.DROPPED, [numbers.Span(1, 7, 7)]),
        **numbers.said(numbers.UNSURE, [numbers.Span(1, 8, 8), numbers.Span(1, 10, 12)]),
        numbers.WITNESS: log.Link(812, DIGEST).encode(),
    }  # fmt: skip
    odd: dict[str, cbor.Value] = {
        numbers.NONCE: b"short", numbers.LOST: [[1, 5, 3]], numbers.DROPPED: [[1, 2]], numbers.UNSURE: [[1, 0, 2], [1, 3, 4]],
        numbers.WITNESS: bytes(40),
    }  # fmt: skip
    asking = replace(hello, epoch=1, version=12, commit=DIGEST)
    return {
        "hello": replace(asking, more=asks),
        "receipt": replace(receipt, version=7, level=Level.REFUSED, reason="version 6, before it, was refused: no", more=nonce),
        "welcome": replace(
            welcome, version=12, head=DIGEST, head_version=2, verified=2,
            more={**nonce, **numbers.said(numbers.MISSING, [numbers.Span(1, 3, 5)])},
        ),
        "odd": replace(asking, more=odd),
        "welcome-of-a-key": replace(welcome, status="quarantine", epoch=0, version=0, head_version=0, more={**nonce, ANSWERED: DIGEST}),
    }  # fmt: skip
