"""Writes a flatbuffer in front of an old one: new tables may point to any table of the old file, whose bytes follow whole and unchanged.

A flatbuffer's offsets point forward, so what is new must come first. What is not changed is never copied, and need not be understood:
operators of any kind, quantization, sparsity and files appended to the model keep every byte they had.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

ALIGNMENT = 64  # of the old file in the new one, so that whatever was aligned in it still is
DATA_ALIGNMENT = 16  # of a buffer's bytes: the runtimes read constants in place with vector loads


@dataclass(frozen=True, slots=True)
class OldNode:
    """A table or vector that stands at this byte of the old file."""

    byte: int


@dataclass(eq=False, slots=True)
class VectorNode:
    """A vector of plain entries, or a text: it refers to nothing, so several tables may share it."""

    data: bytes
    count: int
    alignment: int = 4
    ended: bool = False  # with a zero byte, as texts are
    place: int = -1


@dataclass(eq=False, slots=True)
class TableVector:
    """A vector of tables."""

    tables: Sequence[Node]


@dataclass(frozen=True, slots=True)
class Number:
    """A plain field: struct's letter for it, and its value."""

    form: str
    value: float


@dataclass(eq=False, slots=True)
class TableNode:
    """A table by the numbers of its fields; a field that has its default is left out by whoever makes the table."""

    fields: Mapping[int, Number | Node] = field(default_factory=dict)


Node: TypeAlias = OldNode | VectorNode | TableVector | TableNode


def text(value: str) -> VectorNode:
    raw = value.encode()
    return VectorNode(raw, len(raw), ended=True)


def integers(values: Sequence[int]) -> VectorNode:
    return VectorNode(struct.pack(f"<{len(values)}i", *values), len(values))


def data(value: bytes) -> VectorNode:
    """Return the bytes of a constant."""
    return VectorNode(value, len(value), DATA_ALIGNMENT)


def i8(value: int) -> Number:
    return Number("b", value)


def u8(value: int) -> Number:
    return Number("B", value)


def i32(value: int) -> Number:
    return Number("i", value)


def u32(value: int) -> Number:
    return Number("I", value)


def f32(value: float) -> Number:
    return Number("f", value)


def write(root: TableNode, identifier: bytes, old: bytes) -> bytes:
    """Return the file whose root table is `root`, with `old` behind it."""
    writer = _Writer()
    writer.out += bytes(4) + identifier
    writer.table(root, 0)
    while writer.open:
        place, node = writer.open.pop()
        if isinstance(node, TableNode):
            writer.table(node, place)
        else:
            writer.vectors(node, place)
    for place, leaf in writer.leaves:
        if leaf.place < 0:
            leaf.place = writer.leaf(leaf)
        writer.point(place, leaf.place)
    for _, leaf in writer.leaves:
        leaf.place = -1  # so that the same tables may be written again
    writer.align(ALIGNMENT)
    start = len(writer.out)
    for place, byte in writer.behind:
        writer.point(place, start + byte)
    return bytes(writer.out) + old


class _Writer:
    def __init__(self) -> None:
        self.out = bytearray()
        self.open: list[tuple[int, TableNode | TableVector]] = []  # (where its offset stands, what is still to be written)
        self.leaves: list[tuple[int, VectorNode]] = []
        self.behind: list[tuple[int, int]] = []
        self.vtables: dict[bytes, int] = {}

    def align(self, to: int, ahead: int = 0) -> None:
        """Fill up so that the byte `ahead` bytes on stands at a multiple of `to`."""
        self.out += bytes(-(len(self.out) + ahead) % to)

    def point(self, place: int, to: int) -> None:
        struct.pack_into("<I", self.out, place, to - place)

    def refer(self, place: int, node: Node) -> None:
        if isinstance(node, OldNode):
            self.behind.append((place, node.byte))
        elif isinstance(node, VectorNode):
            self.leaves.append((place, node))
        else:
            self.open.append((place, node))

    def table(self, table: TableNode, place: int) -> None:
        sizes = {n: struct.calcsize(v.form) if isinstance(v, Number) else 4 for n, v in table.fields.items()}
        places, end = [0] * (max(sizes, default=-1) + 1), 4
        for number in sorted(sizes, key=lambda n: (-sizes[n], n)):
            places[number], end = end, end + sizes[number]
        vtable = struct.pack(f"<{2 + len(places)}H", 4 + 2 * len(places), end, *places)
        if vtable not in self.vtables:
            self.align(2)
            self.vtables[vtable] = len(self.out)
            self.out += vtable
        self.align(4)
        start = len(self.out)
        self.point(place, start)
        self.out += struct.pack("<i", start - self.vtables[vtable]) + bytes(end - 4)
        for number, value in table.fields.items():
            if isinstance(value, Number):
                struct.pack_into(f"<{value.form}", self.out, start + places[number], value.value)
            else:
                self.refer(start + places[number], value)

    def vectors(self, vectors: TableVector, place: int) -> None:
        self.align(4)
        start = len(self.out)
        self.point(place, start)
        self.out += struct.pack("<I", len(vectors.tables)) + bytes(4 * len(vectors.tables))
        for i, node in enumerate(vectors.tables):
            self.refer(start + 4 + 4 * i, node)

    def leaf(self, leaf: VectorNode) -> int:
        self.align(4)
        self.align(leaf.alignment, ahead=4)
        place = len(self.out)
        self.out += struct.pack("<I", leaf.count) + leaf.data + bytes(leaf.ended)
        return place
