"""Exact tensors on the wire: ordered differences as byte planes, block by block, each plane by itself through lz4. The strict reader.

docs/format/container.md, "Planes", has the bytes. Everything works on stored bits, and in blocks, so that a model's size takes no memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import lz4.block  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from modelwire import _core
from modelwire.errors import Malformed, ModelWireError
from modelwire.tensors import U8, Dtype, Stored

BLOCK = 1 << 18  # entries: a block and its planes stay in the second cache
ZEROS, RAW, LZ4 = 0, 1, 2  # how a plane is written
_WORD = struct.Struct("<I")
_LENGTH = 0xFFFFFF  # the low bits of a plane's word; the high ones say how it is written
_SMALL = 48  # bytes below which lz4 never pays
_SAMPLE = 4096  # bytes from the middle of a plane: when lz4 gains nothing on them, it is not asked about the rest
_GAIN = 0.98


@dataclass(frozen=True, slots=True)
class Block:
    """The planes of some entries as they stand on the wire, their lengths checked."""

    start: int  # first entry
    entries: int
    count: int  # of them changed
    words: tuple[tuple[int, memoryview], ...]  # (how it is written, its bytes): which entries changed, unless all; then each plane

    def unpack(self, width: int) -> tuple[U8, U8]:
        """Return (a bit an entry, the planes one after the other). Raises Malformed."""
        if self.count in (0, self.entries):
            changed = np.packbits(np.full(self.entries, self.count > 0), bitorder="little")
            return changed, self._planes(self.words, self.count)
        return self._planes(self.words[:1], (self.entries + 7) // 8), self._planes(self.words[1:], self.count)

    def _planes(self, words: tuple[tuple[int, memoryview], ...], size: int) -> U8:
        out: U8 = np.zeros(len(words) * size, np.uint8)
        for p, (how, data) in enumerate(words):
            if how == RAW:
                out[p * size : (p + 1) * size] = np.frombuffer(data, np.uint8)
            elif how == LZ4:
                out[p * size : (p + 1) * size] = np.frombuffer(_expanded(data, size), np.uint8)
        return out


def encode(fresh: Stored, parent: Stored | None, infinity: int) -> bytes:
    """Return the planes of what `fresh` is more than `parent` (None: zeros), or nothing where no entry differs.

    infinity: of the stored type, 0 for integers.
    Raises NonFinite when an entry of fresh is no number.
    """
    n, width = len(fresh), fresh.itemsize
    room = min(n, BLOCK)
    bits, planes = np.empty((room + 7) // 8, np.uint8), np.empty(room * width, np.uint8)
    out: list[bytes | memoryview] = []
    total = 0
    for start in range(0, n, BLOCK):
        size = min(n - start, BLOCK)
        part, before = fresh[start : start + size], None if parent is None else parent[start : start + size]
        changed = bits[: (size + 7) // 8]
        try:
            count = _core.split_planes(part, before, changed, planes[: size * width], infinity=infinity)
        except ModelWireError as error:
            _later(error, start)
            raise
        total += count
        out.append(_WORD.pack(count))
        if not count:
            continue
        if count < size:
            out += _written(changed)
        for p in range(width):
            out += _written(planes[p * size : p * size + count])
    return b"".join(out) if total else b""


def blocks(data: bytes | memoryview, n: int, width: int) -> Iterator[Block]:
    """Yield the blocks of a tensor of n entries of `width` bytes. Raises Malformed unless `data` is exactly these.

    Every length is checked before a block is given out; nothing is unpacked.
    """
    view, place, total = memoryview(data), 0, 0
    for start in range(0, n, BLOCK):
        size = min(n - start, BLOCK)
        count, place = _word(view, place)
        if count > size:
            raise Malformed(what="planes", reason=f"{count} of {size} entries changed")
        total += count
        words = []
        for expected in ([] if count in (0, size) else [(size + 7) // 8]) + ([count] * width if count else []):
            word, place = _word(view, place)
            how, length = word >> 24, word & _LENGTH
            if how not in (ZEROS, RAW, LZ4) or not _fits(how, length, expected):
                raise Malformed(what="planes", reason=f"a plane of {expected} bytes is said to be {length} of kind {how}")
            if place + length > len(view):
                raise Malformed(what="planes", reason="the bytes end too early")
            words.append((how, view[place : place + length]))
            place += length
        yield Block(start, size, count, tuple(words))
    if place != len(view):
        raise Malformed(what="planes", reason="there are more bytes than needed")
    if not total:
        raise Malformed(what="planes", reason="they say nothing")


def check(data: bytes | memoryview, n: int, width: int) -> int:
    """Return how many entries change, from the lengths alone. Raises Malformed as `blocks`."""
    return sum(block.count for block in blocks(data, n, width))


def join(data: bytes | memoryview, parent: Stored | None, fresh: Stored, infinity: int) -> None:
    """Write what `encode` was given, block by block; fresh may be parent. Raises Malformed or NonFinite; fresh then means nothing."""
    for block in blocks(data, len(fresh), fresh.itemsize):
        end = block.start + block.entries
        join_block(block, None if parent is None else parent[block.start : end], fresh[block.start : end], infinity)


def join_block(block: Block, parent: Stored | None, fresh: Stored, infinity: int) -> None:
    """Write one block's entries. Raises Malformed or NonFinite; fresh then means nothing."""
    changed, planes = block.unpack(fresh.itemsize)
    try:
        _core.join_planes(changed, planes, parent, fresh, count=block.count, infinity=infinity)
    except ModelWireError as error:
        _later(error, block.start)
        raise


