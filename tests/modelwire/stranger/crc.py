"""CRC-32C (Castagnoli, reflected)."""

from __future__ import annotations


def _table() -> list[int]:
    """Make the table of all bytes."""
    out = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        out.append(value)
    return out


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Give the checksum of data."""
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _TABLE[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF
