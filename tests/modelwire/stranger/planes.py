"""Planes of exact tensors (container page)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from . import limits, lz4
from .errors import Malformed
from .manifest import Array, Tensor


@dataclass(frozen=True)
class _Plane:
    """A plane as it is packed."""

    way: int
    packed: bytes
    size: int

    def unpack(self) -> bytes:
        """Give the plane's bytes (C95)."""
        if self.way == 0:
            return bytes(self.size)
        return self.packed if self.way == 1 else lz4.unpack(self.packed, self.size)


@dataclass(frozen=True)
class Block:
    """A block with its planes."""

    entries: int
    n: int
    planes: list[_Plane]


class _Cursor:
    """A place in a tensor's planes."""

    def __init__(self, data: bytes) -> None:
        """Begin at the start."""
        self.data = data
        self.at = 0

    def take(self, n: int) -> bytes:
        """Give the next n bytes (C90)."""
        if n > len(self.data) - self.at:
            raise Malformed("C90: planes end too early")
        self.at += n
        return self.data[self.at - n : self.at]

    def plane(self, size: int) -> _Plane:
        """Read one plane's word and bytes (C93, C94)."""
        word = int.from_bytes(self.take(4), "little")
        way, length = word >> 24, word & 0xFFFFFF
        if way > 2:
            raise Malformed("C93: another way")
        if not ((way == 0 and length == 0) or (way == 1 and length == size) or (way == 2 and 1 <= length < size)):
            raise Malformed("C94: a length that the way does not give")
        return _Plane(way, self.take(length), size)


def split(data: bytes, t: Tensor) -> list[Block]:
    """Look at all lengths (C89 to C94)."""
    cursor = _Cursor(data)
    blocks = []
    for start in range(0, t.size, limits.BLOCK):
        entries = min(limits.BLOCK, t.size - start)
        n = int.from_bytes(cursor.take(4), "little")
        if n > entries:
            raise Malformed("C89: more changes than entries")
        planes = []
        if 0 < n < entries:
            planes.append(cursor.plane(-(-entries // 8)))
        if n:
            planes += [cursor.plane(n) for _ in range(t.width)]
        blocks.append(Block(entries, n, planes))
    if cursor.at != len(data):
        raise Malformed("C91: bytes behind the last block")
    if not any(block.n for block in blocks):
        raise Malformed("C92: planes without a change")
    return blocks


def _fill(block: Block, width: int) -> Array:
    """Unpack one block into its z (C95 to C99)."""
    out = np.zeros(block.entries, np.int64)
    if not block.n:
        return out
    planes = [np.frombuffer(plane.unpack(), np.uint8) for plane in block.planes]
    places: Array = np.arange(block.entries)
    if block.n < block.entries:
        flags = np.unpackbits(planes.pop(0), bitorder="little")
        if int(flags.sum()) != block.n:
            raise Malformed("C97: another number of bits than n")
        if np.any(flags[block.entries :]):
            raise Malformed("C98: a bit behind the last entry")
        places = np.flatnonzero(flags)
    z = np.zeros(block.n, np.int64)
    for p in range(width):
        z |= planes[p].astype(np.int64) << (8 * p)
    if np.any(z == 0):
        raise Malformed("C99: a z of 0")
    out[places] = z
    return out


def fill(blocks: list[Block], t: Tensor) -> Iterator[Array]:
    """Give d of the entries, signed, block by block."""
    for block in blocks:
        z = _fill(block, t.width)
        yield (z >> 1) ^ -(z & 1)


def differences(data: bytes, t: Tensor) -> Array:
    """Read a tensor's planes; give d of all entries, signed."""
    return np.concatenate(list(fill(split(data, t), t)))
