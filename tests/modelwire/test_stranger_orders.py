"""What the pages say of orders, printable characters and cards, where no vector shows it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.modelwire import test_stranger as positive
from tests.modelwire.stranger import cards, cbor, ed25519, fields, keys, records, transfer
from tests.modelwire.stranger.apply import rebuild
from tests.modelwire.stranger.container import PLANES, SNAPSHOT, Row
from tests.modelwire.stranger.errors import (
    BadSignature,
    DigestMismatch,
    Malformed,
    NotUnderstood,
    TooLarge,
    UnknownDevice,
    WireError,
    WrongFleet,
    WrongRole,
)
from tests.modelwire.stranger.judge import standing_in
from tests.modelwire.stranger.manifest import read_manifest
from tests.modelwire.stranger.reading import Centre, read_down
from tests.modelwire.stranger.state import State
from tests.modelwire.stranger.trust import Trust

CRITICAL = {"more": {"!x": 1}}
EMPTY: list[Any] = [3, 0, [], [], {}, [], [], {}]
CHANNEL: list[Any] = ["x", 1, 0, 5, 25, 0, [5, 1]]


def test_printable() -> None:
    """Every character is as the table on the page says."""
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    table = page[page.index("A printable character is any but these") : page.index("controls,\nspaces but the plain one")]
    ends = re.findall(r"\b([0-9A-F]{4,6})(?:\s+to\s+([0-9A-F]{4,6}))?", table)
    assert len(ends) == 18
    there = {n for first, last in ends for n in range(int(first, 16), int(last or first, 16) + 1)}
    assert [n for n in range(0x110000) if fields.printable(chr(n)) == (n in there)] == []
    assert fields.printable("") and not fields.printable("a\n")


def record_of(role: int, values: dict[str, Any], fleet: bytes = positive.FLEET, signed: bool = True) -> bytes:
    """Write a record of a fleet, with a signature or with zeros."""
    content = cbor.encode(values)
    raw = records.MAGIC + bytes([1, role]) + len(content).to_bytes(2, "little") + fleet + content
    return raw + (ed25519.sign(positive.PRIVATE[role], records.domain(role), fleet, raw) if signed else bytes(64))


def trusting() -> Trust:
    """Give a device that has taken the first trust record."""
    trust = Trust(keys.read_fleet(keys.write_key("edge-fleet-pub", positive.PUBLIC[6] + positive.FLEET)))
    trust.take(positive.read("20-trust.bin"))
    return trust


def of(name: str, **changes: Any) -> dict[str, Any]:
    """Give a golden record's fields, some of them changed."""
    return dict(positive.read(name).fields) | changes


def test_order_of_a_record_on_a_device() -> None:
    """Of two faults the earlier step's is named: roles, more, fields, reader's roles, fleet id, signature, content."""
    odd = {"kind": "a\nb", "fleet": "barn", "device": "pi-7", "model": "digits", "at": 1}
    other, topic = bytes(16), "e1/barn/pi-7/digits/dn/receipt"
    for role, values, fleet, signed, error in (
        (1, of("2-welcome.bin", **CRITICAL), other, False, WrongRole),
        (2, of("2-welcome.bin", epoch=-1, **CRITICAL), other, False, NotUnderstood),
        (2, odd | CRITICAL, other, False, NotUnderstood),
        (1, odd, other, False, Malformed),
        (1, of("0-hello.bin", epoch=-1), other, False, Malformed),
        (1, of("0-hello.bin"), other, False, WrongRole),
        (2, of("2-welcome.bin"), other, False, WrongFleet),
        (2, of("2-welcome.bin", epoch=1 << 32), positive.FLEET, False, BadSignature),
        (2, of("2-welcome.bin", epoch=1 << 32), positive.FLEET, True, Malformed),
        (2, of("2-welcome.bin", log=bytes(40)), positive.FLEET, False, BadSignature),
        (6, of("21-trust.bin", until=1), positive.FLEET, False, BadSignature),
        (6, of("21-trust.bin", until=1), positive.FLEET, True, Malformed),
        (2, of("2-welcome.bin") | {"fleet": "barn"}, other, True, WrongFleet),
    ):
        trust = trusting()
        with pytest.raises(error):
            read_down(record_of(role, values, fleet, signed), trust, topic if fleet == other else None)
        assert (trust.number, trust.newest) == (1, 0)


def test_order_of_a_record_at_the_centre() -> None:
    """A transfer: its sizes are looked at behind its signature, P50 before P52 before P53."""
    centre = Centre("barn", positive.FLEET, [positive.DEVICE])
    name, large = "14-transfer-device.bin", 1 << 40
    for changes, fleet, signed, error in (
        ({"size": large}, bytes(16), False, WrongFleet), ({"size": large}, positive.FLEET, False, UnknownDevice),
        ({"size": large, "part_size": 3}, positive.FLEET, True, TooLarge), ({"part_size": 3}, positive.FLEET, True, Malformed),
        ({"what": "base", "size": 600_000_000, "part_size": 1023}, positive.FLEET, True, Malformed),
        ({"what": "base", "size": 600_000_000, "part_size": 1024}, positive.FLEET, True, TooLarge),
        ({"size": 0}, positive.FLEET, True, Malformed),
    ):
        with pytest.raises(error):
            centre.read(record_of(1, of(name, **changes), fleet, signed))
    with pytest.raises(WrongRole):
        centre.read(record_of(2, of("2-welcome.bin"), bytes(16), False))


