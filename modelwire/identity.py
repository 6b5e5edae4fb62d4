"""SHA-256 Merkle root over a model's stored bytes: what makes two copies of a version provably equal.

Leaves are 64 KiB of one tensor and never cross a tensor; prefixes as in RFC 6962, section 2.1. docs/wire-format.md, "Root".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from . import storage
from .errors import ShapeMismatch
from .tensors import Held, Schema, TensorSpec

LEAF_BYTES = 64 * 1024
_LEAF, _NODE, _TENSOR, _MODEL = b"\x00", b"\x01", b"\x02", b"\x03"


def root_of(schema: Schema, flat: Sequence[Held]) -> bytes:
    """Return the 32-byte root of a model. flat: one contiguous array a tensor, held as its type is, in schema order.

    Raises Malformed for a weight that its storage type does not have, NonFinite for one that is no number in it.
    """
    nodes = [tensor_node(i, spec, a) for i, (spec, a) in enumerate(zip(schema.tensors, flat, strict=True))]
    return hashlib.sha256(_MODEL + schema.id + merkle(nodes)).digest()


def tensor_node(index: int, spec: TensorSpec, array: Held) -> bytes:
    """Return the digest of one tensor as it is stored: its leaves, bound to its place, dtype and shape."""
    if len(array) != spec.size or array.dtype != spec.dtype.held:
        raise ShapeMismatch(tensor=spec.name, expected=f"{spec.size} entries", got=f"{len(array)} of {array.dtype}")
    leaves = []
    for piece in storage.pieces(spec.dtype, array, LEAF_BYTES):
        leaf = hashlib.sha256(_LEAF)
        leaf.update(piece)
        leaves.append(leaf.digest())
    head = struct.pack(f"<IBB{len(spec.shape)}I", index, spec.dtype, len(spec.shape), *spec.shape)
    return hashlib.sha256(_TENSOR + head + merkle(leaves)).digest()


def merkle(nodes: Sequence[bytes]) -> bytes:
    """Return the root of a list of digests: split at the largest power of two below its length (RFC 6962)."""
    if not nodes:
        return hashlib.sha256(b"").digest()
    if len(nodes) == 1:
        return nodes[0]
    split = 1 << (len(nodes) - 1).bit_length() - 1
    return hashlib.sha256(_NODE + merkle(nodes[:split]) + merkle(nodes[split:])).digest()
