"""SHA-256 trees as RFC 6962, section 2.1, has them: over a tensor's leaves, over a file's, and over digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

LEAF_BYTES = 64 * 1024
_LEAF, _NODE = b"\x00", b"\x01"


def file_tree(data: bytes | memoryview) -> bytes:
    """Return the root of the tree over a file's 64 KiB leaves: by it, parts are proven wherever they come from."""
    return merkle(leaves(data, LEAF_BYTES))


def leaves(data: bytes | memoryview, size: int) -> list[bytes]:
    """Return the digests of the leaves of `size` bytes, the last one shorter."""
    view = memoryview(data)
    return [leaf(view[i : i + size]) for i in range(0, len(view), size)]


def leaf(piece: bytes | memoryview) -> bytes:
    """Return the digest of one leaf."""
    digest = hashlib.sha256(_LEAF)
    digest.update(piece)
    return digest.digest()


def merkle(nodes: Sequence[bytes]) -> bytes:
    """Return the root of a list of digests: split at the largest power of two below its length (RFC 6962)."""
    if not nodes:
        return hashlib.sha256(b"").digest()
    level: Sequence[bytes] = nodes
    while len(level) > 1:
        level = _above(level)
    return level[0]


def audit_path(levels: Sequence[Sequence[bytes]], index: int) -> list[bytes]:
    """Return the digests that prove leaf `index`, from the leaves up (RFC 6962, section 2.1.1). levels: what `tree_levels` gives."""
    path = []
    for level in levels[:-1]:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        index >>= 1
    return path


def tree_levels(nodes: Sequence[bytes]) -> list[list[bytes]]:
    """Return the tree level by level, the leaves first and the root last; an odd digest goes up as it is."""
    levels = [list(nodes)]
    while len(levels[-1]) > 1:
        levels.append(_above(levels[-1]))
    return levels


def root_by_path(node: bytes, index: int, count: int, path: Iterable[bytes]) -> bytes | None:
    """Return the root that a leaf's digest and its audit path come to; None when the path is too short or too long."""
    rest = list(path)
    while count > 1:
        if index ^ 1 < count:
            if not rest:
                return None
            beside = rest.pop(0)
            node = _pair(beside, node) if index & 1 else _pair(node, beside)
        index, count = index >> 1, (count + 1) >> 1
    return None if rest else node


def _above(level: Sequence[bytes]) -> list[bytes]:
    up = [_pair(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return [*up, level[-1]] if len(level) % 2 else up


def _pair(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
