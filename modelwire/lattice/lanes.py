"""The two lanes of a fingerprint: sums mod 2^64 over all entries, which add and subtract like the updates themselves."""

from __future__ import annotations

Fingerprint = tuple[int, int]
_LANE = 0xFFFFFFFFFFFFFFFF


def plus(a: Fingerprint, b: Fingerprint) -> Fingerprint:
    return (a[0] + b[0]) & _LANE, (a[1] + b[1]) & _LANE


def minus(a: Fingerprint, b: Fingerprint) -> Fingerprint:
    return (a[0] - b[0]) & _LANE, (a[1] - b[1]) & _LANE
