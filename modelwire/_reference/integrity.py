"""Checksum, fingerprint and the rounding check."""

from __future__ import annotations

import numpy as np

from modelwire.errors import RoundingMode
from modelwire.tensors import I32, U32

from .arrays import Array, octets, sparse, take, whole_step

_MASK = (1 << 64) - 1


def kernel_name() -> str:
    """Return the name of the implementation that runs."""
    return "reference"


def check_rounding() -> None:
    """Raise RoundingMode unless float32 additions round to nearest even."""
    one, half, three = (np.full(1, x, np.float32) for x in (1.0, 2.0**-24, 3 * 2.0**-24))
    if (one + half)[0] != 1.0 or (one + three)[0] != np.float32(1.0 + 2.0**-22):
        raise RoundingMode


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """Return CRC-32C (Castagnoli), initial and final value all ones."""
    crc = 0xFFFFFFFF
    for byte in octets(data):
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def fingerprint(q: I32, *, start: int, verbatim: bool) -> tuple[int, int]:
    """Return the two lanes of a whole tensor: the sum of Q times the mixed index mod 2^64."""
    q = take("q", q, np.int32)
    return lanes_of(np.arange(len(q), dtype=np.uint64), q.astype(np.int64), start, verbatim)


def fingerprint_sparse(index: U32, value: I32, *, step: int, start: int, verbatim: bool) -> tuple[int, int]:
    """Return what value * step at index adds to the two lanes."""
    index, value = sparse(index, value)
    return lanes_of(index.astype(np.uint64), value.astype(np.int64) * whole_step(step), start, verbatim)


def lanes_of(index: Array, units: Array, start: int, verbatim: bool, before: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Return the two lanes `before` with `units` at `index` added to them."""
    place = (index + np.uint64(start & _MASK)) * np.uint64(2)
    terms = units.view(np.uint64)
    lanes = []
    for lane in (0, 1):
        r = _mix(place + np.uint64((0x9E3779B97F4A7C15 + lane) & _MASK)) | np.uint64(1)
        if verbatim:
            r = r << np.uint64(32)
        lanes.append((before[lane] + int((terms * r).sum(dtype=np.uint64))) & _MASK)
    return lanes[0], lanes[1]


def _mix(z: Array) -> Array:
    """Return the finaliser of splitmix64 of each entry."""
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed: Array = z ^ z >> np.uint64(31)
    return mixed