def differences(data: bytes | memoryview, n: int, dtype: Dtype) -> Stored:
    """Return the differences as unsigned integers mod 2^width, 0 where nothing changed: they add and invert. Raises Malformed."""
    out: NDArray[np.uint32] | NDArray[np.uint16] | NDArray[np.uint8] = np.empty(n, f"<u{dtype.width}")
    join(data, None, out, 0)
    return out


def _written(plane: U8) -> list[bytes | memoryview]:
    """Return a plane's word and its bytes, the shortest of the three ways that a quick look suggests."""
    n = len(plane)
    if not plane.any():
        return [_WORD.pack(ZEROS << 24)]
    if n >= _SMALL:
        middle = plane[(n - _SAMPLE) // 2 : (n + _SAMPLE) // 2] if n >= 4 * _SAMPLE else plane[:0]
        if not len(middle) or len(lz4.block.compress(middle, store_size=False)) < _GAIN * _SAMPLE:
            packed = lz4.block.compress(plane, store_size=False)
            if len(packed) < n:
                return [_WORD.pack(LZ4 << 24 | len(packed)), packed]
    return [_WORD.pack(RAW << 24 | n), plane.tobytes()]


def _expanded(data: memoryview, size: int) -> bytes:
    """Return exactly `size` bytes. Raises Malformed; no more than these are ever allocated."""
    _core.check_lz4(np.frombuffer(data, np.uint8))  # liblz4 takes a match with offset 0, other readers do not
    try:
        out: bytes = lz4.block.decompress(data, uncompressed_size=size)
    except lz4.block.LZ4BlockError:
        raise Malformed(what="planes", reason="a plane is not what lz4 writes") from None
    if len(out) != size:
        raise Malformed(what="planes", reason=f"a plane of {size} bytes unpacks to {len(out)}")
    return out


def _fits(how: int, length: int, expected: int) -> bool:
    return length == {ZEROS: 0, RAW: expected}.get(how, length) and (how != LZ4 or 0 < length < expected)


def _word(view: memoryview, place: int) -> tuple[int, int]:
    if place + _WORD.size > len(view):
        raise Malformed(what="planes", reason="the bytes end too early")
    return _WORD.unpack_from(view, place)[0], place + _WORD.size


def _later(error: ModelWireError, start: int) -> None:
    """Let an error name its entry from the tensor's start on, not the block's."""
    index = error.facts.get("index")
    if isinstance(index, int):
        error.facts["index"] = index + start
        error.args = (error.message,)
