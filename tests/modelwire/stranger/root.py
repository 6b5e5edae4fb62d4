"""Root, root proof and fingerprint (container page)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import limits
from .errors import Malformed, RootMismatch
from .manifest import (
    BFLOAT16,
    FLOAT16,
    INT32,
    LATTICE,
    VERBATIM,
    Array,
    Manifest,
    Tensor,
)
from .merkle import leaves, sha256, tree


def tensor_node(number: int, kind: int, shape: tuple[int, ...], stored: bytes) -> bytes:
    """Give the node of a tensor's stored bytes."""
    head = number.to_bytes(4, "little") + bytes([kind, len(shape)])
    head += b"".join(d.to_bytes(4, "little") for d in shape)
    return sha256(b"\2", head, tree(leaves(stored, limits.LEAF)))


def weights_node(manifest: Manifest, stored: Sequence[bytes]) -> bytes:
    """Give the node over all tensors' stored bytes."""
    return tree([tensor_node(n, t.type, t.shape, stored[n]) for n, t in enumerate(manifest.tensors)])


def q_node(manifest: Manifest, q: Sequence[Array]) -> bytes:
    """Give the node over Q of the 16-bit tensors on the lattice."""
    nodes = []
    for n, t in enumerate(manifest.tensors):
        if t.klass == LATTICE and t.type in (FLOAT16, BFLOAT16):
            nodes.append(tensor_node(n, INT32, t.shape, q[n].astype("<i4").tobytes()))
    return tree(nodes)


def root_proof(manifest: Manifest, stored: Sequence[bytes], units: Sequence[int], q: Sequence[Array]) -> bytes:
    """Give the bytes whose SHA-256 is the root."""
    signed = bytes(e & 255 for e in units)
    return b"\3" + manifest.schema_id + weights_node(manifest, stored) + signed + q_node(manifest, q)


def read_root_proof(proof: bytes, root: bytes | None = None) -> tuple[bytes, bytes, list[int], bytes]:
    """Take a root proof, of a root where one is given, apart: schema id, weights node, units, Q node (C35, C36)."""
    if len(proof) < 97 or proof[0] != 3:
        raise Malformed("C35: not a root proof")
    if root is not None and sha256(proof) != root:
        raise RootMismatch("C36: a proof of another root")
    units = [u - 256 if u > 127 else u for u in proof[65:-32]]
    return proof[1:33], proof[33:65], units, proof[-32:]


def _mix(z: Array) -> Array:
    """Mix 64 bits."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: Array = z ^ (z >> np.uint64(31))
    return out


def _shift(t: Tensor) -> int:
    """Give how far a tensor's numbers are shifted."""
    if t.klass == LATTICE:
        return 0
    return 32 if t.klass == VERBATIM else 64 - 8 * t.width


def lane_sum(index: Array, q: Array, lane: int, shift: int) -> int:
    """Sum Q times r of entries at their global indices, in one lane."""
    z = index.astype(np.uint64) * np.uint64(2) + np.uint64((lane + 0x9E3779B97F4A7C15) % (1 << 64))
    r = (_mix(z) | np.uint64(1)) << np.uint64(shift)
    return int(np.sum(q.astype(np.int64).view(np.uint64) * r, dtype=np.uint64))


def fingerprint(manifest: Manifest, q: Sequence[Array]) -> tuple[int, int]:
    """Give both lanes of a state."""
    lanes = [0, 0]
    start = 0
    for t, values in zip(manifest.tensors, q, strict=True):
        places = np.flatnonzero(values)
        for lane in (0, 1):
            lanes[lane] += lane_sum(places + start, values[places], lane, _shift(t))
        start += t.size
    return lanes[0] % (1 << 64), lanes[1] % (1 << 64)
