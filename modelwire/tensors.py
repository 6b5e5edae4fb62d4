"""Tensors by name, dtype and shape, in one fixed order, and the schema id that stands for that table on the wire."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from itertools import accumulate
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import limits
from .errors import Malformed, ShapeMismatch, TooLarge

F32: TypeAlias = NDArray[np.float32]
I32: TypeAlias = NDArray[np.int32]
U32: TypeAlias = NDArray[np.uint32]
U16: TypeAlias = NDArray[np.uint16]
U8: TypeAlias = NDArray[np.uint8]
Stored: TypeAlias = NDArray[np.uint32] | NDArray[np.uint16] | NDArray[np.uint8]  # bits of one storage type
# A tensor as it is held: float32 whose values its storage type has exactly, and int32 as it is stored. storage.py goes between.
Held: TypeAlias = NDArray[Any]
Weights: TypeAlias = dict[str, Held]


class Codes(IntFlag):
    """What an int8 head asks of its samples. The numbers stand in spools: new ones are only added."""

    NONE = 0  # no such head: any float32
    CODES = 1  # x is whole numbers from -128 to 127
    TARGETS = 2  # a sample may have a target in the place of a class
    SHARES = 4  # whose entries are from 0 to 1
    WIDE = 8  # x is from -32768 to 32767

    @property
    def most(self) -> int:
        """The largest code; the least is one more below zero."""
        return 32767 if Codes.WIDE in self else 127

    @property
    def said(self) -> str:
        """What these are called in errors."""
        return f"int{16 if Codes.WIDE in self else 8} codes, whole numbers from {-self.most - 1} to {self.most}"

    def hold(self, x: NDArray[Any]) -> bool:
        """Return whether all of `x` are such codes."""
        return bool(((x == np.rint(x)) & (x >= -self.most - 1) & (x <= self.most)).all())


_WIDTHS = (0, 4, 2, 2, 1, 4)  # by the number of a Dtype; each leaf of each tensor asks


class Dtype(IntEnum):
    """Storage types by their number on the wire."""

    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    INT8 = 4
    INT32 = 5

    @property
    def width(self) -> int:
        """Bytes of one stored entry."""
        return _WIDTHS[self]

    @property
    def infinity(self) -> int:
        """The bits of its infinity, 0 for integers: all that tells the orders of two types of one width apart."""
        return {Dtype.FLOAT32: 0x7F800000, Dtype.FLOAT16: 0x7C00, Dtype.BFLOAT16: 0x7F80}.get(self, 0)

    @property
    def held(self) -> type[np.float32] | type[np.int32]:
        """The type of the arrays in which it is held."""
        return np.int32 if self is Dtype.INT32 else np.float32


class TensorClass(IntEnum):
    """How a tensor moves, fixed per tensor and base.

    LATTICE: base + Q * 2^e, snapped and adopted. VERBATIM: the difference of bit patterns mod 2^32, for small tensors such as
    batch-norm statistics, which sparse coding would drive out of their range. EXACT: the difference of ordered integers mod 2^width,
    dense: what a device sends that trains freely and adopts nothing.
    """

    LATTICE = 0
    VERBATIM = 1
    EXACT = 2


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor's place in the table."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype = Dtype.FLOAT32
    size: int = field(init=False, repr=False, compare=False)  # entries, 1 for a scalar
    rows: int = field(init=False, repr=False, compare=False)  # as the coder sees them: everything but the last axis
    columns: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Worked out once: a round asks for them thousands of times.
        size, columns = prod(self.shape), self.shape[-1] if self.shape else 1
        for name, value in (("size", size), ("columns", columns), ("rows", size // columns if size else 0)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Schema:
    """The ordered table of tensors. Order is by name; `starts[i]` is tensor i's first global index."""

    tensors: tuple[TensorSpec, ...]
    id: bytes = field(init=False, compare=False, repr=False)  # 32 bytes. docs/format/container.md, "Schema id"
    starts: tuple[int, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_table(self.tensors)
        # Once, not at every update: both cost more than applying a small one.
        object.__setattr__(self, "id", self._id())
        object.__setattr__(self, "starts", (0, *accumulate(t.size for t in self.tensors))[:-1])

    def __repr__(self) -> str:
        return f"<schema {self.id.hex()[:8]}: {self.counted}>"

    @property
    def counted(self) -> str:
        """How large it is, in words."""
        return f"{self.size} weights in {len(self.tensors)} {'tensor' if len(self.tensors) == 1 else 'tensors'}"

    @property
    def size(self) -> int:
        """Weights of the whole model."""
        return sum(t.size for t in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole model as float32, which is what updates are compared with."""
        return 4 * self.size

    def _id(self) -> bytes:
        h = hashlib.sha256(b"modelwire schema 1\0" + struct.pack("<I", len(self.tensors)))
        for t in self.tensors:
            name = t.name.encode()
            h.update(struct.pack("<H", len(name)) + name + struct.pack("<BB", t.dtype, len(t.shape)))
            h.update(struct.pack(f"<{len(t.shape)}I", *t.shape))
        return h.digest()

    def index(self, name: str) -> int:
        """Return the place of the tensor `name`. Raises KeyError."""
        for i, t in enumerate(self.tensors):
            if t.name == name:
                return i
        raise KeyError(name)

    def flat(self, weights: Mapping[str, NDArray[np.generic]]) -> list[Held]:
        """Return `weights`, held as their types are, as contiguous flat arrays in schema order; no copy where none is needed.

        Raises ShapeMismatch when a tensor is missing, has another shape or dtype, or when there is one too many.
        """
        extra = sorted(set(weights) - {t.name for t in self.tensors})
        if extra:
            raise ShapeMismatch(tensor=extra[0], expected="no such tensor", got="a tensor")
        out = []
        for t in self.tensors:
            expected = f"{np.dtype(t.dtype.held)}{list(t.shape)}"
            if t.name not in weights:
                raise ShapeMismatch(tensor=t.name, expected=expected, got="nothing")
            a = np.asarray(weights[t.name])
            if a.dtype != t.dtype.held or a.shape != t.shape:
                raise ShapeMismatch(tensor=t.name, expected=expected, got=f"{a.dtype}{list(a.shape)}")
            out.append(np.ascontiguousarray(a).reshape(-1))
        return out

    def shaped(self, flat: list[Held]) -> Weights:
        """Return the flat arrays as a mapping by name, in their shapes, without copies."""
        return {t.name: a.reshape(t.shape) for t, a in zip(self.tensors, flat, strict=True)}


def check_table(tensors: tuple[TensorSpec, ...], limit: limits.Limits = limits.DEFAULT) -> None:
    """Raise Malformed or TooLarge when the table is not one that a schema may hold."""
    if not tensors:
        raise Malformed(what="schema", reason="it holds no tensor")
    if len(tensors) > limit.tensors:
        raise TooLarge(what="the schema", size=len(tensors), limit=limit.tensors)
    names = [t.name for t in tensors]
    if names != sorted(set(names)):
        raise Malformed(what="schema", reason="tensor names are not unique and sorted")
    total = 0
    for t in tensors:
        if not t.name or len(t.name) > limit.tensor_name or not t.name.isascii() or not t.name.isprintable():
            raise Malformed(what="schema", reason=f"{t.name[:40]!r} is not a tensor name")
        if len(t.shape) > limit.rank or any(not 0 < d < 1 << 31 for d in t.shape):
            raise Malformed(what="schema", reason=f"{t.name}: shape {list(t.shape)} is out of range")
        total += t.size
        if total > limit.elements:
            raise TooLarge(what="the model", size=total, limit=limit.elements)
