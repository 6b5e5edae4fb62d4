"""The page of the wire format says what is packed: tables, numbers, limits, topics and worked examples."""

from __future__ import annotations

import re
import struct
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from modelwire import limits
from modelwire.lattice.state import ModelState
from modelwire.update import container, planes
from modelwire.update.manifest import parse_manifest
from modelwire.update.sections import Kind
from modelwire.wire import parts, records, signing, topics
from tests.house.pages import WIRE, rows, section
from tests.keys import FLEET_ID
from tests.modelwire.models import exact_update

FORMATS = {
    ("Container", "Preamble"): container._PREAMBLE,
    ("Container", "Header"): container._HEADER,
    ("Container", "Section table"): container._SECTION,
    ("Records", None): records._HEAD,
    ("Parts", None): parts._HEAD,
}


@pytest.mark.parametrize(("titles", "form"), FORMATS.items(), ids=lambda v: str(v) if isinstance(v, tuple) else "")
def test_the_byte_tables_are_the_structures_that_are_packed(titles: tuple[str, str | None], form: struct.Struct) -> None:
    table = rows(section(WIRE, titles[1] or titles[0]))
    at, sizes = 0, [n for one in re.findall(r"\d*[a-zA-Z]", form.format.lstrip("<")) for n in field_sizes(one)]
    assert [int(row[1]) for row in table] == sizes
    for row in table:
        assert int(row[0]) == at, row
        at += int(row[1])
    assert at == form.size


def field_sizes(one: str) -> list[int]:
    """Return the bytes of each field that one item of a struct format stands for: "3I" is three fields, "32s" is one."""
    count, code = re.fullmatch(r"(\d*)([a-zA-Z])", one).groups()  # type: ignore[union-attr]
    return [int(count or 1)] if code == "s" else [struct.calcsize("<" + code)] * int(count or 1)


def test_the_magic_numbers_are_the_documented_ones() -> None:
    for magic in (container.MAGIC, records.MAGIC, parts.MAGIC):
        assert f"`{magic.hex(' ').upper()}`" in WIRE
    for domain in (signing.UPDATE, signing.RECORD):
        assert f"`{domain[:-1].decode()}` and a zero byte" in WIRE and domain[-1] == 0
    assert f"The smallest container has {container.SMALLEST} bytes" in WIRE
    assert all(f"{kind.value} {kind.name.lower()}" in section(WIRE, "Header") for kind in Kind)


def test_the_limits_are_the_documented_ones() -> None:
    documented = {row[0].strip("`"): int(row[1].replace(",", "")) for row in rows(section(WIRE, "Limits"))}
    assert documented == {f.name: getattr(limits.DEFAULT, f.name) for f in fields(limits.Limits)}
    fixed = re.findall(r"(-?\d[\d,]*)[^\d]*?\(`([A-Z_]+)`\)", section(WIRE, "Limits"))
    named = {name: int(value.replace(",", "")) for value, name in fixed}
    assert named == {n: v for n, v in vars(limits).items() if n.isupper() and isinstance(v, int) and n not in ("KIB", "MIB")}


def test_the_records_have_the_documented_fields() -> None:
    words: dict[str, Any] = {"str": "text", "int": "integer", "bytes": "bytes", "bool": "true or false", "Level": "text"}
    common = [f.name for f in fields(records.Record)]
    documented = dict(re.findall(r"^\| `([a-z]+)` \| (`.*) \|$", section(WIRE, "Records"), re.M))
    assert set(documented) == set(records.KINDS)
    for kind, cls in records.KINDS.items():
        own = [f for f in fields(cls) if f.name not in common]
        told = re.findall(r"(?:^|· )`([a-z_]+)` (text|integer|bytes|true or false)(?: (\d+))?", documented[kind])
        assert [(name, word) for name, word, _ in told] == [(f.name, words[str(f.type)]) for f in own]
        for name, _, size in told:
            if size and name in records._LENGTHS:
                assert int(size) == records._LENGTHS[name]


def test_the_topics_are_the_documented_ones() -> None:
    leaves = [row[0].strip("`") for row in rows(section(WIRE, "Topics"))]
    assert leaves == [f"up/{leaf}" for leaf in topics.UP] + [f"dn/{leaf}" for leaf in topics.DOWN]
    assert f"`{topics.all_up('0').replace('0', '{fleet}')}`" in WIRE
    assert f"`{topics.all_down('0', '9').replace('0', '{fleet}').replace('9', '{device}')}`" in WIRE


def test_the_worked_example_reads_as_it_says_and_is_written_again() -> None:
    text = section(WIRE, "Worked example")
    manifest_bytes, update = (bytes.fromhex(block) for block in re.findall(r"(?:^ {4}[0-9a-f ]+\n)+", text, re.M))
    manifest = parse_manifest(manifest_bytes)
    assert f"`{manifest.commit.hex()}`" in text
    base = np.array([0.5, -0.25, 1, -0.0, 0.125, 0.75, -1, 0], np.float32)
    state = ModelState.of_base(manifest, [base])

    read = container.parse(update)
    key = signing.PrivateKey(bytes(range(32)))
    read.verify(key.public, FLEET_ID)
    sections = read.sections(manifest.schema)
    state.apply(read.header.kind, sections, expect=read.header.fingerprint)

    assert read.header.parent == manifest.commit and read.header.root == state.root
    assert f"is then\n{', '.join(f'{w:.8g}' for w in state.weights[0].tolist())}.".replace("-0,", "-0.0,") in text
    assert f"`{read.stream.hex()}`" in text and f"this update has {len(update)}\nbytes" in text
    assert container.seal(read.header, sections, manifest.schema, key, FLEET_ID).data == update


def test_the_worked_exact_update_reads_as_it_says_and_is_written_again() -> None:
    text = section(WIRE, "An exact update")
    manifest_bytes, update = (bytes.fromhex(block) for block in re.findall(r"(?:^ {4}[0-9a-f ]+\n)+", text, re.M))
    manifest, key = parse_manifest(manifest_bytes), signing.PrivateKey(bytes(range(32)))
    state = ModelState.of_base(manifest, [np.array([1, -2, 0.5, 0], np.float32)])
    trained = [np.array([1 + 2**-10, -2, 0.5, -0.0], np.float32)]
    kind, sections, _ = exact_update(state, trained)

    read = container.parse(update)
    state.apply_container(read)

    assert state.weights[0].tobytes() == trained[0].tobytes() and state.root == read.header.root
    assert "1.0009766, -2, 0.5, -0:" in text and f"this update has {len(update)} bytes" in text
    assert bytes(read.planes).hex() == "".join(re.findall(r"`((?:[0-9a-f]{2})+(?: [0-9a-f]+)?)`[:;]", text)).replace(" ", "")
    assert container.seal(read.header, sections, manifest.schema, key, FLEET_ID).data == update and kind is read.header.kind
    assert f"{planes.BLOCK:,} entries" in WIRE
