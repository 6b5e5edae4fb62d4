"""The range coder, as docs/format/coder.md words it: one walk over a section, one bit at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index as whole
from typing import Protocol

import numpy as np

from modelwire.errors import IndexOutOfRange, Malformed
from modelwire.tensors import I32, U32

from .arrays import octets, sparse

BLOCK = 32
ESCAPE = 4
LENGTHS = 31
TREE = 6
TOP = 1 << 24
LEAST = (52, 131, 328, 819, 2048)  # of 4096: where the classes of density after the first begin
TYPICAL = (30, 83, 207, 518, 1295, 2896)


def encode_sections(sections: Iterable[tuple[int, int, U32, I32]]) -> bytes:
    """Return the sections (rows, columns, index, value) as one stream.

    Raises IndexOutOfRange (tensor: the section's place) and Malformed.
    """
    out = _Writer()
    model = _Model()
    checked = [(*_shape(rows, columns), *sparse(index, value)) for rows, columns, index, value in sections]
    for place, (rows, columns, index, value) in enumerate(checked):
        if len(index) > rows * columns:
            raise _bad_shape()
        known: dict[int, int] = {}
        last = -1
        for i, v in zip(index.tolist(), value.tolist(), strict=True):
            if not last < i < rows * columns:
                raise IndexOutOfRange(tensor=place, index=i, size=rows * columns)
            if not v:
                raise Malformed(what="value", reason="a zero was sent")
            known[i] = v
            last = i
        _walk(out, model, rows, columns, len(known), known)
    return out.finish()


def decode_sections(
    data: bytes | bytearray | memoryview, shapes: Iterable[tuple[int, int, int]]
) -> list[tuple[U32, I32]]:
    """Return index and value of each section; shapes: rows, columns, count. Raises Malformed unless the stream is exactly these."""
    wanted = []
    for rows, columns, count in shapes:
        shape = _shape(rows, columns)
        if not 0 <= whole(count) <= shape[0] * shape[1]:
            raise _bad_shape()
        wanted.append((*shape, whole(count)))
    reader = _Reader(octets(data))
    model = _Model()
    decoded = []
    for rows, columns, count in wanted:
        found = _walk(reader, model, rows, columns, count, None)
        decoded.append((np.array([i for i, _ in found], np.uint32), np.array([v for _, v in found], np.int32)))
    reader.finish()
    return decoded


def _shape(rows: int, columns: int) -> tuple[int, int]:
    rows, columns = whole(rows), whole(columns)
    if rows < 0 or columns < 0 or rows * columns > 0xFFFFFFFF:
        raise _bad_shape()
    return (rows, columns) if rows and columns else (0, 0)


def _bad_shape() -> Malformed:
    return Malformed(what="section", reason="rows, columns and count do not fit together")


# Probabilities.


class _Bit:
    """The probability of a 0, out of 2^16: the mean of a fast and a slow estimate. Both move quickly at first."""

    __slots__ = ("fast", "seen", "slow")

    def __init__(self, ones: int = 2048, seen: int = 0) -> None:
        self.fast = self.slow = 65536 - 16 * ones  # ones: of 4096
        self.seen = seen

    @property
    def zero(self) -> int:
        return (self.fast + self.slow) // 2

    def learn(self, bit: int) -> None:
        shift = (self.seen + 3).bit_length() - 1
        self.seen = min(self.seen + 1, 253)
        for name, most in (("fast", 5), ("slow", 8)):
            estimate = getattr(self, name)
            by = min(shift, most)
            setattr(self, name, estimate - (estimate >> by) if bit else estimate + (65536 - estimate >> by))


class _Model:
    """All probabilities of one stream; they live on from section to section."""

    def __init__(self) -> None:
        self.any = [[_Bit(t, 6) for _ in range(4)] for t in TYPICAL]
        self.nonzero = [[[_Bit((c + r) // 2, 6) for _ in range(8)] for r in TYPICAL] for c in TYPICAL]
        self.sign = [[_Bit() for _ in range(3)] for _ in range(3)]
        self.more = [_Bit() for _ in range(ESCAPE)]
        self.length = [_Bit() for _ in range(LENGTHS)]
        self.digit: dict[tuple[int, int], _Bit] = {}

    def digit_after(self, length: int, before: int) -> _Bit:
        return self.digit.setdefault((length, before), _Bit())


# Bits to bytes and back.


class _Coder(Protocol):
    def code(self, p: _Bit, bit: int) -> int: ...
    def raw(self, bits: int, count: int) -> int: ...


class _Writer:
    """Writes the number in [low, low + width); carries run back through the bytes already written."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.low = 0
        self.width = 0xFFFFFFFF

    def code(self, p: _Bit, bit: int) -> int:
        bound = (self.width >> 16) * p.zero
        self._narrow(bound if bit else 0, self.width - bound if bit else bound)
        p.learn(bit)
        return bit

    def raw(self, bits: int, count: int) -> int:
        for place in reversed(range(count)):
            half = self.width // 2
            self._narrow(half if bits >> place & 1 else 0, half)
        return bits & ((1 << count) - 1)

    def finish(self) -> bytes:
        settled = len(self.bytes)
        self._add(_roundest(self.low, self.width) - self.low)
        out = bytes(self.bytes) + self.low.to_bytes(4, "big")
        while len(out) > settled and out[-1] == 0:
            out = out[:-1]
        return out

    def _narrow(self, up: int, width: int) -> None:
        self._add(up)
        self.width = width
        while self.width < TOP:
            self.bytes.append(self.low >> 24)
            self.low = self.low << 8 & 0xFFFFFFFF
            self.width <<= 8

    def _add(self, up: int) -> None:
        self.low += up
        if self.low >> 32:
            self.low &= 0xFFFFFFFF
            place = len(self.bytes) - 1
            while self.bytes[place] == 0xFF:
                self.bytes[place] = 0
                place -= 1
            self.bytes[place] += 1


class _Reader:
    """Reads what _Writer wrote. Up to four zeros may be read past the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.used = 0
        self.width = 0xFFFFFFFF
        self.offset = 0  # the stream's number minus the writer's low
        for _ in range(4):
            self._byte()
        if self.offset == self.width:
            raise _damaged()

    def code(self, p: _Bit, bit: int) -> int:
        bound = (self.width >> 16) * p.zero
        bit = int(self.offset >= bound)
        self._narrow(bound if bit else 0, self.width - bound if bit else bound)
        p.learn(bit)
        return bit

    def raw(self, bits: int, count: int) -> int:
        got = 0
        for _ in range(count):
            half = self.width // 2
            bit = int(self.offset >= half)
            if self.offset - bit * half >= half:  # the odd one out, which no writer uses
                raise _damaged()
            self._narrow(bit * half, half)
            got = got << 1 | bit
        return got

    def finish(self) -> None:
        """Raise Malformed unless the stream ends here, with the very bytes that a writer ends with."""
        settled = self.used - 4
        if self.used < len(self.data) or (len(self.data) > settled and self.data[-1] == 0):
            raise Malformed(what="coded sections", reason="there are more bytes than needed")
        window = int.from_bytes((self.data + bytes(4))[settled : settled + 4], "big")
        low = (window - self.offset) % (1 << 32)
        if _roundest(low, self.width) != low + self.offset:
            raise _damaged()

    def _narrow(self, down: int, width: int) -> None:
        self.offset -= down
        self.width = width
        while self.width < TOP:
            self.width <<= 8
            self._byte()

    def _byte(self) -> None:
        if self.used >= len(self.data) + 4:
            raise Malformed(what="coded sections", reason="the bytes end too early")
        self.offset = self.offset << 8 | (self.data[self.used] if self.used < len(self.data) else 0)
        self.used += 1


def _roundest(low: int, width: int) -> int:
    """Return the smallest number of [low, low + width) with the most trailing zero bytes."""
    for zeros in (32, 24, 16, 8):
        rounded = -(-low >> zeros) << zeros
        if rounded < low + width:
            return rounded
    return low


def _damaged() -> Malformed:
    return Malformed(what="coded sections", reason="no encoder writes these bytes")


# A section.


def _walk(
    coder: _Coder, model: _Model, rows: int, columns: int, count: int, known: dict[int, int] | None
) -> Sequence[tuple[int, int]]:
    """Return (index, value) of all entries of one section: known when writing, None when reading."""
    found: list[tuple[int, int]] = []
    known_indices = sorted(known) if known is not None else []
    size = rows * columns
    column_density, above, column_sign = [200] * columns, [0] * columns, [0] * columns
    blocks = range(0, columns, BLOCK)
    block_density, above_block = [800] * len(blocks), [0] * len(blocks)
    row_density, row_sign = 200, 0
    for start in range(0, size, columns) if count else ():
        left_block = 0
        for b, first in enumerate(blocks):
            last = min(first + BLOCK, columns)
            some = 1
            if count - len(found) <= size - start - last:  # otherwise they do not fit behind this block
                p = model.any[_class(block_density[b])][2 * left_block + above_block[b]]
                some = coder.code(p, int(known is not None and known_indices[len(found)] < start + last))
            block_density[b] = _moved(block_density[b], some, 4)
            left_block = above_block[b] = some
            if not some:
                above[first:last] = [0] * (last - first)
                continue
            before = len(found)
            left = left2 = 0
            for c in range(first, last):
                i = start + c
                nonzero = 1
                must = count - len(found) == size - i or (len(found) == before and c == last - 1)
                if not must:
                    p = model.nonzero[_class(column_density[c])][_class(row_density)][4 * above[c] + 2 * left + left2]
                    nonzero = coder.code(p, int(known is not None and i in known))
                if nonzero:
                    value = _value(coder, model, model.sign[row_sign][column_sign[c]], known[i] if known is not None else None)
                    row_sign = column_sign[c] = 2 if value < 0 else 1
                    found.append((i, value))
                    if len(found) == count:
                        return found
                row_density = _moved(row_density, nonzero, 5)
                column_density[c] = _moved(column_density[c], nonzero, 4)
                above[c] = nonzero
                left, left2 = nonzero, left
    return found


def _value(coder: _Coder, model: _Model, sign: _Bit, known: int | None) -> int:
    """Return a value that is not zero: known when writing, None when reading."""
    value = known or 0
    negative = coder.code(sign, int(value < 0))
    magnitude = 1
    while magnitude <= ESCAPE and coder.code(model.more[magnitude - 1], int(abs(value) > magnitude)):
        magnitude += 1
    if magnitude > ESCAPE:
        magnitude = ESCAPE + _golomb(coder, model, abs(value) - ESCAPE if known is not None else 0)
    if magnitude > 2**31 - 1 + negative:
        raise _damaged()
    return -magnitude if negative else magnitude


def _golomb(coder: _Coder, model: _Model, number: int) -> int:
    """Return a number from 1 as Exp-Golomb: its length in bits, then the bits below the first; 0 when reading."""
    length = 0
    while length < LENGTHS - 1 and coder.code(model.length[length], int(number >> length + 1 != 0)):
        length += 1
    got = 1
    for place in reversed(range(max(0, length - TREE), length)):
        got = got << 1 | coder.code(model.digit_after(length, got), number >> place & 1)
    rest = max(0, length - TREE)
    return got << rest | coder.raw(number, rest)


def _class(density: int) -> int:
    return sum(density >= least for least in LEAST)


def _moved(density: int, bit: int, shift: int) -> int:
    return density + (4095 - density >> shift) if bit else density - (density >> shift)
