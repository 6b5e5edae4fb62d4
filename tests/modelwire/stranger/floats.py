"""exp, log and tanh of the exact trainer, in float32 (trainer page, Functions)."""

from __future__ import annotations

import numpy as np

from .manifest import Array


def f32(bits: int) -> np.float32:
    """Give the float32 of a bit pattern."""
    return np.uint32(bits).view(np.float32)


_HIGH, _LOW, _LOG2E, _MAGIC = f32(0x42B20000), f32(0xC2D20000), f32(0x3FB8AA3B), f32(0x4B400000)
_LN2A, _LN2B = f32(0x3F318000), f32(0xB95E8083)
_E = tuple(map(f32, (0x39506967, 0x3AB743CE, 0x3C088908, 0x3D2AA9C1, 0x3E2AAAAA, 0x3F000000)))
_L = tuple(map(f32, (0x3F2AAAAA, 0x3ECCCE13, 0x3E91E9EE, 0x3E789E26)))
_LN2LOW, _LN2HIGH = f32(0x3717F7D1), f32(0x3F317180)
_H = tuple(map(f32, (0xBBBAF0EA, 0x3CA9134E, 0xBD5C1E2D, 0x3E088393, 0xBEAAAA99)))
_NEAR = f32(0x3F200000)
ONE, TWO, ZERO = np.float32(1), np.float32(2), np.float32(0)


def _power_of_two(n: Array) -> Array:
    """Give 2^n."""
    shifted: Array = ((n + 127) << 23).astype(np.uint32)
    return shifted.view(np.float32)


def exp(x: Array) -> Array:
    """Give e to the x."""
    c = np.where(x > _HIGH, _HIGH, x)
    c = np.where(c < _LOW, _LOW, c)
    k = (c * _LOG2E + _MAGIC) - _MAGIC
    r = c - k * _LN2A
    r = r - k * _LN2B
    p = np.full_like(r, _E[0])
    for e in _E[1:]:
        p = p * r + e
    p = p * (r * r) + r
    p = p + ONE
    whole = np.where(np.isnan(k), ZERO, k).astype(np.int64)
    h = whole >> 1
    out: Array = (p * _power_of_two(h)) * _power_of_two(whole - h)
    return out


def log(x: Array) -> Array:
    """Give the natural logarithm of positive normal numbers."""
    u = np.ascontiguousarray(x).view(np.uint32) + np.uint32(0x004AFB0D)
    k = ((u >> np.uint32(23)).astype(np.int64) - 127).astype(np.float32)
    f = ((u & np.uint32(0x007FFFFF)) + np.uint32(0x3F3504F3)).view(np.float32) - ONE
    s = f / (TWO + f)
    z = s * s
    w = z * z
    even = w * (_L[1] + w * _L[3])
    odd = z * (_L[0] + w * _L[2])
    q = (np.float32(0.5) * f) * f
    out: Array = (((s * (q + (odd + even)) + k * _LN2LOW) - q) + f) + k * _LN2HIGH
    return out


def tanh(x: Array) -> Array:
    """Give the hyperbolic tangent."""
    a = np.abs(x)
    z = a * a
    p = np.full_like(z, _H[0])
    for h in _H[1:]:
        p = p * z + h
    near = ((p * z) * a) + a
    far = ONE - TWO / (exp(TWO * a) + ONE)
    return np.copysign(np.where(a < _NEAR, near, far), x)
