"""Transfers and parts (protocol page)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import limits
from .errors import DigestMismatch, Malformed, TooLarge
from .fields import check_transfer
from .merkle import proven, sha256

MAGIC = b"\x89MWP"


@dataclass(frozen=True)
class Part:
    """One part of a file."""

    transfer: bytes
    index: int
    path: tuple[bytes, ...]
    data: bytes


def read_part(raw: bytes) -> Part:
    """Read a part's head, path and bytes: P54, P55 of the head, P56, P58, P55 of path and bytes."""
    if len(raw) > limits.PART:
        raise TooLarge("P54: part")
    if len(raw) < 44:
        raise Malformed("P55: part too short")
    if raw[:6] != MAGIC + b"\1\0":
        raise Malformed("P56: another magic or version")
    digests = raw[6] | raw[7] << 8
    if digests > 14:
        raise Malformed("P58: path too long")
    end = 44 + 32 * digests
    if len(raw) <= end:
        raise Malformed("P55: part without bytes of the file")
    path = tuple(raw[at : at + 32] for at in range(44, end, 32))
    return Part(raw[8:40], int.from_bytes(raw[40:44], "little"), path, raw[end:])


class Receiver:
    """A file that comes in parts, as its transfer says."""

    def __init__(self, fields: dict[str, Any]) -> None:
        """Begin without parts (P50 to P53)."""
        check_transfer(fields)
        self.id: bytes = fields["id"]
        self.tree: bytes = fields["tree"]
        self.size: int = fields["size"]
        self.part_size: int = fields["part_size"]
        self.count = -(-self.size // self.part_size)
        self.held: dict[int, bytes] = {}

    def take(self, raw: bytes) -> bool:
        """Take a part (P57, P59, P60); false when it is of another transfer or held already, which one look-up tells."""
        part = read_part(raw)
        if part.transfer != self.id or part.index in self.held:
            return False
        if part.index >= self.count:
            raise Malformed("P57: index beyond the parts")
        if len(part.data) != min(self.part_size, self.size - part.index * self.part_size):
            raise Malformed("P59: bytes of a part")
        if not proven(part.data, part.index, self.count, list(part.path), self.tree):
            raise DigestMismatch("P60: a path that does not lead to the tree")
        self.held[part.index] = part.data
        return True

    def have(self) -> bytes:
        """Give the bits of a wanted."""
        out = bytearray(-(-self.count // 8))
        for index in self.held:
            out[index // 8] |= 1 << index % 8
        return bytes(out)

    def join(self) -> bytes:
        """Join all parts (P61)."""
        data = b"".join(self.held[index] for index in range(self.count))
        if sha256(data) != self.id:
            raise DigestMismatch("P61: a file that is not its id")
        return data


def read_have(raw: bytes, parts: int) -> list[bool]:
    """Read the bits of a wanted (P30)."""
    if len(raw) != -(-parts // 8):
        raise Malformed("P30: length of have")
    bits = int.from_bytes(raw, "little")
    if bits >> parts:
        raise Malformed("P30: a bit beyond the last part")
    return [bool(bits >> i & 1) for i in range(parts)]
