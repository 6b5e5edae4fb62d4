"""Ed25519 as RFC 8032, section 5.1, has it, for signatures that no library makes. Slow, and no secret is safe with it."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493  # order of the base point
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def times(n: int, a: Point) -> Point:
    out = IDENTITY
    while n:
        if n & 1:
            out = add(out, a)
        a, n = add(a, a), n >> 1
    return out


def encode(a: Point) -> bytes:
    return (a[1] | (a[0] & 1) << 255).to_bytes(32, "little")


def decode(data: bytes) -> Point | None:
    """Return the point, None where no x belongs to y. y is taken mod p."""
    number = int.from_bytes(data, "little")
    y, sign = (number & (1 << 255) - 1) % P, number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    return (P - x if x & 1 != sign and x else x), y


_BASE = decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
_EIGHT = decode(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"))
assert _BASE is not None and _EIGHT is not None
SMALL = {2: times(4, _EIGHT), 4: times(2, _EIGHT), 8: _EIGHT}  # a point of each small order


def sign(secret: bytes, message: bytes, *, beside: Point = IDENTITY) -> bytes:
    """Return the signature whose R has a point of small order added, and is right but for that: eight times of it is."""
    assert _BASE is not None
    digest = hashlib.sha512(secret).digest()
    scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
    nonce = int.from_bytes(hashlib.sha512(digest[32:] + message).digest(), "little") % L
    r = encode(add(times(nonce, _BASE), beside))
    k = int.from_bytes(hashlib.sha512(r + encode(times(scalar, _BASE)) + message).digest(), "little") % L
    return r + ((nonce + k * scalar) % L).to_bytes(32, "little")
