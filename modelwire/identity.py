"""The root that names a model: what makes two copies of a version provably equal. docs/format/container.md, "Root".

Leaves are 64 KiB of one tensor and never cross a tensor; prefixes as in RFC 6962, section 2.1. The root binds what follows from nothing
else: the stored weights, the units, and Q where a short float has forgotten it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from . import storage
from .errors import Malformed, RootMismatch, ShapeMismatch
from .merkle import LEAF_BYTES, leaf, leaves, merkle
from .tensors import I32, Dtype, Held, Schema, TensorSpec

_TENSOR, _MODEL = b"\x02", b"\x03"


@dataclass(frozen=True, slots=True)
class RootParts:
    """What a root is the digest of: who holds these can prove a bare `.tflite`, whose weights node is all that it needs."""

    schema_id: bytes
    weights: bytes  # node over the tensors as they are stored
    units: tuple[int, ...]  # exponent a tensor; 0 where it has no unit
    integers: bytes  # node over Q of float16 and bfloat16 tensors on the lattice

    def encode(self) -> bytes:
        """Return the bytes whose SHA-256 is the root."""
        return _MODEL + self.schema_id + self.weights + struct.pack(f"<{len(self.units)}b", *self.units) + self.integers

    @property
    def root(self) -> bytes:
        return hashlib.sha256(self.encode()).digest()

    def prove(self, root: bytes) -> None:
        """Raise RootMismatch unless these are the parts of `root`: then its weights node proves a model file."""
        if self.root != root:
            raise RootMismatch(what="the root proof", kind="root", device="DEVICE")


def parse_root_parts(data: bytes) -> RootParts:
    """Return the parts that `encode` wrote: whose SHA-256 is a root. Raises Malformed."""
    count = len(data) - 97
    if count < 0 or data[:1] != _MODEL:
        raise Malformed(what="root proof", reason=f"{len(data)} bytes are none")
    return RootParts(data[1:33], data[33:65], struct.unpack_from(f"<{count}b", data, 65), data[65 + count :])


def root_parts(schema: Schema, flat: Sequence[Held], units: Sequence[int], integers: Mapping[int, I32]) -> RootParts:
    """Return what a model's root is made of. flat: one contiguous array a tensor, held as its type is, in schema order.

    units: exponent a tensor. integers: Q by tensor where it does not follow from the weights (`Manifest.kept`).
    Raises Malformed for a weight that its storage type does not have, NonFinite for one that is no number in it.
    """
    kept = [_node(t, schema.tensors[t], Dtype.INT32, (q.data.cast("B"),)) for t, q in sorted(integers.items())]
    return RootParts(schema.id, weights_node(schema, flat), tuple(units), merkle(kept))


def weights_node(schema: Schema, flat: Sequence[Held]) -> bytes:
    """Return the node over all tensors as they are stored: what a bare `.tflite` has of a root. Raises as `root_parts`."""
    return merkle([tensor_node(i, spec, a) for i, (spec, a) in enumerate(zip(schema.tensors, flat, strict=True))])


def tensor_node(index: int, spec: TensorSpec, array: Held) -> bytes:
    """Return the digest of one tensor as it is stored: its leaves, bound to its place, dtype and shape."""
    return node_of_leaves(index, spec, tensor_leaves(spec, array))


def node_of_leaves(index: int, spec: TensorSpec, digests: Sequence[bytes]) -> bytes:
    """Return the same of a tensor that is known by the digests of its leaves alone."""
    return hashlib.sha256(head_of(index, spec, spec.dtype) + merkle(digests)).digest()


def tensor_leaves(spec: TensorSpec, array: Held) -> list[bytes]:
    """Return the digests of a tensor's leaves. Raises ShapeMismatch, and as `root_parts`."""
    if len(array) != spec.size or array.dtype != spec.dtype.held:
        raise ShapeMismatch(tensor=spec.name, expected=f"{spec.size} entries", got=f"{len(array)} of {array.dtype}")
    return [leaf(piece) for piece in storage.pieces(spec.dtype, array, LEAF_BYTES)]


def leaves_of(spec: TensorSpec, dtype: Dtype, array: Held | I32) -> list[bytes]:
    """Return the digests of all leaves of a tensor's array: as it is stored, or its Q, whose dtype is int32."""
    if dtype is spec.dtype:
        return tensor_leaves(spec, array)
    return leaves(array.data.cast("B"), LEAF_BYTES)


def leaf_of(dtype: Dtype, array: Held | I32, index: int) -> bytes:
    """Return the digest of one leaf of an array. Raises Malformed or NonFinite as `root_parts`."""
    entries = LEAF_BYTES // dtype.width
    return leaf(storage.bits(dtype, array[index * entries : (index + 1) * entries]).data.cast("B"))


def node_over(head: bytes, digests: Sequence[bytes]) -> bytes:
    """Return the digest of one tensor's array by the digests of its leaves. head: what `head_of` gives."""
    return hashlib.sha256(head + merkle(digests)).digest()


def head_of(index: int, spec: TensorSpec, dtype: Dtype) -> bytes:
    """Return what a tensor's digest begins with: its place, dtype and shape."""
    return _TENSOR + struct.pack(f"<IBB{len(spec.shape)}I", index, dtype, len(spec.shape), *spec.shape)


def no_integers(sizes: Mapping[int, int]) -> dict[int, I32]:
    """Return the integers of a base, all 0. sizes: entries by tensor."""
    return {t: np.zeros(n, np.int32) for t, n in sizes.items()}


def _node(index: int, spec: TensorSpec, dtype: Dtype, pieces: Iterable[memoryview]) -> bytes:
    nodes = [digest for piece in pieces for digest in leaves(piece, LEAF_BYTES)]
    return hashlib.sha256(head_of(index, spec, dtype) + merkle(nodes)).digest()
