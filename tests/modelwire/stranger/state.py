"""A model: a base, its Q and units, and the weights that follow (container page, What the numbers mean)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from . import limits
from .errors import Malformed, NonFinite, RangeOverflow, WrongBase
from .manifest import (
    BFLOAT16,
    BITS,
    EXACT,
    FLOAT16,
    FLOAT32,
    INT8,
    LATTICE,
    VERBATIM,
    Array,
    Manifest,
    Tensor,
)
from .merkle import sha256
from .root import fingerprint, root_proof

_EXPONENT = {FLOAT32: 0x7F800000, FLOAT16: 0x7C00, BFLOAT16: 0x7F80}


def to_float32(bits: Array, kind: int) -> Array:
    """Read stored bits of a float type as float32."""
    if kind == FLOAT32:
        return bits.view(np.float32)
    if kind == FLOAT16:
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bits(values: Array, kind: int) -> Array:
    """Round float32 to a float type, to nearest even, and give the bits."""
    if kind == FLOAT32:
        return values.view(np.uint32)
    if kind == FLOAT16:
        with np.errstate(over="ignore", under="ignore"):
            return values.astype(np.float16).view(np.uint16)
    wide = values.view(np.uint32).astype(np.uint64)
    return ((wide + 0x7FFF + ((wide >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)


def finite(bits: Array, kind: int) -> bool:
    """Say whether all floats are finite."""
    mask = _EXPONENT[kind]
    return bool(np.all((bits & mask) != mask))


def ordered(bits: Array, t: Tensor) -> Array:
    """Turn stored bits into the integers of planes, or back, as int64 from 0."""
    x = bits.astype(np.int64)
    if not t.is_float:
        return x
    top = t.modulus >> 1
    return np.where(x & top, x ^ (top - 1), x)


def _refuse_first(faults: dict[str, Array]) -> None:
    """Refuse by the first entry that has a fault, and by the first fault of this entry (C101 to C103)."""
    first = [(int(np.argmax(bad)), rule) for rule, bad in faults.items() if np.any(bad)]
    if first:
        _, rule = min(first, key=lambda item: item[0])
        raise (NonFinite if rule == "C103" else RangeOverflow)(f"{rule}: an entry beyond its range")


def _lattice_int8(base: Array, q: Array) -> Array:
    """Move an int8 tensor on the lattice (C101, C102)."""
    whole = base.view(np.int8).astype(np.int64) + q
    _refuse_first({"C101": np.abs(q) > limits.Q_MAX, "C102": np.abs(whole) > 127})
    return whole.astype(np.int8).view(np.uint8)


def _lattice_float(t: Tensor, base: Array, q: Array, e: int) -> Array:
    """Move a float tensor on the lattice (C101, C103)."""
    if not np.any(q):
        return base
    with np.errstate(over="ignore", under="ignore"):
        step = np.ldexp(q.astype(np.float32), np.int32(e)).astype(np.float32)
        moved = to_bits(to_float32(base, t.type) + step, t.type)
    mask = _EXPONENT[t.type]
    _refuse_first({"C101": np.abs(q) > limits.Q_MAX, "C103": (q != 0) & ((moved & mask) == mask)})
    return np.where(q == 0, base, moved)


def weights_of(t: Tensor, base: Array, q: Array, e: int) -> Array:
    """Compute a tensor's stored bits from base and Q (C101 to C104, C100)."""
    if t.klass == LATTICE:
        return _lattice_int8(base, q) if t.type == INT8 else _lattice_float(t, base, q, e)
    dtype = BITS[t.width]
    if t.klass == VERBATIM:
        moved = ((base.astype(np.int64) + q) % t.modulus).astype(dtype)
    else:
        moved = ordered((ordered(base, t) + q) % t.modulus, t).astype(dtype)
    if t.is_float and not finite(moved, t.type):
        raise NonFinite("C100, C104: a float that is not finite")
    return moved


