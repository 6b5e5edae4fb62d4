"""The pages of the format say what is packed and read: byte tables, numbers, limits and worked examples."""

from __future__ import annotations

import re
import struct
from dataclasses import fields

import numpy as np
import pytest

from modelwire import limits
from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype
from modelwire.update import container, header, manifest, planes, proof
from modelwire.update.sections import Kind
from modelwire.wire import signing
from tests.house.pages import DOCS, ROOT, rows, section
from tests.keys import FLEET_ID
from tests.modelwire.models import KEY
from tests.vectors import page_examples
from tests.vectors.refused import unnumbered

PAGE = (DOCS / "format" / "container.md").read_text()
TABLES = {"Preamble": header._PREAMBLE, "Header": header._HEADER, "Section table": container._SECTION}


@pytest.mark.parametrize(("title", "form"), TABLES.items(), ids=TABLES)
def test_the_byte_tables_are_the_structures_that_are_packed(title: str, form: struct.Struct) -> None:
    table = [row for row in rows(section(PAGE, title)) if row[0].isdigit() and int(row[0]) < form.size]
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


def test_the_header_proof_has_the_documented_parts() -> None:
    sizes = [row[0] for row in rows(section(PAGE, "Header proof"))]
    assert [int(n) for n in sizes if n.isdigit()] == [4, 4, header.PREAMBLE_BYTES, 32, 32, signing.SIGNATURE_BYTES]
    assert f"`{proof.MAGIC.hex(' ').upper()}`" in section(PAGE, "Header proof")


def test_the_numbers_of_the_wire_are_the_documented_ones() -> None:
    assert PAGE.count(f"`{header.MAGIC.hex(' ').upper()}`") == 2
    domain = signing.UPDATE
    assert f"`{domain[:-1].decode()}` and a zero byte" in PAGE and domain[-1] == 0
    assert f"The smallest container has {container.SMALLEST} bytes" in PAGE
    assert [row[1] for row in rows(section(PAGE, "Kinds"))] == [str(int(kind)) for kind in Kind]
    assert ", ".join(f"{kind.value} {kind.name.lower()}" for kind in Kind) in section(PAGE, "Header")
    assert f"{container.CODEC_RANGE} = range coder, {container.CODEC_PLANES} = planes" in section(PAGE, "Section table")
    assert f"{planes.BLOCK:,} entries" in section(PAGE, "Planes")
    assert f"{container.ENTRIES_PER_BYTE:,}" in section(PAGE, "Reading order")


def test_the_types_have_the_documented_numbers_widths_and_classes() -> None:
    text = section(PAGE, "What the numbers mean")
    types = rows(text[text.index("| type |") :])
    for row, dtype in zip(types, Dtype, strict=True):
        assert row[0] == dtype.name.lower() and [int(n) for n in row[1:3]] == [dtype, dtype.width]
        assert row[4].split(", ") == [c.name.lower() for c in manifest.CLASSES[dtype]]


def test_the_limits_are_the_documented_ones() -> None:
    documented = {row[0].strip("`"): int(row[1].replace(",", "")) for row in rows(section(PAGE, "Limits"))}
    assert documented == {f.name: getattr(limits.DEFAULT, f.name) for f in fields(limits.Limits)}
    fixed = re.findall(r"(-?\d[\d,]*)[^\d]*?\(`([A-Z_]+)`\)", section(PAGE, "Limits"))
    named = {name: int(value.replace(",", "")) for value, name in fixed}
    assert named == {n: v for n, v in vars(limits).items() if n.isupper() and isinstance(v, int) and n not in ("KIB", "MIB")}
    assert f"{limits.LARGE.container:,}" in section(PAGE, "Limits")


def test_what_a_reader_must_refuse_is_said_in_numbered_rules_alone() -> None:
    assert unnumbered() == []


@pytest.mark.parametrize("page", page_examples.EXAMPLES)
def test_the_examples_on_the_page_are_what_is_sealed_today(page: str) -> None:
    text = (ROOT / page).read_text()
    assert page_examples.filled(page, text) == text, "run python -m tests.vectors.page_examples"
    assert sorted(re.findall(r"<!-- example: ([a-z-]+) -->", text)) == sorted(page_examples.EXAMPLES[page])


def blocks(text: str) -> list[bytes]:
    """Return the bytes of every indented block of hexadecimal."""
    return [bytes.fromhex(found) for found in re.findall(r"(?:^ {4}[0-9a-f ]+\n)+", text, re.M)]


def test_the_worked_delta_reads_as_the_page_says_and_is_written_again() -> None:
    text = section(PAGE, "A container in short")
    (update,), known = blocks(text), manifest.parse_manifest(blocks(section(PAGE, "Base manifest"))[-1])
    state = ModelState.of_base(known, [np.array([0.5, -0.25, 1, -0.0, 0.125, 0.75, -1, 0], np.float32)])

    read = container.parse(update)
    read.verify(KEY.public, FLEET_ID)
    sections = read.sections(known.schema)
    state.apply(read.header.kind, sections, expect=read.header.fingerprint)

    assert read.header.parent == known.commit and read.header.root == state.root
    assert ", ".join(f"{w:.8g}" for w in state.weights[0].tolist()) in flat(text).replace("-0.0", "-0")
    assert f"`{read.stream.hex()}`" in text and f"{len(update)} bytes" in text
    assert read.table.hex() == "".join(re.findall(r"row is `([0-9a-f ]+)`", text)).replace(" ", "")
    assert container.seal(read.header, sections, known.schema, KEY, FLEET_ID).data == update


def test_the_worked_exact_update_reads_as_the_page_says_and_is_written_again() -> None:
    text = section(PAGE, "An exact update")
    manifest_bytes, update = blocks(text)
    known = manifest.parse_manifest(manifest_bytes)
    state = ModelState.of_base(known, [np.array([1, -2, 0.5, 0], np.float32)])

    read = container.parse(update)
    read.verify(KEY.public, FLEET_ID)
    state.apply_container(read)

    assert state.weights[0].tobytes() == np.array([1 + 2**-10, -2, 0.5, -0.0], np.float32).tobytes() and state.root == read.header.root
    assert "1.0009766, -2, 0.5, -0.0:" in text
    told = text[text.index("The planes are") :]
    assert bytes(read.planes).hex() == "".join(re.findall(r"`((?:[0-9a-f]{2})+(?: [0-9a-f]+)?)`:", told)).replace(" ", "")
    assert read.table.hex() == "".join(re.findall(r"Section table: `([0-9a-f ]+)`", text)).replace(" ", "")
    assert container.seal(read.header, read.sections(known.schema), known.schema, KEY, FLEET_ID).data == update


def flat(text: str) -> str:
    return " ".join(text.split())
