"""Entries of the log of which a device's erasure left their digests alone: each proves that the operator's word covers it.

The link of an entry binds its SHA-256, so the log stays whole without what the entry said. Whoever writes to the registry could hide any
entry that way, so an erased one carries its path in a tree, whose root is in what the operator sealed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from modelwire import merkle
from modelwire.errors import Malformed
from modelwire.wire import cbor

from .entries import ERASED, Decided


@dataclass(frozen=True, slots=True)
class Covered:
    """One entry that goes."""

    number: int
    digest: bytes  # SHA-256 of the entry

    @property
    def leaf(self) -> bytes:
        return merkle.leaf(struct.pack("<Q", self.number) + self.digest)


class Cover:
    """The tree over the entries that one erasure takes, in the order of their numbers."""

    def __init__(self, entries: Sequence[Covered]) -> None:
        self.entries = sorted(entries, key=lambda one: one.number)
        self._levels = merkle.tree_levels([one.leaf for one in self.entries])

    @property
    def root(self) -> bytes:
        return self._levels[-1][0] if self.entries else hashlib.sha256(b"").digest()

    def left_of(self, index: int, by: int) -> bytes:
        """Return what stands in the place of entry `index` of the cover. by: number of the erasure."""
        path = b"".join(merkle.audit_path(self._levels, index))
        digest, count = self.entries[index].digest, len(self.entries)
        return cbor.encode({"kind": ERASED, "at": 0, "by": by, "digest": digest, "index": index, "count": count, "path": path})


def root_of(entry: Decided) -> tuple[int, int, bytes]:
    """Return the number of the erasure that an erased entry names, the count and the root that must be in it. Raises Malformed."""
    index, count, path, digest = entry.integer("index"), entry.integer("count"), entry.bytes("path"), entry.bytes("digest")
    root = None
    if 0 <= index < count < 1 << 31 and len(path) % 32 == 0 and len(digest) == 32:
        nodes = [path[i : i + 32] for i in range(0, len(path), 32)]
        root = merkle.root_by_path(Covered(entry.number, digest).leaf, index, count, nodes)
    if root is None:
        raise Malformed(what=f"entry {entry.number} of the log", reason="it is erased, and its path is none")
    return entry.integer("by"), count, root
