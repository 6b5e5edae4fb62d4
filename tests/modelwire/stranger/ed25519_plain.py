"""The check of a signature step by step, as the container page says it; ed25519 uses a library for the same."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    """Add two points."""
    both = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + both, -1, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - both, -1, P) % P
    return x, y


def times(n: int, a: Point) -> Point:
    """Multiply a point."""
    out = IDENTITY
    while n:
        if n & 1:
            out = add(out, a)
        a = add(a, a)
        n >>= 1
    return out


def decode(raw: bytes) -> Point | None:
    """Decode a public key: y mod p, and no sign where x is 0 (C108)."""
    number = int.from_bytes(raw, "little")
    sign, y = number >> 255, (number & (2**255 - 1)) % P
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT % P
    if x * x % P != square:
        return None
    return (P - x if x and x & 1 != sign else x), y


def encode(a: Point) -> bytes:
    """Encode a point in its canonical form."""
    return (a[1] | (a[0] & 1) << 255).to_bytes(32, "little")


BASE = decode(bytes.fromhex("58" + "66" * 31)) or IDENTITY


def challenge(r: bytes, key: bytes, message: bytes) -> int:
    """Give k of step 3."""
    return int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L


def check(key: bytes, message: bytes, signature: bytes) -> bool:
    """Check a signature (C107 to C109)."""
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    point = decode(key)
    if len(signature) != 64 or s >= L or point is None:
        return False
    k = challenge(r, key, message)
    minus = (P - point[0]) % P, point[1]
    return encode(add(times(s, BASE), times(k, minus))) == r
