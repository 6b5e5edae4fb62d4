"""Header proofs (container page)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import ed25519, limits
from .container import Header, Preamble, commit_of, read_header, read_preamble
from .errors import Malformed, TooLarge, UnknownParent, UnsupportedWire

MAGIC = b"\x89MWH"


@dataclass(frozen=True)
class HeaderProof:
    """What is left of a version."""

    preamble: Preamble
    header: Header
    extension: bytes
    content: bytes
    commit: bytes


def read_proof(data: bytes, keys: Iterable[bytes], fleet: bytes) -> HeaderProof:
    """Read a header proof and check its signature (C80 to C84)."""
    if len(data) > limits.HEADER + 168:
        raise TooLarge("C80: header proof")
    if len(data) < 168:
        raise Malformed("C83: header proof too short")
    if data[:4] != MAGIC:
        raise Malformed("C81: another magic")
    if int.from_bytes(data[4:8], "little") != 1:
        raise UnsupportedWire("C82: another version")
    preamble = read_preamble(data[8:40])
    if len(data) != 168 + preamble.header:
        raise Malformed("C83: length of a header proof")
    end = 40 + preamble.header
    header = read_header(data[40:end])
    extension, content, signature = data[end : end + 32], data[end + 32 : end + 64], data[end + 64 :]
    commit = commit_of(preamble.raw, header.raw, extension, content)
    ed25519.verify(keys, ed25519.UPDATE, fleet, commit, signature)
    return HeaderProof(preamble, header, extension, content, commit)


def read_chain(proofs: Sequence[bytes], start: bytes, keys: Sequence[bytes], fleet: bytes) -> list[HeaderProof]:
    """Read a chain of header proofs, from the commit that it starts on (C85)."""
    out: list[HeaderProof] = []
    for data in proofs:
        proof = read_proof(data, keys, fleet)
        if proof.header.parent != (out[-1].commit if out else start):
            raise UnknownParent("C85: another parent")
        out.append(proof)
    return out
