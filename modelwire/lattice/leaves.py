"""The leaves of a state's root, kept between two roots: an update is followed by hashing what it touched, and not the whole model.

The root is the very same (identity.py says what it is made of). Kept are digests alone, 32 bytes for each 64 KiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from modelwire import identity
from modelwire.identity import RootParts
from modelwire.merkle import LEAF_BYTES, merkle
from modelwire.tensors import I32, U32, Dtype, Held, TensorSpec
from modelwire.update.container import Container
from modelwire.update.manifest import Manifest
from modelwire.update.sections import AnySection, PlaneSection

_HASH_LEAF, _DECODE_ENTRY = 35.0, 0.1  # microseconds, of one core with SHA extensions; their ratio decides what is cheaper


class _Tree:
    """The tree over one array of a tensor, as it is stored or as Q."""

    __slots__ = ("digests", "dtype", "head", "node", "spec", "stale")

    def __init__(self, index: int, spec: TensorSpec, dtype: Dtype) -> None:
        self.spec, self.dtype, self.head = spec, dtype, identity.head_of(index, spec, dtype)
        self.digests: list[bytes] = [b""] * -(-spec.size * dtype.width // LEAF_BYTES)
        self.stale: set[int] | None = None  # leaves whose digests are old; None: all of them
        self.node = b""

    def touch(self, index: U32) -> None:
        """Note that entries may have changed."""
        if self.stale is None:
            return
        if len(index) >= 4 * len(self.digests):  # nearly all of them anyhow
            self.stale = None
            return
        entries = LEAF_BYTES // self.dtype.width
        self.stale.update(np.unique(index // np.uint32(entries)).tolist())


class RootLeaves:
    """The digests of one state's leaves. Whoever changes the state says what was touched; at first all is."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        tensors = manifest.schema.tensors
        self._weights = [_Tree(t, spec, spec.dtype) for t, spec in enumerate(tensors)]
        self._integers = {t: _Tree(t, tensors[t], Dtype.INT32) for t in sorted(manifest.kept)}

    def touch_all(self) -> None:
        for tree in (*self._weights, *self._integers.values()):
            tree.stale = None

    def touch(self, sections: Iterable[AnySection]) -> None:
        """Note what sections change."""
        for s in sections:
            for tree in self._of(s.tensor):
                if isinstance(s, PlaneSection):
                    tree.stale = None
                else:
                    tree.touch(s.index)

    def touch_by(self, update: Container) -> None:
        """Note what a container changed that was applied: no snapshot, and well formed."""
        entries = update.entries
        before = [(tree, tree.stale) for e in entries for tree in self._of(e.tensor)]
        for tree, _ in before:
            tree.stale = None
        spared = sum(max(0, len(self._weights[e.tensor].digests) - e.count) for e in entries)
        # To know which leaves, the stream is decoded once more; mostly each of them has an entry.
        if spared and not update.planes and spared * _HASH_LEAF > sum(e.count for e in entries) * _DECODE_ENTRY:
            sections = update.sections(self._manifest.schema)
            for tree, stale in before:
                tree.stale = stale
            self.touch(sections)

    def parts(self, weights: Sequence[Held], exponents: Sequence[int], integers: Sequence[I32]) -> RootParts:
        """Return what the root is made of. Raises as `identity.root_parts`; what is stale then stays so."""
        schema = self._manifest.schema
        nodes = [self._node(tree, a) for tree, a in zip(self._weights, weights, strict=True)]
        kept = [self._node(tree, integers[t]) for t, tree in self._integers.items()]
        return RootParts(schema.id, merkle(nodes), tuple(exponents), merkle(kept))

    def _of(self, tensor: int) -> list[_Tree]:
        kept: Mapping[int, _Tree] = self._integers
        return [self._weights[tensor], *([kept[tensor]] if tensor in kept else [])]

    def _node(self, tree: _Tree, array: Held) -> bytes:
        if tree.stale is None:
            tree.digests[:] = identity.leaves_of(tree.spec, tree.dtype, array)
        elif tree.stale:
            for leaf in tree.stale:
                tree.digests[leaf] = identity.leaf_of(tree.dtype, array, leaf)
        if tree.stale is None or tree.stale:
            tree.node = identity.node_over(tree.head, tree.digests)
            tree.stale = set()
        return tree.node
