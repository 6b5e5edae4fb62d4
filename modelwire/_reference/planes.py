"""Stored tensors: held float32 to stored bits and back, ordered differences, and their byte planes."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import KernelError, Malformed, ModelWireError, NonFinite, RangeOverflow
from modelwire.tensors import F32, I32, U8, Dtype, Stored

from .arrays import Array, take
from .lattice import weights_at

CODE_MAX = 127  # of an int8 on the lattice, and -127
INFINITIES = {4: (0, 0x7F800000), 2: (0, 0x7C00, 0x7F80), 1: (0,)}
UNSIGNED: dict[int, type[np.generic]] = {4: np.uint32, 2: np.uint16, 1: np.uint8}


def to_storage(held: F32, stored: Stored, *, dtype: int) -> None:
    kind = _dtype(dtype, 2, 3, 4)
    held = take("held", held, np.float32)
    stored = take("stored", stored, np.uint8 if kind is Dtype.INT8 else np.uint16, n=len(held), writable=True)
    with np.errstate(all="ignore"):
        if kind is Dtype.FLOAT16:
            found = held.astype(np.float16)
            back, bits = found.astype(np.float32), found.view(np.uint16)
        elif kind is Dtype.BFLOAT16:
            bits = (held.view(np.uint32) >> 16).astype(np.uint16)
            back = (bits.astype(np.uint32) << 16).view(np.float32)
        else:
            codes = np.where(np.abs(held) <= 128, held, 0).clip(-128, 127).astype(np.int8)
            back, bits = codes.astype(np.float32), codes.view(np.uint8)
    lost = back.view(np.uint32) != held.view(np.uint32)
    _first(~np.isfinite(held) | lost, lambda i: _not_finite(i) if not np.isfinite(held[i]) else _not_stored(i))
    stored[:] = bits


def from_storage(stored: Stored, held: F32, *, dtype: int) -> None:
    kind = _dtype(dtype, 2, 3, 4)
    stored = take("stored", stored, np.uint8 if kind is Dtype.INT8 else np.uint16)
    held = take("held", held, np.float32, n=len(stored), writable=True)
    if kind is Dtype.FLOAT16:
        numbers = stored.view(np.float16).astype(np.float32)
    elif kind is Dtype.BFLOAT16:
        numbers = (stored.astype(np.uint32) << 16).view(np.float32)
    else:
        numbers = stored.view(np.int8).astype(np.float32)
    _first(~np.isfinite(numbers), _not_finite)
    held[:] = numbers


def round_stored(sums: F32, held: F32, *, dtype: int) -> None:
    kind = _dtype(dtype, 1, 2, 3, 4)
    sums = take("sums", sums, np.float32)
    held = take("held", held, np.float32, n=len(sums), writable=True)
    numbers = rounded(sums, kind)
    past = past_codes(sums, kind)
    _first(~np.isfinite(numbers), lambda i: RangeOverflow(tensor=0, index=i) if past[i] else _not_finite(i))
    held.view(np.uint32)[:] = numbers.view(np.uint32)


def rounded(sums: F32, dtype: int) -> F32:
    """Return what becomes of sums when they are stored: half to even, infinite past the type's end, and no number where they are none."""
    if dtype == Dtype.FLOAT16:
        with np.errstate(all="ignore"):
            return sums.astype(np.float16).astype(np.float32)
    if dtype == Dtype.BFLOAT16:
        bits = sums.view(np.uint32).astype(np.uint64)
        nearest = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
        return np.where(np.isfinite(sums), nearest, sums)  # the largest NaNs would run over into a zero
    if dtype == Dtype.INT8:
        return np.where(np.abs(sums) > CODE_MAX, np.float32(np.inf), sums).astype(np.float32)
    return sums


def past_codes(sums: F32, dtype: int) -> NDArray[np.bool_]:
    """Return where sums are numbers, but past the codes of int8: a fault of range, where all else that can't be stored is no number."""
    past: NDArray[np.bool_] = np.isfinite(sums) & (np.abs(sums) > CODE_MAX) & (dtype == Dtype.INT8)
    return past


def stored_weights_at(base: F32, q: Array, exponent: int, dtype: int) -> F32:
    """Return what the lattice gives in a tensor of that storage type: base's own bits where Q is 0."""
    sums = weights_at(base, q, exponent)
    return np.where(q == 0, base.view(np.uint32), rounded(sums, dtype).view(np.uint32)).view(np.float32)


def ordered_differences(fresh: Stored, parent: Stored, d: I32, *, infinity: int) -> None:
    fresh, parent = _stored("fresh", fresh), _stored("parent", parent, like=fresh)
    _check_infinity(infinity, fresh.itemsize)
    d = take("d", d, np.int32, n=len(fresh), writable=True)
    d[:] = _aligned(_ordered(fresh, infinity) - _ordered(parent, infinity))