def test_order_of_a_part() -> None:
    """A copy of a part that is held costs one look-up; the head of a part is looked at whatever it is of."""
    receiver = transfer.Receiver(positive.read("parts-transfer.bin").fields)
    raw = (positive.VECTORS / "records" / "parts-1.bin").read_bytes()
    damaged = raw[:-1] + bytes([raw[-1] ^ 1])
    with pytest.raises(DigestMismatch):
        receiver.take(damaged)
    assert receiver.take(raw) and not receiver.take(damaged)
    assert not receiver.take(raw[:8] + bytes(32) + raw[40:])
    with pytest.raises(Malformed, match="P58"):
        receiver.take(raw[:6] + b"\x0f\0" + bytes(32) + raw[40:])


def manifest_of(tensors: list[list[Any]], **others: Any) -> bytes:
    """Write a manifest."""
    digests = {"file": bytes(32), "root": bytes(32), "tree": bytes(32)}
    return cbor.encode(digests | {"manifest": 1, "size": 1, "tensors": tensors} | others)


def test_order_of_a_manifest() -> None:
    """More before the keys, all rows before the table, the table before names, shapes and entries so far."""
    a, b = ["a", 1, [5], 0, 0], ["b", 1, [5], 0, 0]
    faults: list[tuple[bytes, type[WireError]]] = [
        (manifest_of([a], later=1, **CRITICAL), NotUnderstood), (manifest_of([a], more={}, later=1), Malformed),
        (manifest_of([a, b, b, ["c", 9, [], 0, 0]]), Malformed), (manifest_of([b, a, a, ["\n", 1, [5], 0, 0]]), TooLarge),
        (manifest_of([a, a]), Malformed), (manifest_of([a, ["b\n", 1, [5], 0, 0]]), Malformed),
        (manifest_of([["a", 1, [9], 0, 0], ["b\n", 1, [5], 0, 0]]), TooLarge),
        (manifest_of([["b", 1, [9], 0, 0], a]), Malformed), (manifest_of([["a", 1, [9], 0, 0], ["b", 1, [0], 0, 0]]), TooLarge),
    ]
    with standing_in({"tensors": 3, "elements": 8}):
        for raw, error in faults:
            with pytest.raises(error):
                read_manifest(raw)


def test_units_before_planes() -> None:
    """Pass 1 looks at rows of planes too, where the tensor is not exact; a number that there is not waits for pass 2."""
    manifest = read_manifest(manifest_of([["t", 1, [1], 0, 2]]))
    state = State(manifest, (np.array([8388608.0], np.float32).view(np.uint32),), (np.zeros(1, np.int64),), (2,))
    update = positive.container("updates", "1-delta")
    header = replace(update.header, kind=SNAPSHOT, base=manifest.commit, schema_id=manifest.schema_id)
    rows = (Row(0, PLANES, 1, 0, 0, 1), Row(7, PLANES, 1, 0, 0, 1))
    for taken, rule in ((rows, "C75"), (rows[1:], "C69")):
        with pytest.raises(WireError, match=rule):
            rebuild(replace(update, header=header, rows=taken, body=bytes(2)), state, [state])


CARD_FAULTS: list[tuple[int, list[Any]]] = [
    (0, [2]), (1, [-1, 1 << 53, True]), (2, [[3], [3, -1, 7], [3, 7, -1], [3, 7, -1, -1, 5], [4095, 1, 1], [-1, 1]]),
    (3, [[5, 0], [0, 0, 0], [24, 1]]),
    (4, [{"A": {}}, {"": {}}, {"a": {"": 1}}, {"a": {"x" * 41: 1}}, {"a": {"\n": 1}}, {"a": {"x": -1}}]),
    (5, [[CHANNEL, CHANNEL], [["x", 1, 0, b"\5", 25, 0, []]], [["x", 0, 0, 1, 0, 0, []]], [["x", 1, 0, 0, -1, 0, []]]]),
    (5, [[["x", 1, 0, 0, 0, 58, []]], [["x", 1, 0, 0, 0, 57, [1, 1]]], [["x", 1, 0, 0, b"\0\0\1\0\0\0\0", 0, []]]]),
    (5, [[[*CHANNEL, *axis]] for axis in ((0, 0, 20), (0.0, 0, 19), (-0.0, 0, 19), (1 << 53, 0, 20), (0, 61, 20), (0, 0, 41))]),
    (6, [[0, 0, 0], [1, 1 << 62, 0], [1, 0.5, 0]]), (7, [{"x" * 65: [1, 1]}, {"x": [1]}, {"x": [1, -(1 << 62)]}]),
]


def test_refused_cards() -> None:
    """Some faults of cards, by what the page says of them."""
    assert cards.read_card(cbor.encode(EMPTY)).samples == 0
    for place, values in CARD_FAULTS:
        for value in values:
            with pytest.raises(Malformed):
                cards.read_card(cbor.encode([*EMPTY[:place], value, *EMPTY[place + 1 :]]))
    for place, large in (
        (4, {f"a{n}": {} for n in range(17)}), (4, {"a": {str(n): 1 for n in range(65)}}), (2, [0, *[300] * 2800]),
        (5, [[f"x{n:02}", *CHANNEL[1:]] for n in range(33)]), (7, {str(n): [0, 0] for n in range(65)}),
    ):
        with pytest.raises(TooLarge):
            cards.read_card(cbor.encode([*EMPTY[:place], large, *EMPTY[place + 1 :]]))
