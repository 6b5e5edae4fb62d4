"""Split what is too large for one message, and join it again from parts in any order, wherever they come from, each proven by a tree.

A part is a leaf of the tree whose root stands in the signed manifest, and carries its audit path (RFC 6962, section 2.1.1): so the
manifest is small whatever the size, and whoever has a part proves it alone. docs/protocol.md, "Parts".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from modelwire import limits, merkle
from modelwire.errors import DigestMismatch, Malformed, TooLarge

from .records import Transfer

MAGIC = b"\x89MWP"
VERSION = 1
PART_MAX = merkle.LEAF_BYTES  # bytes of what a part carries, unless the link can't
PART_MIN = 1024
WANTED_AT_ONCE = 8  # parts of an update that a command names, in answer to one word of its device
BASES_AT_ONCE = 1  # and of a base, which is large: what a kill of either side may cost
_HEAD = struct.Struct("<4sHH32sI")  # magic, version, digests in the path, transfer id, index
_PATH_MAX = 14  # of 16,384 parts


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a transfer, not yet proven."""

    id: bytes
    index: int
    path: tuple[bytes, ...]  # digests from the leaf's sibling up
    data: bytes


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is to be sent in parts: the manifest, and the tree that proves each part."""

    transfer: Transfer
    data: bytes | memoryview
    levels: list[list[bytes]]

    @property
    def count(self) -> int:
        return len(self.levels[0])

    def cut(self, index: int) -> bytes:
        """Return the message that carries part `index`."""
        start = index * self.transfer.part_size
        return self.message(index, self.data[start : start + self.transfer.part_size])

    def message(self, index: int, piece: bytes | memoryview) -> bytes:
        """Return the message that carries part `index`, whose bytes are at hand."""
        path = merkle.audit_path(self.levels, index)
        return b"".join([_HEAD.pack(MAGIC, VERSION, len(path), self.transfer.id, index), *path, piece])


def describe(
    data: bytes | memoryview, *, fleet: str, device: str, model: str, at: int, part: int, what: str = "update", parent: bytes = b""
) -> Outgoing:
    """Return `data` as it goes in messages of at most `part` bytes. Raises TooLarge.

    what: "update", "base" or "bundle"; parent: commit of what it is an update of.
    """
    room = part - _HEAD.size - 32 * _PATH_MAX
    if room < PART_MIN:
        raise TooLarge(what="the smallest part", size=PART_MIN + part - room, limit=part)
    size = min(PART_MAX, 1 << room.bit_length() - 1)
    levels = merkle.tree_levels(merkle.leaves(data, size))
    transfer = Transfer(
        fleet, device, model, at, hashlib.sha256(data).digest(), len(data), size, what, levels[-1][0], parent,
    )  # fmt: skip
    count(transfer)
    return Outgoing(transfer, data, levels)


def parse(data: bytes, limit: limits.Limits = limits.DEFAULT) -> Part:
    """Return the part that a message holds. Raises TooLarge or Malformed."""
    if len(data) > limit.part:
        raise TooLarge(what="the part", size=len(data), limit=limit.part)
    if len(data) <= _HEAD.size:
        raise Malformed(what="part", reason=f"{len(data)} bytes are too few")
    magic, version, digests, transfer, index = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise Malformed(what="part", reason="it does not start as a part of release 1")
    end = _HEAD.size + 32 * digests
    if digests > _PATH_MAX or end >= len(data):
        raise Malformed(what="part", reason=f"a path of {digests} digests in {len(data)} bytes")
    path = tuple(bytes(data[i : i + 32]) for i in range(_HEAD.size, end, 32))
    return Part(transfer, index, path, bytes(data[end:]))


def count(transfer: Transfer, limit: limits.Limits = limits.DEFAULT) -> int:
    """Return the number of parts of a transfer whose numbers agree with each other. Raises Malformed or TooLarge."""
    most = limit.container if transfer.what == "update" else limit.model_file
    if transfer.size > most:
        raise TooLarge(what="the transfer", size=transfer.size, limit=most)
    size = transfer.part_size
    if not PART_MIN <= size <= PART_MAX or size & (size - 1):
        raise Malformed(what="transfer", reason=f"parts of {size} bytes are not a power of two from {PART_MIN} to {PART_MAX}")
    if not transfer.size:
        raise Malformed(what="transfer", reason="it is of nothing")
    n = -(-transfer.size // size)
    if n > limit.parts:
        raise TooLarge(what="the transfer in parts", size=n, limit=limit.parts)
    return n


def check(transfer: Transfer, part: Part) -> None:
    """Raise DigestMismatch or Malformed unless `part` is the one that the transfer's tree has at its index."""
    n = count(transfer)
    if part.id != transfer.id or part.index >= n:
        raise Malformed(what="part", reason=f"part {part.index} is not of this transfer")
    expected = min(transfer.part_size, transfer.size - part.index * transfer.part_size)
    if len(part.data) != expected:
        raise Malformed(what="part", reason=f"part {part.index} has {len(part.data)} bytes instead of {expected}")
    if merkle.root_by_path(merkle.leaf(part.data), part.index, n, part.path) != transfer.tree:
        raise DigestMismatch(what=f"part {part.index}, by the tree and the size of its transfer")


def join(transfer: Transfer, pieces: Mapping[int, bytes]) -> bytes:
    """Return the whole. Raises Malformed while parts are missing, DigestMismatch when the whole is not the one named."""
    n = count(transfer)
    missing = [i for i in range(n) if i not in pieces]
    if missing:
        raise Malformed(what="transfer", reason=f"{len(missing)} of {n} parts are missing")
    whole = b"".join(pieces[i] for i in range(n))
    if len(whole) != transfer.size or hashlib.sha256(whole).digest() != transfer.id:
        raise DigestMismatch(what="the transfer")
    return whole


def bitmap(held: set[int], n: int) -> bytes:
    """Return which of `n` parts are held, bit i of byte i//8, lowest first."""
    out = bytearray(-(-n // 8))
    for i in held:
        out[i // 8] |= 1 << i % 8
    return bytes(out)


def missing(have: bytes, n: int) -> list[int]:
    """Return the parts that a bitmap does not name. Raises Malformed when it is not one of `n` parts."""
    if len(have) != -(-n // 8) or int.from_bytes(have, "little") >> n:
        raise Malformed(what="bitmap", reason=f"{len(have)} bytes for {n} parts, or a part beyond them")
    return [i for i in range(n) if not have[i // 8] >> i % 8 & 1]
