"""Takes what its sender sends beyond its rate out of what a socket has given, before an MQTT library spends its time on it.

A library takes a tenth of a millisecond for a message, and a broker passes on more than that: its queue would grow, and whoever is behind
in it would wait. Here a message that is left out costs a few microseconds. It knows of MQTT what 3.1.1 and 5 have alike in a PUBLISH.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

Turns = Callable[[Sequence[tuple[str, int]]], Sequence[bool]]  # of messages by topic and bytes: whether each has a turn
HOLD = 64 * 1024  # bytes of a packet that is looked at; of a larger one there are few
PUBLISH_0, PUBLISH_1, ACKNOWLEDGED = 0x30, 0x32, b"\x40\x02"
_KIND = 0xF6  # of the first byte: kind and quality, without "again" and "retained"


class PacketScreen:
    """The bytes of one connection after the other, for one thread."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.reset()

    def reset(self) -> None:
        """Begin a connection."""
        self._held = b""  # the beginning of a packet
        self._passing = 0  # bytes of a packet that is passed on unseen
        self._blind = False  # what comes is no MQTT: the library says so

    def pass_on(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what of it is to be read by the library, and what is to be said to the broker of the rest."""
        if self._blind:
            return data, b""
        passed, data = data[: self._passing], data[self._passing :]
        self._passing -= len(passed)
        if not data:
            return passed, b""
        data = self._held + data
        packets, end = self._packets(data)
        self._held = data[end:]
        asked = [n for n, packet in enumerate(packets) if packet[2]]
        has_turn = self._turns([(packets[n][2], packets[n][1] - packets[n][0]) for n in asked]) if asked else []
        left_out = {n for n, has in zip(asked, has_turn, strict=True) if not has}
        if not left_out:
            return passed + data[:end], b""
        kept = b"".join(data[packet[0] : packet[1]] for n, packet in enumerate(packets) if n not in left_out)
        return passed + kept, b"".join(ACKNOWLEDGED + packets[n][3] for n in sorted(left_out) if packets[n][3])

    def _packets(self, data: bytes) -> tuple[list[tuple[int, int, str, bytes]], int]:
        """Return begin, end, topic and number of each whole packet, and the end of what is not held back. No topic: it is passed on."""
        out: list[tuple[int, int, str, bytes]] = []
        at, size = 0, len(data)
        while at + 1 < size:
            length, here = _length(data, at + 1)
            if here < 0:
                self._blind = True
                return [*out, (at, size, "", b"")], size
            if not here:
                break
            end = here + length
            if end > size:
                if end - at <= HOLD:
                    break
                self._passing = end - size
                return [*out, (at, size, "", b"")], size
            out.append((at, end, *_named(data, data[at] & _KIND, here, end)))
            at = end
        return out, at


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Return the remaining length of a packet and where that begins; 0 where it is not whole, below 0 where it is none."""
    length = 0
    for n in range(4):
        if at + n >= len(data):
            return 0, 0
        byte = data[at + n]
        length |= (byte & 127) << 7 * n
        if byte < 128:
            return length, at + n + 1
    return 0, -1


def _named(data: bytes, kind: int, here: int, end: int) -> tuple[str, bytes]:
    """Return topic and number of a PUBLISH; nothing of another packet, and of one that the library is to complain of."""
    if kind not in (PUBLISH_0, PUBLISH_1) or here + 2 > end:
        return "", b""
    (n,) = struct.unpack_from(">H", data, here)
    place = here + 2 + n
    if place + 2 * (kind == PUBLISH_1) > end:
        return "", b""
    try:
        topic = data[here + 2 : place].decode()
    except UnicodeDecodeError:
        return "", b""
    return topic, data[place : place + 2] if kind == PUBLISH_1 else b""
