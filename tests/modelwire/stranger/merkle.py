"""Trees of SHA-256 in the shape of RFC 6962."""

from __future__ import annotations

import hashlib


def sha256(*parts: bytes) -> bytes:
    """Hash the parts, one behind the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def leaf(piece: bytes) -> bytes:
    """Give the node of a piece."""
    return sha256(b"\0", piece)


def tree(nodes: list[bytes]) -> bytes:
    """Give the one node over all of them."""
    if not nodes:
        return sha256()
    if len(nodes) == 1:
        return nodes[0]
    k = 1 << ((len(nodes) - 1).bit_length() - 1)
    return sha256(b"\1", tree(nodes[:k]), tree(nodes[k:]))


def leaves(data: bytes, size: int) -> list[bytes]:
    """Cut data into pieces of size bytes and give their leaves."""
    return [leaf(data[at : at + size]) for at in range(0, len(data), size)]


def path(i: int, nodes: list[bytes]) -> list[bytes]:
    """Give the audit path of node i, lowest first."""
    if len(nodes) == 1:
        return []
    k = 1 << ((len(nodes) - 1).bit_length() - 1)
    if i < k:
        return [*path(i, nodes[:k]), tree(nodes[k:])]
    return [*path(i - k, nodes[k:]), tree(nodes[:k])]


def proven(piece: bytes, i: int, n: int, digests: list[bytes], top: bytes) -> bool:
    """Say whether the path of piece i of n leads to top."""
    node, at, last, used = leaf(piece), i, n - 1, 0
    while last > 0:
        if at & 1 or at < last:
            if used == len(digests):
                return False
            node = sha256(b"\1", digests[used], node) if at & 1 else sha256(b"\1", node, digests[used])
            used += 1
        at //= 2
        last //= 2
    return used == len(digests) and node == top
