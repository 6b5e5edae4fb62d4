"""Containers: preamble, header, extension, table, commit (container page, Layout)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import cbor, ed25519, limits
from .crc import crc32c
from .errors import BadSignature, DigestMismatch, Malformed, TooLarge, UnsupportedWire
from .merkle import sha256

MAGIC = b"\x89MWU\r\n\x1a\n"
SNAPSHOT, DELTA, EXACT, RECIPE = 0, 1, 2, 3
KINDS = ("snapshot", "delta", "exact", "recipe")
CODER, PLANES = 1, 2
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Preamble:
    """The first 32 bytes."""

    raw: bytes
    header: int
    extension: int
    sections: int
    total: int


@dataclass(frozen=True)
class Header:
    """What a version says of itself."""

    raw: bytes
    kind: int
    epoch: int
    version: int
    schema_id: bytes
    parent: bytes
    root: bytes
    fingerprint: tuple[int, int]
    base: bytes | None
    device: str
    model: str


@dataclass(frozen=True)
class Row:
    """One row of the section table."""

    tensor: int
    codec: int
    m: int
    j: int
    exponent: int
    count: int

    @property
    def step(self) -> int:
        """Give the step in units."""
        return self.m << self.j


@dataclass(frozen=True)
class Container:
    """One update, read up to its signature."""

    preamble: Preamble
    header: Header
    extension: dict[str, Any]
    rows: tuple[Row, ...]
    body: bytes
    commit: bytes
    signature: bytes | None

    def verify(self, keys: Iterable[bytes], fleet: bytes) -> bytes:
        """Check the signature and give the key that made it (C79)."""
        if self.signature is None:
            raise BadSignature("C79: an unsigned container")
        return ed25519.verify(keys, ed25519.UPDATE, fleet, self.commit, self.signature)


def _u32(data: bytes, at: int) -> int:
    """Read a u32."""
    return int.from_bytes(data[at : at + 4], "little")


def read_preamble(raw: bytes, length: int | None = None) -> Preamble:
    """Read a preamble (C39 to C47); length is None in a header proof."""
    if raw[:8] != MAGIC:
        raise Malformed("C39: another magic")
    if _u32(raw, 28) != crc32c(raw[:28]):
        raise DigestMismatch("C40: crc32c of the preamble")
    if _u32(raw, 8) != 1:
        raise UnsupportedWire("C41: another version")
    header, extension, sections, total = (_u32(raw, at) for at in (12, 16, 20, 24))
    if length is not None and total != length:
        raise Malformed("C42: another total")
    if header > limits.HEADER:
        raise TooLarge("C43: header")
    if extension > limits.EXTENSION:
        raise TooLarge("C44: extension")
    if sections > limits.TENSORS:
        raise TooLarge("C45: sections")
    if header < 130:
        raise Malformed("C46: header")
    if 32 + header + extension + 12 * sections + 96 > total:
        raise Malformed("C47: parts that do not fit")
    return Preamble(raw, header, extension, sections, total)


def read_header(raw: bytes) -> Header:
    """Read a header (C48 to C54)."""
    if raw[1] != 1:
        raise UnsupportedWire("C48: another hash")
    kind = raw[0]
    if kind > RECIPE:
        raise UnsupportedWire("C49: another kind")
    fixed = 160 if kind == SNAPSHOT else 128
    if len(raw) != fixed + raw[2] + raw[3]:
        raise Malformed("C50: a header that its parts do not fill")
    names = []
    for part in (raw[fixed : fixed + raw[2]], raw[fixed + raw[2] :]):
        name = part.decode("latin-1")
        if not NAME.fullmatch(name):
            raise Malformed("C51: a name of another form")
        names.append(name)
    if "all" in names:
        raise Malformed("C52: the name all")
    epoch, version = _u32(raw, 4), int.from_bytes(raw[8:16], "little")
    if epoch == 0:
        raise Malformed("C53: epoch 0")
    if not 1 <= version <= (1 << 63) - 1:
        raise Malformed("C54: version")
    lanes = (int.from_bytes(raw[112:120], "little"), int.from_bytes(raw[120:128], "little"))
    base = raw[128:160] if kind == SNAPSHOT else None
    return Header(raw, kind, epoch, version, raw[16:48], raw[48:80], raw[80:112], lanes, base, names[0], names[1])


def read_extension(raw: bytes) -> dict[str, Any]:
    """Read an extension (C55, C56)."""
    if not raw:
        return {}
    value = cbor.decode(raw)
    if not isinstance(value, dict) or not value:
        raise Malformed("C55: an extension that is no map, or empty")
    cbor.refuse_critical(value)
    return value


def _row(raw: bytes, kind: int, before: int) -> Row:
    """Read one row (C57 to C65)."""
    exponent = raw[5] - 256 if raw[5] > 127 else raw[5]
    row = Row(raw[0] | raw[1] << 8, raw[2], raw[3], raw[4], exponent, _u32(raw, 8))
    if row.codec not in (CODER, PLANES):
        raise UnsupportedWire("C57: another codec")
    if row.codec == CODER and kind == EXACT:
        raise Malformed("C58: range coder in an exact update")
    if row.tensor <= before:
        raise Malformed("C59: tensors that do not rise")
    if row.m % 2 == 0:
        raise Malformed("C60: an even m")
    if row.j > 22:
        raise Malformed("C61: j")
    if not limits.E_MIN <= row.exponent <= limits.E_MAX:
        raise Malformed("C62: exponent")
    if raw[6:8] != b"\0\0":
        raise UnsupportedWire("C63: reserved")
    plain = row.m == 1 and row.j == 0
    if row.codec == PLANES and not (plain and row.exponent == 0):
        raise Malformed("C64: step of planes")
    if row.count == 0 and not (kind == SNAPSHOT and row.codec == CODER and plain):
        raise Malformed("C65: count 0")
    return row


def _table(raw: bytes, kind: int, body: int) -> tuple[Row, ...]:
    """Read the section table (C57 to C68)."""
    if kind == RECIPE:
        if raw:
            raise Malformed("C67: a row in a recipe")
        if body == 0:
            raise Malformed("C68: no recipe")
        return ()
    rows: list[Row] = []
    for at in range(0, len(raw), 12):
        rows.append(_row(raw[at : at + 12], kind, rows[-1].tensor if rows else -1))
    if sum(row.count for row in rows if row.codec == PLANES) > body:
        raise Malformed("C66: planes longer than the content")
    return tuple(rows)


def read_container(data: bytes) -> Container:
    """Read a container up to the signature, which verify checks (reading order, 1 to 6)."""
    if len(data) > limits.CONTAINER:
        raise TooLarge("C37: container")
    if len(data) < 258:
        raise Malformed("C38: container too short")
    preamble = read_preamble(data[:32], len(data))
    at_extension = 32 + preamble.header
    at_table = at_extension + preamble.extension
    at_body = at_table + 12 * preamble.sections
    raw_header, raw_extension = data[32:at_extension], data[at_extension:at_table]
    commit = data[-96:-64]
    if commit_of(preamble.raw, raw_header, sha256(raw_extension), sha256(data[at_table:-96])) != commit:
        raise DigestMismatch("C78: another commit")
    extension = read_extension(raw_extension)
    header = read_header(raw_header)
    body = data[at_body:-96]
    rows = _table(data[at_table:at_body], header.kind, len(body))
    return Container(preamble, header, extension, rows, body, commit, data[-64:])


def commit_of(preamble: bytes, header: bytes, extension: bytes, content: bytes) -> bytes:
    """Give the commit; extension and content are digests."""
    return sha256(b"\4", preamble, header, extension, content)


def read_unsigned(data: bytes) -> Container:
    """Read the container of an adopt or a take, which ends with its commit."""
    c = read_container(data + bytes(64))
    return Container(c.preamble, c.header, c.extension, c.rows, c.body, c.commit, None)
