"""The count sketch of a version: 256 whole numbers that add, modulo 2^32, exactly as its lattice coordinates add.

Entry i of the model falls into bucket h(i) with the sign s(i); a sketch is the sum of s(i) * c(i) in each bucket. h and s follow from the
schema id alone, so sketches made anywhere can be added. The coordinate c(i) is Q, what the entry is away from its base, counted in the
base's own unit of its tensor: an entry in units that were widened to 2^k of those counts 2^k times. A code of an int8 tensor counts 128, so
that it weighs what a step of 2^-7 of the largest weight weighs in a tensor of float32, whose unit is 2^-14 of it.

- A tensor that is verbatim or exact is on no lattice, and not in the sketch. Nor is one in units finer than its base's, which no device
  makes and a hostile snapshot may: no whole number would say what it counts.
- Sums wrap: a hostile update may overflow a bucket, and the sketch of a sum is still the sum of the sketches, bit for bit. A sketch
  therefore proves nothing. It says where to look; exact distances say what is there.

Source: count sketch, Charikar, Chen and Farach-Colton, Finding frequent items in data streams (2002).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache, reduce
from threading import Lock
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import Malformed
from modelwire.lattice.state import Counted, ModelState
from modelwire.tensors import I32, U32, Dtype, Schema
from modelwire.update.manifest import Manifest
from modelwire.update.sections import AnySection, Section

BUCKETS = 256
BYTES = 4 * BUCKETS  # of a sketch as it is stored
INT8_SHIFT = 7  # a code counts 2^7
KEPT_BYTES = 64 << 20  # of tables in memory, two a weight
_AT_ONCE = 1 << 16  # entries: a float64 holds their sum exactly, and they stay in the second cache
_GOLDEN, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

Codes: TypeAlias = NDArray[np.uint16]  # bucket, and 256 more where the sign is minus
Sketch: TypeAlias = I32  # shape (256,)


def of_sections(manifest: Manifest, sections: Sequence[AnySection]) -> Sketch:
    """Return the sketch of an update's sections: what it adds to its parent's; of a snapshot, the sketch itself.

    The sections are of this base, every index within its tensor.
    """
    total = np.zeros(BUCKETS, np.uint32)
    for s in sections:
        if isinstance(s, Section) and manifest.lattice(s.tensor):
            start = manifest.schema.starts[s.tensor]
            codes, factor = _codes_at(manifest.schema, start, s.index), _factor(manifest, s.tensor, s.exponent) * s.step
            _count(total, codes, s.value, factor)
    return total.view(np.int32)


def of_integers(manifest: Manifest, integers: Sequence[I32], exponents: Sequence[int]) -> Sketch:
    """Return the sketch of all of a model's Q, flat arrays in schema order, in units of 2^exponents."""
    total = np.zeros(BUCKETS, np.uint32)
    schema = manifest.schema
    for t, (spec, q, e) in enumerate(zip(schema.tensors, integers, exponents, strict=True)):
        if manifest.lattice(t):
            _count(total, _codes(schema, schema.starts[t], spec.size), q, _factor(manifest, t, e))
    return total.view(np.int32)


def of_state(state: ModelState) -> Sketch:
    """Return the sketch of a state, which is the sum of the sketches of all updates that led there from its base."""
    return of_integers(state.manifest, state.integers, state.exponents)


def counted(state: ModelState, sketch: Sketch) -> Counted | None:
    """Return what `apply_container` counts a delta by, so that `sketch`, of this state, moves with it.

    None where the model is too large for a table. A snapshot may change units: it counts nothing that means anything.
    """
    codes = _TABLES.of(state.manifest.schema)
    return None if codes is None else (codes, _factors(state.manifest, tuple(state.exponents)), sketch.view(np.uint32))


def add(*sketches: Sketch) -> Sketch:
    """Return the sum; that of none is the sketch of the base."""
    if not sketches:
        return np.zeros(BUCKETS, np.int32)
    return reduce(np.add, sketches)  # numpy's int32 arrays wrap


def negate(sketch: Sketch) -> Sketch:
    """Return the sketch of the update that takes this one back."""
    return (np.uint32(0) - sketch.view(np.uint32)).view(np.int32)


