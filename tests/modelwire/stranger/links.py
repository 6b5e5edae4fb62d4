"""Links of the centre's log (protocol page, Acts and the centre's log)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import ed25519
from .errors import Malformed
from .fields import check_link_number
from .merkle import sha256


@dataclass(frozen=True)
class Link:
    """A number and a hash."""

    number: int
    digest: bytes

    @property
    def raw(self) -> bytes:
        """Give the 40 bytes that travel."""
        return self.number.to_bytes(8, "little") + self.digest

    def following(self, entry: bytes) -> Link:
        """Give the link of the next entry."""
        number = self.number + 1
        return Link(number, sha256(b"\6", number.to_bytes(8, "little"), self.digest, sha256(entry)))


START = Link(0, bytes(32))


def read_link(raw: bytes) -> Link:
    """Read a link (P44, P45)."""
    if len(raw) != 40:
        raise Malformed("P44: a link that is not 40 bytes")
    number = int.from_bytes(raw[:8], "little")
    check_link_number(number)
    return Link(number, raw[8:])


def verify_link(raw: bytes, signature: bytes, keys: Iterable[bytes], fleet_id: bytes) -> Link:
    """Read a link and check its signature (P46)."""
    link = read_link(raw)
    ed25519.verify(keys, ed25519.LINK, fleet_id, raw, signature)
    return link
