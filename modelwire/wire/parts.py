"""Split a container that is too large for one message, and join it again from parts in any order, each proven by hash."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from modelwire import limits
from modelwire.errors import DigestMismatch, Malformed, TooLarge

from .records import Transfer

MAGIC = b"\x89MWP"
_HEAD = struct.Struct("<4sI32sI")  # magic, version 1, transfer id, index
HEAD_BYTES = _HEAD.size


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a transfer, not yet proven."""

    id: bytes
    index: int
    data: bytes


def describe(container: bytes, *, fleet: str, device: str, model: str, at: int, part: int) -> Transfer:
    """Return the manifest of `container` cut into messages of at most `part` bytes. Raises TooLarge."""
    size = part - HEAD_BYTES
    if size < 1:
        raise TooLarge(what="a part with one byte", size=HEAD_BYTES + 1, limit=part)
    pieces = [container[i : i + size] for i in range(0, len(container), size)]
    if len(pieces) > limits.DEFAULT.parts:
        raise TooLarge(what="the transfer in parts", size=len(pieces), limit=limits.DEFAULT.parts)
    hashes = b"".join(hashlib.sha256(p).digest() for p in pieces)
    return Transfer(fleet, device, model, at, hashlib.sha256(container).digest(), len(container), size, hashes)


def cut(container: bytes, transfer: Transfer, index: int) -> bytes:
    """Return the message that carries part `index`."""
    start = index * transfer.part_size
    return _HEAD.pack(MAGIC, 1, transfer.id, index) + container[start : start + transfer.part_size]


def parse(data: bytes, limit: limits.Limits = limits.DEFAULT) -> Part:
    """Return the part that a message holds. Raises TooLarge or Malformed."""
    if len(data) > limit.part:
        raise TooLarge(what="the part", size=len(data), limit=limit.part)
    if len(data) <= HEAD_BYTES:
        raise Malformed(what="part", reason=f"{len(data)} bytes are too few")
    magic, version, transfer, index = _HEAD.unpack_from(data)
    if magic != MAGIC or version != 1:
        raise Malformed(what="part", reason="it does not start as a part of release 1")
    return Part(transfer, index, bytes(data[HEAD_BYTES:]))


def count(transfer: Transfer, limit: limits.Limits = limits.DEFAULT) -> int:
    """Return the number of parts of a transfer whose numbers agree with each other. Raises Malformed or TooLarge."""
    if not 0 < transfer.size <= limit.container:
        raise TooLarge(what="the transfer", size=transfer.size, limit=limit.container)
    if not 0 < transfer.part_size <= limit.part:
        raise TooLarge(what="a part of the transfer", size=transfer.part_size, limit=limit.part)
    n = -(-transfer.size // transfer.part_size)
    if n > limit.parts:
        raise TooLarge(what="the transfer in parts", size=n, limit=limit.parts)
    if len(transfer.hashes) != 32 * n:
        raise Malformed(what="transfer", reason=f"{len(transfer.hashes)} bytes of hashes for {n} parts")
    return n


def check(transfer: Transfer, part: Part) -> None:
    """Raise DigestMismatch or Malformed unless `part` is the one that the transfer names at its index."""
    if part.id != transfer.id or part.index >= count(transfer):
        raise Malformed(what="part", reason=f"part {part.index} is not of this transfer")
    if hashlib.sha256(part.data).digest() != transfer.hashes[32 * part.index : 32 * part.index + 32]:
        raise DigestMismatch(what=f"part {part.index}")
    # A transfer may name the hashes of parts that are longer than it says: what is kept would outgrow the limit of the whole.
    expected = min(transfer.part_size, transfer.size - part.index * transfer.part_size)
    if len(part.data) != expected:
        raise Malformed(what="part", reason=f"part {part.index} has {len(part.data)} bytes instead of {expected}")


def join(transfer: Transfer, pieces: dict[int, bytes]) -> bytes:
    """Return the whole container. Raises Malformed while parts are missing, DigestMismatch when the whole is not the one named."""
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
