"""Reads flatbuffers that may be hostile: every offset is checked before it is followed, and the work is bounded by the file's size.

Offsets to tables, vectors and strings only point forward, so a walk can't loop; the allowance bounds walks that
meet the same bytes many times.
Source of the layout: the FlatBuffers "Internals" document.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from modelwire.errors import Malformed

U8, I8, U16, I32, U32, U64 = (struct.Struct(f"<{c}") for c in "BbHiIQ")
NAME_BYTES = 4096  # longest string that is read; names in real files stay below a few hundred bytes


class File:
    """The bytes of one flatbuffer, the allowance of entries that its reader may still visit, and which bytes it has looked at."""

    __slots__ = ("allowance", "data", "size", "spans", "what")

    def __init__(self, data: memoryview, *, what: str, entries: int) -> None:
        self.data, self.size, self.what, self.allowance = data, len(data), what, entries
        self.spans = array("Q", (0, 8))  # first byte and end of each part that was read, one after the other; 0 to 8 is where the root is

    def malformed(self, reason: str) -> Malformed:
        return Malformed(what=self.what, reason=reason)

    def spend(self, entries: int) -> None:
        """Take `entries` from the allowance: a file that has one vector read through many tables ends here."""
        self.allowance -= entries
        if self.allowance < 0:
            raise self.malformed("its tables refer to the same bytes over and over")

    def number(self, form: struct.Struct, place: int) -> int:
        """Return the integer at byte `place`."""
        if not 0 <= place <= self.size - form.size:
            raise self.malformed(f"an offset points to byte {place} of {self.size}")
        value: int = form.unpack_from(self.data, place)[0]
        return value

    def forward(self, place: int) -> int:
        """Return where the offset stored at byte `place` points; always behind it."""
        distance = self.number(U32, place)
        if distance < U32.size or distance > self.size - place:
            raise self.malformed(f"the offset at byte {place} leaves the file")
        return place + distance

    def root(self, identifier: bytes) -> Table:
        """Return the root table of a file that carries `identifier` (4 bytes)."""
        if self.size < 8 or bytes(self.data[4:8]) != identifier:
            raise self.malformed(f"it does not carry the mark {identifier.decode()}")
        return Table(self, self.forward(0))


class Table:
    """One table. Fields are asked for by their number in the schema; an absent field gives its default."""

    __slots__ = ("at", "end", "fields", "file", "vtable")

    def __init__(self, file: File, at: int) -> None:
        file.spend(1)
        self.file, self.at = file, at
        self.vtable = at - file.number(I32, at)
        vtable_bytes, own = file.number(U16, self.vtable), file.number(U16, self.vtable + 2)
        if vtable_bytes < 4 or vtable_bytes % 2 or own < 4 or self.vtable + vtable_bytes > file.size or at + own > file.size:
            raise file.malformed(f"the table at byte {at} leaves the file")
        self.fields, self.end = (vtable_bytes - 4) // 2, at + own
        file.spans.extend((at, self.end, self.vtable, self.vtable + vtable_bytes))

    def field(self, number: int, width: int) -> int | None:
        """Return the byte of field `number`, None when absent."""
        if number >= self.fields:
            return None
        distance = self.file.number(U16, self.vtable + 4 + 2 * number)
        if distance == 0:
            return None
        if distance < 4 or self.at + distance + width > self.end:
            raise self.file.malformed(f"a field of the table at byte {self.at} leaves it")
        return self.at + distance

    def integer(self, number: int, form: struct.Struct, default: int = 0) -> int:
        place = self.field(number, form.size)
        return default if place is None else self.file.number(form, place)

    def table(self, number: int) -> Table | None:
        place = self.field(number, U32.size)
        return None if place is None else Table(self.file, self.file.forward(place))

    def vector(self, number: int, width: int) -> Vector:
        """Return where a vector of `width`-byte entries lies; an absent one is empty. Of its bytes only the count is read."""
        place = self.field(number, U32.size)
        if place is None:
            return Vector(self.file, 0, 0)
        start = self.file.forward(place)
        count = self.file.number(U32, start)
        if count * width > self.file.size - start - U32.size:
            raise self.file.malformed(f"the vector at byte {start} claims {count} entries")
        self.file.spans.extend((start, start + U32.size))
        return Vector(self.file, start + U32.size, count)

    def integers(self, number: int, form: struct.Struct = I32) -> tuple[int, ...]:
        """Return the whole vector of integers."""
        v = self._read(number, form.size)
        self.file.spend(v.count)
        return tuple(n for (n,) in form.iter_unpack(self.file.data[v.start : v.start + v.count * form.size]))

    def tables(self, number: int) -> Iterator[Table]:
        """Return the tables of a vector one by one."""
        v = self._read(number, U32.size)
        for i in range(v.count):
            yield Table(self.file, self.file.forward(v.start + i * U32.size))

    def text(self, number: int) -> str | None:
        """Return a string, None when absent."""
        if self.field(number, U32.size) is None:
            return None
        v = self._read(number, 1)
        if v.count > NAME_BYTES:
            raise self.file.malformed(f"a name of {v.count} bytes")
        self.file.spend(1 + v.count // 4)
        try:
            return bytes(self.file.data[v.start : v.start + v.count]).decode()
        except UnicodeDecodeError:
            raise self.file.malformed(f"the name at byte {v.start} is not UTF-8") from None

    def _read(self, number: int, width: int) -> Vector:
        """Return a vector whose entries are about to be read."""
        v = self.vector(number, width)
        self.file.spans.extend((v.start, v.start + v.count * width))
        return v


@dataclass(frozen=True)
class Vector:
    """Where a vector's entries lie: `count` of them from byte `start`, all inside the file."""

    file: File
    start: int
    count: int
