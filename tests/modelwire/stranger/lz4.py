"""One block of the LZ4 block format, unpacked."""

from __future__ import annotations

from .errors import Malformed


def _length(data: bytes, at: int, start: int) -> tuple[int, int]:
    """Read the further bytes of a length of 15; give the length and the place behind it."""
    length = start
    if start == 15:
        while True:
            if at >= len(data):
                raise Malformed("C95: LZ4 length cut off")
            byte = data[at]
            at += 1
            length += byte
            if byte != 255:
                break
    return length, at


def unpack(data: bytes, size: int) -> bytes:
    """Unpack a block that has to give exactly size bytes, all of its own bytes used (C95, C96)."""
    out = bytearray()
    at = 0
    last_match = -1
    while True:
        if at >= len(data):
            raise Malformed("C95: LZ4 block ends without last literals")
        token = data[at]
        literals, at = _length(data, at + 1, token >> 4)
        if literals > len(data) - at or len(out) + literals > size:
            raise Malformed("C95: LZ4 literals too long")
        out += data[at : at + literals]
        at += literals
        if at == len(data):
            break
        if len(data) - at < 2:
            raise Malformed("C95: LZ4 offset cut off")
        offset = data[at] | data[at + 1] << 8
        length, at = _length(data, at + 2, token & 15)
        length += 4
        if offset == 0:
            raise Malformed("C96: LZ4 match with offset 0")
        if offset > len(out) or len(out) + length > size:
            raise Malformed("C95: LZ4 match out of range")
        last_match = len(out)
        start = len(out) - offset
        for k in range(length):
            out.append(out[start + k])
    if len(out) != size:
        raise Malformed("C95: LZ4 block of another size")
    if last_match >= 0 and (literals < 5 or last_match > size - 12):
        raise Malformed("C95: end-of-block conditions of LZ4")
    return bytes(out)
