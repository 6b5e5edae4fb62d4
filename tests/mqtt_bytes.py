"""Packets of MQTT as bytes, for tests that speak it by hand: what no library would send, or in numbers that none can."""

from __future__ import annotations

import struct

CONNECT, PUBLISH, PUBACK, SUBSCRIBE = 0x10, 0x32, 0x40, 0x82


def length(n: int) -> bytes:
    """Return the remaining length of a packet."""
    out = bytearray()
    while True:
        n, low = divmod(n, 128)
        out.append(low | (128 if n else 0))
        if not n:
            return bytes(out)


def packet(first: int, body: bytes) -> bytes:
    """Return one MQTT control packet."""
    return bytes([first]) + length(len(body)) + body


def text(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def split(buffer: bytearray) -> list[tuple[int, bytes]]:
    """Take the whole packets from the front of a buffer."""
    out, at = [], 0
    while True:
        shift = length = 0
        here = at + 1
        while here < len(buffer):
            byte = buffer[here]
            length |= (byte & 127) << shift
            shift, here = shift + 7, here + 1
            if byte < 128:
                break
        else:
            break
        if here + length > len(buffer):
            break
        out.append((buffer[at], bytes(buffer[here : here + length])))
        at = here + length
    del buffer[:at]
    return out
