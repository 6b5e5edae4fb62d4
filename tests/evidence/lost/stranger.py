"""A stranger at the broker as a bare MQTT 3.1.1 client: he says what he likes, as fast as the broker takes it."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable

from tests.mqtt_bytes import CONNECT, PUBLISH, SUBSCRIBE, length, packet, split, text

PATIENCE = 300.0  # seconds; a safety limit
PIECE = 1 << 20  # bytes


class Stranger:
    """One connection to a broker at a loopback port."""

    def __init__(self, port: int, name: str, *filters: str) -> None:
        """filters: of topics that he listens to."""
        self._link = socket.create_connection(("127.0.0.1", port))
        self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer, self._out, self._taken = bytearray(), bytearray(), 0
        self.heard: list[tuple[str, bytes]] = []
        self.overheard: deque[tuple[str, bytes]] = deque(maxlen=200)  # the last of all that he ever heard
        self._said = 0
        self._link.sendall(packet(CONNECT, text(b"MQTT") + bytes([4, 2, 0, 0]) + text(name.encode())))
        for number, one in enumerate(filters, 1):
            self._link.sendall(packet(SUBSCRIBE, struct.pack(">H", number) + text(one.encode()) + b"\1"))
        self._link.setblocking(False)

    def say(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish messages with QoS 1, and return when the broker has taken them all."""
        wanted = self._taken
        for topic, data in messages:
            self._said += 1
            self._out += packet(PUBLISH, text(topic.encode()) + struct.pack(">H", 1 + self._said % 60_000) + data)
            wanted += 1
            while len(self._out) > PIECE:
                self._turn(1.0)
        end = time.monotonic() + PATIENCE
        while self._taken < wanted or self._out:
            assert time.monotonic() < end, "the broker takes nothing more"
            self._turn(1.0)

    def say_large(self, topic: str, size: int) -> None:
        """Publish one message of so many bytes with QoS 1, and return when the broker has taken it."""
        self._said += 1
        head = text(topic.encode()) + struct.pack(">H", 1 + self._said % 60_000)
        self._out += bytes([PUBLISH]) + length(len(head) + size) + head
        left, wanted, end = size, self._taken + 1, time.monotonic() + PATIENCE
        while self._taken < wanted:
            assert time.monotonic() < end, "the broker takes nothing more"
            if left and len(self._out) < PIECE:
                piece = bytes(min(left, PIECE))
                self._out += piece
                left -= len(piece)
            self._turn(1.0)

    def listen(self, seconds: float) -> list[tuple[str, bytes]]:
        """Return what comes within this time, as soon as something has."""
        end = time.monotonic() + seconds
        while not self.heard and (left := end - time.monotonic()) > 0:
            self._turn(left)
        out, self.heard = self.heard, []
        return out

    def close(self) -> None:
        self._link.close()

    def _turn(self, seconds: float) -> None:
        readable, writable, _ = select.select([self._link], [self._link] if self._out else [], [], seconds)
        if readable:
            data = self._link.recv(1 << 18)
            if not data:
                raise ConnectionError("the broker hung up")
            self._buffer += data
            for first, body in split(self._buffer):
                if first & 0xF0 == 0x30:
                    topic = struct.unpack_from(">H", body)[0]
                    numbered = 2 if first & 6 else 0
                    if numbered:
                        self._out += bytes([0x40, 2]) + body[2 + topic : 4 + topic]
                    self.heard.append((body[2 : 2 + topic].decode(), body[2 + topic + numbered :]))
                    self.overheard.append(self.heard[-1])
                self._taken += first & 0xF0 == 0x40
        if writable:
            del self._out[: self._link.send(self._out[: 1 << 18])]
