"""Base manifests and schema ids (container page)."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from . import cbor, limits
from .errors import Malformed, TooLarge
from .merkle import sha256

FLOAT32, FLOAT16, BFLOAT16, INT8, INT32 = 1, 2, 3, 4, 5
LATTICE, VERBATIM, EXACT = 0, 1, 2
WIDTH = {FLOAT32: 4, FLOAT16: 2, BFLOAT16: 2, INT8: 1, INT32: 4}
CLASSES = {FLOAT32: (0, 1, 2), FLOAT16: (0, 2), BFLOAT16: (0, 2), INT8: (0, 2), INT32: (1, 2)}
BITS: dict[int, npt.DTypeLike] = {1: np.uint8, 2: np.uint16, 4: np.uint32}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a base."""

    name: str
    type: int
    shape: tuple[int, ...]
    klass: int
    e: int

    @property
    def size(self) -> int:
        """Count the entries."""
        return prod(self.shape)

    @property
    def width(self) -> int:
        """Give the bytes of an entry."""
        return WIDTH[self.type]

    @property
    def is_float(self) -> bool:
        """Say whether the entries are floats."""
        return self.type in (FLOAT32, FLOAT16, BFLOAT16)

    @property
    def modulus(self) -> int:
        """Give what Q of a verbatim or exact tensor counts by."""
        return 1 << (8 * self.width)

    @property
    def matrix(self) -> tuple[int, int]:
        """Give rows and columns as the coder sees them."""
        columns = self.shape[-1] if self.shape else 1
        return self.size // columns, columns


@dataclass(frozen=True)
class Manifest:
    """What both sides hold in common of a base."""

    raw: bytes
    file: bytes
    root: bytes
    size: int
    tensors: tuple[Tensor, ...]
    tree: bytes
    more: dict[str, Any]

    @property
    def commit(self) -> bytes:
        """Name version 0."""
        return sha256(self.raw)

    @property
    def all_exact(self) -> bool:
        """Say whether the base is exact as a whole."""
        return all(t.klass == EXACT for t in self.tensors)

    @property
    def schema_id(self) -> bytes:
        """Name which tensors there are."""
        out = b"modelwire schema 1\0" + len(self.tensors).to_bytes(4, "little")
        for t in self.tensors:
            name = t.name.encode()
            out += len(name).to_bytes(2, "little") + name + bytes([t.type, len(t.shape)])
            out += b"".join(d.to_bytes(4, "little") for d in t.shape)
        return sha256(out)


def _tensor(item: Any) -> Tensor:
    """Read one tensor (C20, C22, C23, C25, C26, and the types of C21 and C24)."""
    if not isinstance(item, list) or len(item) != 5:
        raise Malformed("C20: a tensor that is not an array of five")
    name, kind, shape, klass, e = item
    if not cbor.is_int(kind, 1, 5):
        raise Malformed("C22: a tensor's type")
    if not cbor.is_int(klass, 0, 2) or klass not in CLASSES[kind]:
        raise Malformed("C23: a tensor's class")
    if not cbor.is_int(e, limits.E_MIN, limits.E_MAX):
        raise Malformed("C25: a tensor's e")
    if e != 0 and (klass != LATTICE or kind == INT8):
        raise Malformed("C26: e of a tensor without unit")
    if not isinstance(name, str):
        raise Malformed("C21: a tensor's name that is no text")
    if not isinstance(shape, list) or any(not isinstance(d, int) or isinstance(d, bool) for d in shape):
        raise Malformed("C24: a tensor's shape that is no array of integers")
    return Tensor(name, kind, tuple(shape), klass, e)


def _check_name(name: str) -> None:
    """Check length and characters of a tensor's name (C21)."""
    if not re.fullmatch(rf"[\x20-\x7e]{{1,{limits.TENSOR_NAME}}}", name):
        raise Malformed("C21: a tensor's name")


def _tensors(items: Any) -> tuple[Tensor, ...]:
    """Read all tensors: the rows, the table (C27 to C29), then name, shape and entries so far (C21, C24, C30)."""
    if not isinstance(items, list):
        raise Malformed("C20: tensors that are no array")
    tensors = tuple(_tensor(item) for item in items)
    if not tensors:
        raise Malformed("C27: no tensors")
    if len(tensors) > limits.TENSORS:
        raise TooLarge("C28: too many tensors")
    names = [t.name.encode() for t in tensors]
    if any(a >= b for a, b in itertools.pairwise(names)):
        for t in tensors:
            _check_name(t.name)  # of the same error, and it tells more
        raise Malformed("C29: names that do not rise")
    entries = 0
    for t in tensors:
        _check_name(t.name)
        if len(t.shape) > limits.RANK or not all(1 <= d < 1 << 31 for d in t.shape):
            raise Malformed("C24: a tensor's shape")
        entries += t.size
        if entries > limits.ELEMENTS:
            raise TooLarge("C30: too many entries")
    return tensors


def read_manifest(raw: bytes) -> Manifest:
    """Read a manifest: C13, the CBOR, more (C16, C17), C14, C15, C18, C19, the tensors."""
    if len(raw) > limits.MANIFEST:
        raise TooLarge("C13: manifest too long")
    value = cbor.decode(raw, items=16 * limits.TENSORS)
    if not isinstance(value, dict):
        raise Malformed("C14: a manifest that is not a map")
    more = value.get("more", {})
    if "more" in value and (not isinstance(more, dict) or not more):
        raise Malformed("C16: more of a manifest")
    cbor.refuse_critical(more)
    if set(value) - {"more"} != {"file", "manifest", "root", "size", "tensors", "tree"}:
        raise Malformed("C14: keys of a manifest")
    if not cbor.is_int(value["manifest"], 1, 1):
        raise Malformed("C15: format of a manifest")
    for key in ("file", "root", "tree"):
        if not isinstance(value[key], bytes) or len(value[key]) != 32:
            raise Malformed(f"C18: {key} of a manifest")
    if not cbor.is_int(value["size"], 1, limits.MODEL_FILE):
        raise Malformed("C19: size of a manifest")
    tensors = _tensors(value["tensors"])
    return Manifest(raw, value["file"], value["root"], value["size"], tensors, value["tree"], more)
