"""The centre's log of what was decided: each entry's link binds all before it, so that nobody can take one out unnoticed."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from modelwire.errors import Malformed

from . import signing

FIRST = bytes(32)  # what stands before the first link
_LINK = b"\x06"
_PLACE = struct.Struct("<Q32s")
BYTES = _PLACE.size  # of a link as it travels


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a log after so many entries."""

    number: int  # of its last entry, from 1
    digest: bytes  # 32 bytes

    def encode(self) -> bytes:
        """Return the 40 bytes that a welcome carries."""
        return _PLACE.pack(self.number, self.digest)

    def sign(self, key: signing.Signer, fleet: bytes) -> bytes:
        """Return the signature of the receipt key."""
        return key.sign(signing.LINK, fleet, self.encode())

    def verify(self, public: bytes, fleet: bytes, signature: bytes) -> None:
        """Raise BadSignature unless the receipt key signed this link."""
        signing.verify(public, signing.LINK, fleet, self.encode(), signature, what=f"link {self.number} of the log", signer="the centre")


def next_link(before: Link | None, entry: bytes) -> Link:
    """Return the link of the log with one more entry."""
    return next_link_of(before, hashlib.sha256(entry).digest())


def next_link_of(before: Link | None, entry: bytes) -> Link:
    """Return the link of the log with one more entry, of which no more is left than its SHA-256."""
    number, digest = (before.number, before.digest) if before else (0, FIRST)
    return Link(number + 1, hashlib.sha256(_LINK + struct.pack("<Q", number + 1) + digest + entry).digest())


def parse_link(data: bytes) -> Link:
    """Return the link in 40 bytes. Raises Malformed."""
    if len(data) != _PLACE.size:
        raise Malformed(what="link", reason=f"{len(data)} bytes instead of {_PLACE.size}")
    number, digest = _PLACE.unpack(data)
    if not 0 < number < 1 << 63:
        raise Malformed(what="link", reason=f"number {number} is out of range")
    return Link(number, digest)
