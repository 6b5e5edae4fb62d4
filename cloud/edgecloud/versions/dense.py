"""Kept states of models that moved in many weights, in a code that is read five times as fast as the range coder's and is little longer.

Three parts: a bit a weight, whether it moved; then the numbers of those that did, in schema order, as byte planes; all of them by the
Huffman codes of RFC 1951, which hold no context from one weight to the next. Numbers are v = Q / step, written as 2v - 1 or -2v - 2: none
is 0. Little-endian throughout:

    "EDS1" | front, length u32 | sections u16 | table | lengths of the bits and of 4 planes, u32 each | bits | planes, the lowest first
    front: an update of the same header without sections; a row of the table: tensor u16, step m u8 and shift u8, unit i8, entries u32

It is no wire format: nothing that travels is coded so, and whoever can't read it drops it as damaged and makes it again.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modelwire import limits
from modelwire.errors import Malformed
from modelwire.tensors import Schema
from modelwire.update.container import Container, parse_unsigned, unsigned
from modelwire.update.header import Header
from modelwire.update.sections import AnySection, Section, sparse, split_step

MAGIC = b"EDS1"
LEAST = 8  # one weight in so many must have moved: of fewer, bits that say which take more than the range coder's contexts
LONGER = 8  # it may be longer than the usual code by one part in so many: what is kept stays within the promise of storage
PLANES = 4
_LENGTH, _COUNT, _ROW, _PARTS = struct.Struct("<I"), struct.Struct("<H"), struct.Struct("<HBBbI"), struct.Struct(f"<{1 + PLANES}I")


def encode(header: Header, sections: Sequence[AnySection], schema: Schema, usual: int) -> bytes | None:
    """Return the sections of a snapshot in this code; None where it doesn't pay. usual: bytes that they take else."""
    held = sparse(sections)
    if len(held) < len(sections) or LEAST * sum(s.count for s in held) < schema.size:
        return None
    moved = np.zeros(schema.size, np.bool_)
    for s in held:
        moved[s.index.astype(np.int64) + schema.starts[s.tensor]] = True
    numbers = np.concatenate([s.value for s in held])
    folded = ((numbers << 1) ^ (numbers >> 31)).view(np.uint32) - np.uint32(1)
    parts = [_packed(np.packbits(moved)), *(_packed((folded >> np.uint32(8 * k)).astype(np.uint8)) for k in range(PLANES))]
    front = unsigned(header, (), schema, limits.LARGE)
    table = b"".join(_ROW.pack(s.tensor, *split_step(s.step), s.exponent, s.count) for s in held)
    begin = MAGIC + _LENGTH.pack(len(front)) + front + _COUNT.pack(len(held)) + table + _PARTS.pack(*(len(part) for part in parts))
    data = begin + b"".join(parts)
    return data if LONGER * len(data) <= (LONGER + 1) * usual else None


def is_dense(data: bytes) -> bool:
    """Return whether bytes are in this code, and not a container's."""
    return data[: len(MAGIC)] == MAGIC


def decode(data: bytes, schema: Schema) -> tuple[Container, tuple[Section, ...]]:
    """Return the front, which holds the header, and the sections. Raises Malformed; no more memory is taken than the schema's weights need.

    What is wrong with a section whose form is right, its model says when it is moved by it.
    """
    try:
        return _decoded(memoryview(data), schema)
    except struct.error:
        raise _wrong("it is cut off") from None
    except zlib.error:
        raise _wrong("a part can't be unpacked") from None


def _decoded(view: memoryview, schema: Schema) -> tuple[Container, tuple[Section, ...]]:
    at = len(MAGIC) + _LENGTH.size
    (length,) = _LENGTH.unpack_from(view, len(MAGIC))
    front = parse_unsigned(bytes(view[at : at + length]), limits.LARGE)
    at += length
    (count,) = _COUNT.unpack_from(view, at)
    rows = [_ROW.unpack_from(view, at + _COUNT.size + k * _ROW.size) for k in range(count)]
    at += _COUNT.size + count * _ROW.size
    lengths = _PARTS.unpack_from(view, at)
    at += _PARTS.size
    if at + sum(lengths) != len(view):
        raise _wrong("its parts are not as long as it says")
    total = sum(row[-1] for row in rows)
    if total > schema.size:
        raise _wrong(f"it has {total} entries, the model {schema.size} weights")
    sizes = [(schema.size + 7) // 8, *([total] * PLANES)]
    parts = []
    for part, size in zip(lengths, sizes, strict=True):
        parts.append(_unpacked(view[at : at + part], size))
        at += part
    places = np.flatnonzero(np.unpackbits(parts[0], count=schema.size).view(np.bool_))  # of booleans it is six times as fast
    if len(places) != total:
        raise _wrong(f"its bits name {len(places)} entries, its table {total}")
    return front, tuple(_sections(rows, places, _numbers(parts[1:]), schema))


def _sections(
    rows: Sequence[tuple[int, int, int, int, int]], places: NDArray[np.int64], numbers: NDArray[np.int32], schema: Schema
) -> list[Section]:
    out, at, last = [], 0, -1
    for tensor, mantissa, shift, exponent, count in rows:
        if not last < tensor < len(schema.tensors) or not mantissa & 1 or shift > limits.STEP_SHIFT_MAX:
            raise _wrong("a row of its table is none")
        start, size, last = schema.starts[tensor], schema.tensors[tensor].size, tensor
        inside = places[at : at + count]
        if count and not start <= inside[0] <= inside[-1] < start + size:
            raise _wrong(f"its bits name entries that are not of tensor {tensor}")
        index = (inside - start).astype(np.uint32)
        out.append(Section(tensor, index, numbers[at : at + count], mantissa << shift, exponent))
        at += count
    return out


def _numbers(planes: Sequence[NDArray[np.uint8]]) -> NDArray[np.int32]:
    folded = planes[0].astype(np.uint32)
    for k, plane in enumerate(planes[1:], 1):
        if plane.any():
            folded |= plane.astype(np.uint32) << np.uint32(8 * k)
    folded += np.uint32(1)
    if not folded.all():  # 2^32 came round to 0
        raise _wrong("a number is 0")
    unfolded: NDArray[np.int32] = ((folded >> np.uint32(1)) ^ -(folded & np.uint32(1))).view(np.int32)
    return unfolded


def _packed(values: NDArray[np.uint8]) -> bytes:
    """Return the shorter of two ways to code bytes: one by one, or with what was there before."""
    if not values.any():
        return b""
    return min((_deflated(values.tobytes(), way) for way in (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY)), key=len)


def _deflated(data: bytes, strategy: int) -> bytes:
    made = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
    return made.compress(data) + made.flush()


def _unpacked(data: memoryview, size: int) -> NDArray[np.uint8]:
    """Return so many bytes; of nothing, zeros. Raises Malformed where there are more or fewer."""
    if not len(data):
        return np.zeros(size, np.uint8)
    reader = zlib.decompressobj(-zlib.MAX_WBITS)
    out = reader.decompress(data, size + 1)
    if len(out) != size or not reader.eof or reader.unused_data:
        raise _wrong("a part is not as long as it should be")
    return np.frombuffer(out, np.uint8)


def _wrong(reason: str) -> Malformed:
    return Malformed(what="dense state", reason=reason)