def distances(sketches: NDArray[np.int32], one: Sketch) -> NDArray[np.float64]:
    """Return about how far each of `sketches`, shape (n, 256), is from `one`: of the same base, in units of the base.

    The square of a distance is estimated without bias, with a relative deviation of about sqrt(2 / 256).
    """
    apart = (sketches.view(np.uint32) - one.view(np.uint32)).view(np.int32).astype(np.float64)
    squared: NDArray[np.float64] = np.einsum("ij,ij->i", apart, apart)
    return np.sqrt(squared)


def encode(sketch: Sketch) -> bytes:
    """Return the 1,024 bytes of a sketch: little-endian int32."""
    return sketch.astype("<i4", copy=False).tobytes()


def decode(data: bytes) -> Sketch:
    """Return the sketch that `encode` wrote. Raises Malformed for another length."""
    if len(data) != BYTES:
        raise Malformed(what="sketch", reason=f"it has {len(data)} bytes and not {BYTES}")
    return np.frombuffer(data, "<i4").astype(np.int32)


@lru_cache(maxsize=64)
def on_lattice(manifest: Manifest) -> int:
    """Return how many of a base's weights are on the lattice, and so in a sketch."""
    return sum(spec.size for t, spec in enumerate(manifest.schema.tensors) if manifest.lattice(t))


def shift_of(manifest: Manifest, tensor: int, exponent: int) -> int | None:
    """Return k, where one step of Q in units of 2^exponent counts 2^k; None where the units are finer than the base's."""
    by = exponent - manifest.exponents[tensor]
    if by < 0:
        return None
    return by + INT8_SHIFT if manifest.schema.tensors[tensor].dtype is Dtype.INT8 else by


def _factor(manifest: Manifest, tensor: int, exponent: int) -> int:
    shift = shift_of(manifest, tensor, exponent)
    return 0 if shift is None else 1 << shift


@lru_cache(maxsize=64)
def _factors(manifest: Manifest, exponents: tuple[int, ...]) -> U32:
    factors = (_factor(manifest, t, e) if manifest.lattice(t) else 0 for t, e in enumerate(exponents))
    return np.array([factor & 0xFFFFFFFF for factor in factors], np.uint32)


def _count(total: U32, codes: Codes, values: I32, factor: int) -> None:
    """Add what values, in steps of `factor`, come to in each bucket."""
    for start in range(0, len(values), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        sums = np.bincount(codes[part], weights=values[part], minlength=2 * BUCKETS).astype(np.int64)
        mod = (sums[:BUCKETS] - sums[BUCKETS:]).astype(np.uint32)
        total += mod * np.uint32(factor & 0xFFFFFFFF)


class _Tables:
    """The codes of whole schemas, as far as they fit into memory; what does not is worked out each time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Codes] = OrderedDict()
        self._lock = Lock()

    def of(self, schema: Schema) -> Codes | None:
        with self._lock:
            if schema.id in self._kept:
                self._kept.move_to_end(schema.id)
                return self._kept[schema.id]
            if 2 * schema.size > KEPT_BYTES:
                return None
            codes = np.empty(schema.size, np.uint16)
            for start in range(0, schema.size, _AT_ONCE):
                codes[start : start + _AT_ONCE] = _hashed(schema, np.arange(start, min(schema.size, start + _AT_ONCE), dtype=np.uint64))
            self._kept[schema.id] = codes
            while sum(one.nbytes for one in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
            return codes


_TABLES = _Tables()


def _codes_at(schema: Schema, start: int, index: U32) -> Codes:
    table = _TABLES.of(schema)
    if table is not None:
        return table[start:].take(index)
    return _hashed(schema, index.astype(np.uint64) + np.uint64(start))


def _codes(schema: Schema, start: int, size: int) -> Codes:
    table = _TABLES.of(schema)
    if table is not None:
        return table[start : start + size]
    return _hashed(schema, np.arange(start, start + size, dtype=np.uint64))


def _hashed(schema: Schema, index: NDArray[np.uint64]) -> Codes:
    """Return the codes of entries by their global index: SplitMix64 from a seed that is the schema id's first eight bytes."""
    seed = np.uint64(struct.unpack("<Q", schema.id[:8])[0])
    x = seed + (index + np.uint64(1)) * _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    x ^= x >> np.uint64(31)
    return (x >> np.uint64(55)).astype(np.uint16)  # the highest 9 bits: sign, and 8 of the bucket
