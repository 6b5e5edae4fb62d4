"""The fixed stream of awkward numbers and the hash that all parts of the self test share, as csrc/selftest.h has them."""

from __future__ import annotations


class Stream:
    """A xorshift generator, and `hash`: FNV-1a 64 over all that was fed."""

    def __init__(self, state: int) -> None:
        self.hash = 0xCBF29CE484222325
        self.state = state

    def rnd(self) -> int:
        x = self.state
        x ^= x << 13 & (1 << 64) - 1
        x ^= x >> 7
        x ^= x << 17 & (1 << 64) - 1
        self.state = x
        return x >> 16 & 0xFFFFFFFF

    def feed(self, data: bytes) -> None:
        h = self.hash
        for byte in data:
            h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
        self.hash = h
