"""How what a layer gave is kept: in 8 bits by quantiles, as MISTIQUE does, or every bit; packed, and read back with what it lost.

Source: Vartak et al., MISTIQUE, SIGMOD 2018, section 4 (quantisation, exact dedupe).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import Malformed
from modelwire.limits import MIB
from modelwire.tensors import F32

EXACT, QUANTILES = 32, 8  # bits of a value
BITS = (QUANTILES, EXACT)
LEVELS = 256
ROUNDS = 12  # of Lloyd's rule: each halves what is to be gained or so
VALUES_MAX = 256 * MIB  # values of one layer on one probe set
RANK_MAX = 8
_HEAD = struct.Struct("<BBH")  # bits, rank, levels


@dataclass(frozen=True, slots=True)
class Kept:
    """One layer as it is kept."""

    data: bytes
    error: float  # root mean square of what is read back less what was computed


def chunk_of(values: F32, bits: int) -> bytes:
    """Return the digest that names what is kept of a layer: equal values kept equally have one. values: float32."""
    head = struct.pack(f"<BB{values.ndim}Q", bits, values.ndim, *values.shape)
    return hashlib.sha256(head + np.ascontiguousarray(values, "<f4").data.cast("B")).digest()


def keep(values: F32, bits: int) -> Kept:
    """Return a layer as it is kept, in so many bits a value. values: float32, any shape; with NaN or infinity all are kept in 32."""
    flat = np.ascontiguousarray(values, "<f4").reshape(-1)
    if bits == QUANTILES and flat.size and np.isfinite(flat).all():
        levels, codes = _quantised(flat)
        error = float(np.sqrt(np.mean((levels[codes].astype(np.float64) - flat) ** 2)))
        rows = values.shape[0] if values.ndim else 1
        columns = codes.reshape(rows, -1).T.tobytes()  # a unit's codes for all rows behind each other: one that is off makes runs
        head = _head(values, QUANTILES, len(levels)) + levels.astype("<f4").tobytes()
        return Kept(head + _packed(columns), error)
    planes = flat.view(np.uint8).reshape(-1, 4).T.tobytes()  # high bytes of like values are alike
    return Kept(_head(values, EXACT, 0) + _packed(planes), 0.0)


def read(data: bytes) -> F32:
    """Return the values of a chunk, float32. Raises Malformed for what `keep` does not write."""
    if len(data) < _HEAD.size:
        raise Malformed(what="chunk", reason="it ends within its header")
    bits, rank, count = _HEAD.unpack_from(data)
    place = _HEAD.size + 8 * rank
    if bits not in BITS or rank > RANK_MAX or count > LEVELS or len(data) < place + 4 * count:
        raise Malformed(what="chunk", reason="its header is none")
    shape = struct.unpack_from(f"<{rank}Q", data, _HEAD.size)
    size = prod(shape) * (1 if bits == QUANTILES else 4)
    if prod(shape) > VALUES_MAX:
        raise Malformed(what="chunk", reason=f"{prod(shape)} values are more than {VALUES_MAX}")
    unpacker = zlib.decompressobj()
    try:
        packed = unpacker.decompress(data[place + 4 * count :], size + 1)
    except zlib.error as error:
        raise Malformed(what="chunk", reason=str(error)) from None
    if len(packed) != size or not unpacker.eof or unpacker.unused_data:
        raise Malformed(what="chunk", reason=f"it does not hold {size} bytes")
    if bits == EXACT:
        return np.frombuffer(packed, np.uint8).reshape(4, -1).T.copy().view("<f4").reshape(shape).astype(np.float32)
    codes = np.frombuffer(packed, np.uint8).reshape(-1, shape[0] if shape else 1).T if size else np.frombuffer(packed, np.uint8)
    if int(codes.max(initial=0)) >= count:
        raise Malformed(what="chunk", reason="a code has no level")
    return np.frombuffer(data, "<f4", count, place).astype(np.float32)[np.ascontiguousarray(codes)].reshape(shape)


def _packed(data: bytes) -> bytes:
    """Return bytes by runs and how often each occurs: codes repeat in no other way, and to look for it takes five times as long."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return packer.compress(data) + packer.flush()


def _head(values: F32, bits: int, levels: int) -> bytes:
    return _HEAD.pack(bits, values.ndim, levels) + struct.pack(f"<{values.ndim}Q", *values.shape)


def _quantised(flat: F32) -> tuple[F32, NDArray[np.uint8]]:
    """Return levels, rising, and the level of each value: the values themselves where they are few, else what quantiles lead to.

    Quantiles alone give the tails few levels: half of the levels start there, half evenly over the range, and some rounds of Lloyd's rule
    move each to the mean of the values that are nearest to it. Zero, of which a layer behind a ReLU is full, is a level of its own.
    """
    distinct = np.unique(flat[:: max(1, flat.size // 4096)])
    if len(distinct) <= LEVELS:
        distinct = np.unique(flat)
        if len(distinct) <= LEVELS:
            return distinct.astype(np.float32), np.searchsorted(distinct, flat).astype(np.uint8)
    moved = np.sort(flat[flat != 0])
    zero = int(moved.size < flat.size)
    levels = _moved_to_means(moved, LEVELS - zero)
    if zero:
        levels = np.insert(levels, np.searchsorted(levels, 0), np.float32(0))
    codes = np.searchsorted(_between(levels), flat)
    if zero:
        codes = np.where(flat == 0, np.searchsorted(levels, 0), codes)
    return levels, codes.astype(np.uint8)


def _moved_to_means(rising: F32, count: int) -> F32:
    """Return at most so many levels for values that rise."""
    quantiles = rising[np.linspace(0, rising.size - 1, count // 2).astype(np.int64)]
    evenly = np.linspace(float(rising[0]), float(rising[-1]), count - count // 2).astype(np.float32)
    levels = np.unique(np.append(quantiles, evenly))
    sums = np.append(0, np.cumsum(rising, dtype=np.float64))
    for _ in range(ROUNDS):
        edges = np.append(0, np.append(np.searchsorted(rising, _between(levels), side="right"), rising.size))
        held = np.diff(edges)
        means = np.diff(sums[edges])[held > 0] / held[held > 0]
        levels = np.unique(means.astype(np.float32))
    return levels


def _between(levels: F32) -> F32:
    return ((levels[1:].astype(np.float64) + levels[:-1]) / 2).astype(np.float32)