@dataclass(frozen=True)
class State:
    """A version of a model."""

    manifest: Manifest
    base: tuple[Array, ...]
    q: tuple[Array, ...]
    units: tuple[int, ...]

    @cached_property
    def bits(self) -> tuple[Array, ...]:
        """Give the stored entries of all tensors, as unsigned integers."""
        rows = zip(self.manifest.tensors, self.base, self.q, self.units, strict=True)
        return tuple(weights_of(t, b, q, e) for t, b, q, e in rows)

    def prove(self) -> None:
        """Refuse what no weight may be (C100 to C104)."""
        _ = self.bits

    @cached_property
    def stored(self) -> tuple[bytes, ...]:
        """Give the stored bytes of all tensors."""
        return tuple(b.astype(b.dtype.newbyteorder("<")).tobytes() for b in self.bits)

    @cached_property
    def root_proof(self) -> bytes:
        """Give the root proof."""
        return root_proof(self.manifest, self.stored, self.units, self.q)

    @property
    def root(self) -> bytes:
        """Give the root."""
        return sha256(self.root_proof)

    @cached_property
    def fingerprint(self) -> tuple[int, int]:
        """Give the fingerprint."""
        return fingerprint(self.manifest, self.q)

    def at_base(self) -> State:
        """Give version 0 of the same base."""
        zeros = tuple(np.zeros(t.size, np.int64) for t in self.manifest.tensors)
        return State(self.manifest, self.base, zeros, tuple(t.e for t in self.manifest.tensors))

    def moved(self, differences: dict[int, Array], units: Sequence[int] | None = None) -> State:
        """Add dQ to Q."""
        q = list(self.q)
        for n, d in differences.items():
            t = self.manifest.tensors[n]
            q[n] = q[n] + d
            if t.klass != LATTICE:
                q[n] = q[n] % t.modulus
        return replace(self, q=tuple(q), units=tuple(units) if units is not None else self.units)


def least_exponent(t: Tensor, base: Array) -> int:
    """Give the lowest e of a float tensor on the lattice (C33, C75)."""
    peak = float(np.max(np.abs(to_float32(base, t.type)))) if t.size else 0.0
    if peak == 0:
        return limits.E_MIN
    mantissa, exponent = np.frexp(peak)
    return int(exponent) - (1 if mantissa == 0.5 else 0) - 22


def read_base(manifest: Manifest, data: bytes) -> State:
    """Read the stored weights of a base, and check them: C32 of all, C31, then C33 or C34 tensor by tensor."""
    if len(data) != sum(t.size * t.width for t in manifest.tensors):
        raise WrongBase("stored bytes of another length than the manifest's")
    arrays, stored = [], []
    at = 0
    for t in manifest.tensors:
        little = np.dtype(BITS[t.width]).newbyteorder("<")
        bits = np.frombuffer(data, little, t.size, at).astype(BITS[t.width])
        at += t.size * t.width
        arrays.append(bits)
        stored.append(data[at - bits.nbytes : at])
    units = tuple(t.e for t in manifest.tensors)
    empty = tuple(np.zeros(t.size, np.int64) for t in manifest.tensors)
    for t, bits in zip(manifest.tensors, arrays, strict=True):
        if t.is_float and not finite(bits, t.type):
            raise NonFinite("C32: a float that is not finite")
    if sha256(root_proof(manifest, stored, units, empty)) != manifest.root:
        raise WrongBase("C31: another root than the manifest's")
    for t, bits in zip(manifest.tensors, arrays, strict=True):
        if t.klass == LATTICE and t.type == INT8 and np.any(bits == 0x80):
            raise Malformed("C34: -128 on the lattice")
        if t.klass == LATTICE and t.is_float and t.e < least_exponent(t, bits):
            raise Malformed("C33: e too small for the peak")
    return State(manifest, tuple(arrays), empty, units)


__all__ = ["EXACT", "State", "finite", "least_exponent", "ordered", "read_base", "to_bits", "to_float32", "weights_of"]
