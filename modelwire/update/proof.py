"""What is left of an update when its content is gone: its header and two digests, which still prove it. docs/format/container.md.

A header proof has the preamble, the header, the digests of extension and content, and the device's signature: so commit, parent, root,
version and sender are proven, and a chain of them proves a thinned history.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from modelwire import limits
from modelwire.errors import Malformed, TooLarge, UnknownParent, UnsupportedWire
from modelwire.wire import signing

from .container import Buffer, parse
from .header import PREAMBLE_BYTES, Header, commit_from, read_header, read_preamble

MAGIC = b"\x89MWH"
VERSION = 1
_HEAD = struct.Struct("<4sI")  # magic, version
_TAIL = 32 + 32 + signing.SIGNATURE_BYTES  # of what lies behind the header


@dataclass(frozen=True, slots=True)
class HeaderProof:
    """A parsed header proof. Its commit is computed, so it is proven by whoever knows the commit, or by the signature."""

    header: Header  # without its extension
    commit: bytes
    signature: bytes

    @property
    def name(self) -> str:
        """DEVICE/MODEL@VERSION."""
        return f"{self.header.device}/{self.header.model}@{self.header.version}"

    def verify(self, public: bytes, fleet: bytes) -> None:
        """Raise BadSignature unless the device that `public` belongs to sealed the update, in the fleet with this id."""
        signing.verify(public, signing.UPDATE, fleet, self.commit, self.signature, what=self.name, signer=self.header.device)


def header_proof(container: Buffer, limit: limits.Limits = limits.DEFAULT) -> bytes:
    """Return what proves this update without its content. Raises as `parse` does."""
    parse(container, limit)
    view = memoryview(container)
    said = read_preamble(view, limit)
    at_ext = PREAMBLE_BYTES + said.header
    at_table, end = at_ext + said.extension, len(view) - signing.SIGNATURE_BYTES
    digests = hashlib.sha256(view[at_ext:at_table]).digest() + hashlib.sha256(view[at_table : end - 32]).digest()
    return _HEAD.pack(MAGIC, VERSION) + bytes(view[:at_ext]) + digests + bytes(view[end:])


def parse_header_proof(data: bytes, limit: limits.Limits = limits.LARGE) -> HeaderProof:
    """Return the header proof that `data` holds, exactly. Raises TooLarge, Malformed, DigestMismatch or UnsupportedWire."""
    if len(data) > limit.header + _HEAD.size + PREAMBLE_BYTES + _TAIL:
        raise TooLarge(what="the header proof", size=len(data), limit=limit.header)
    if len(data) < _HEAD.size + PREAMBLE_BYTES + _TAIL:
        raise Malformed(what="header proof", reason=f"{len(data)} bytes are too few")
    magic, version = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise Malformed(what="header proof", reason="it does not start as one")
    if version != VERSION:
        raise UnsupportedWire(what="header proof", got=version, reads=VERSION)
    said = read_preamble(memoryview(data)[_HEAD.size :], limit)
    end = _HEAD.size + PREAMBLE_BYTES + said.header
    if end + _TAIL != len(data):
        raise Malformed(what="header proof", reason="its parts do not fill it exactly")
    front, rest = data[_HEAD.size : end], data[end:]
    commit = commit_from(front, rest[:32], rest[32:64])
    return HeaderProof(read_header(front[PREAMBLE_BYTES:], {}), commit, rest[64:])


def check_chain(proofs: Iterable[HeaderProof], start: bytes, public: bytes, fleet: bytes) -> bytes:
    """Return the commit at the end of a chain that starts on the commit `start`, all of it proven.

    Raises BadSignature, or UnknownParent where one does not stand on the one before it.
    """
    for proof in proofs:
        proof.verify(public, fleet)
        if proof.header.parent != start:
            raise UnknownParent(device=proof.header.device, version=proof.header.version, parent=proof.header.parent.hex()[:16])
        start = proof.commit
    return start