def split_planes(fresh: Stored, parent: Stored | None, changed: U8, planes: U8, *, infinity: int) -> int:
    fresh = _stored("fresh", fresh)
    n, width = len(fresh), fresh.itemsize
    _check_infinity(infinity, width)
    parent = np.zeros_like(fresh) if parent is None else _stored("parent", parent, like=fresh)
    changed = take("changed", changed, np.uint8, n=(n + 7) // 8, writable=True)
    planes = take("planes", planes, np.uint8, n=width * n, writable=True)
    _first(_infinite(fresh, infinity), _not_finite)
    d = _ordered(fresh, infinity) - _ordered(parent, infinity)
    z = (d << 1) ^ (d.view(_signed(width)) >> (8 * width - 1)).view(d.dtype)
    changed[:] = np.packbits(z != 0, bitorder="little")
    kept = z[z != 0]
    for p in range(width):
        planes[p * n : p * n + len(kept)] = (kept >> (8 * p)).astype(np.uint8)
    return len(kept)


def join_planes(changed: U8, planes: U8, parent: Stored | None, fresh: Stored, *, count: int, infinity: int) -> None:
    fresh = _stored("fresh", fresh, writable=True)
    n, width = len(fresh), fresh.itemsize
    _check_infinity(infinity, width)
    parent = np.zeros_like(fresh) if parent is None else _stored("parent", parent, like=fresh)
    changed = take("changed", changed, np.uint8, n=(n + 7) // 8)
    planes = take("planes", planes, np.uint8)
    stride = len(planes) // width
    if not 0 <= index(count) <= min(n, stride) or stride * width != len(planes):
        raise KernelError(what="planes", reason=f"{len(planes)} bytes for {count} of {n} entries")
    bits = np.unpackbits(changed, bitorder="little").astype(bool)
    if int(bits.sum()) != count or bits[n:].any():
        raise Malformed(what="planes", reason="the changed entries are not as many as they say")
    at = np.flatnonzero(bits)
    z = np.zeros_like(fresh)
    for p in range(width):
        byte: Array = planes[p * stride : p * stride + count].astype(fresh.dtype)
        z[at] |= byte << (8 * p)
    d = (z >> 1) ^ (np.zeros_like(z) - (z & 1))
    o = _ordered(parent, infinity) + d
    found = _ordered(o, infinity)
    absent = bits[:n] & (z == 0)
    # Looked at tile by tile: a zero that was sent comes before what is no number in its own tile, and after it in an earlier one.
    faults = [(i // 512, order, i) for order, mask in enumerate((absent, _infinite(found, infinity))) for i in np.flatnonzero(mask)[:1]]
    if faults:
        _, order, i = min(faults)
        raise _not_finite(int(i)) if order else Malformed(what="value", reason="a zero was sent")
    fresh[:] = found


def check_lz4(block: U8) -> None:
    data = take("block", block, np.uint8).tobytes()
    place = 0
    try:
        while place < len(data):
            token = data[place]
            literals, place = _lz4_length(data, place + 1, token >> 4)
            place += literals
            if place == len(data):
                return  # the last sequence has no match
            if place > len(data) or not (data[place] | data[place + 1]):
                break
            _, place = _lz4_length(data, place + 2, token & 15)
    except IndexError:
        pass
    raise Malformed(what="planes", reason="a plane is not what lz4 writes")


def _lz4_length(data: bytes, place: int, found: int) -> tuple[int, int]:
    """Return the length that four bits of a token begin, and the place behind its further bytes. Raises IndexError."""
    more = 255
    while found >= 15 and more == 255:
        more = data[place]
        found, place = found + more, place + 1
    return found, place


def _dtype(dtype: int, *among: int) -> Dtype:
    if dtype not in among:
        raise KernelError(what="dtype", reason=f"expected one of {', '.join(map(str, among))}, got {dtype}")
    return Dtype(dtype)


def _stored(name: str, array: Any, *, like: Array | None = None, writable: bool = False) -> Array:
    """Return an array of unsigned integers of 1, 2 or 4 bytes, of the type and length of `like`."""
    kind = like.dtype.type if like is not None else UNSIGNED.get(getattr(array, "itemsize", 4), np.uint32)
    return take(name, array, kind, n=len(like) if like is not None else None, writable=writable)


def _check_infinity(infinity: int, width: int) -> None:
    if index(infinity) not in INFINITIES[width]:
        raise KernelError(what="infinity", reason=f"{infinity:#x} is not one of a type of {width} bytes")


def _signed(width: int) -> Any:
    return np.dtype(f"i{width}")


def _ordered(bits: Array, infinity: int) -> Array:
    """Return bits as integers, unsigned mod 2^width, that rise with the numbers; of integers they are what they are. Its own inverse."""
    if not infinity:
        return bits
    width = bits.itemsize
    inverted: Array = bits ^ ((bits.view(_signed(width)) >> (8 * width - 1)).view(bits.dtype) & bits.dtype.type((1 << (8 * width - 1)) - 1))
    return inverted


def _aligned(d: Array) -> NDArray[np.int32]:
    return (d.astype(np.uint32) << np.uint32(32 - 8 * d.itemsize)).view(np.int32)


def _infinite(bits: Array, infinity: int) -> NDArray[np.bool_]:
    if not infinity:
        return np.zeros(len(bits), bool)
    mask: NDArray[np.bool_] = (bits & bits.dtype.type((1 << (8 * bits.itemsize - 1)) - 1)) >= infinity
    return mask


def _first(mask: NDArray[np.bool_], fault: Any) -> None:
    if mask.any():
        raised: ModelWireError = fault(int(np.argmax(mask)))
        raise raised


def _not_finite(entry: int) -> ModelWireError:
    return NonFinite(what="the weights", tensor=0, index=entry)


def _not_stored(entry: int) -> ModelWireError:
    return Malformed(what="weights", reason=f"entry {entry} is no value of the tensor's storage type")
