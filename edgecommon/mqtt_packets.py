"""The few packets of MQTT 5 and 3.1.1 that a look at a broker needs, written and read as bytes."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from enum import Enum

CONNACK, PUBLISH, PUBACK, SUBACK, DISCONNECT = 2, 3, 4, 9, 14  # kinds of packets that a broker sends
KINDS = (CONNACK, PUBLISH, PUBACK, SUBACK, DISCONNECT, 11, 13)  # and the answers to UNSUBSCRIBE and PINGREQ
LARGEST = 1024 * 1024  # bytes of a packet that is read, and of them only the beginning is kept
KEPT = 64 * 1024  # bytes of it
KEEPALIVE = 60  # seconds


class MqttVersion(Enum):
    """A version of MQTT, by its number in CONNECT."""

    FIVE = 5
    FOUR = 4  # 3.1.1
    NONE = 9  # that there is not: a broker answers it, or hangs up, and no session of anyone is touched

    @property
    def said(self) -> str:
        return "5" if self is MqttVersion.FIVE else "3.1.1"

    def refusal(self, answer: bytes) -> int:
        """Return the reason for which a PUBACK refuses, 0 where it does not: in 3.1.1 none says so. answer: what is behind its number."""
        return answer[0] if self is MqttVersion.FIVE and answer and answer[0] >= 0x80 else 0

    def codes(self, answer: bytes) -> bytes:
        """Return the codes of a SUBACK, one a filter. answer: what is behind its number."""
        properties = 1 + answer[0] if self is MqttVersion.FIVE and answer else 0
        return answer[properties:]


class NoPacketError(Exception):
    """What came is no packet of MQTT."""

    def __init__(self, data: bytes) -> None:
        super().__init__("no packet of MQTT")
        self.data = data


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one side of a connection takes. Asked for by the first two; the others are what a broker says of itself."""

    expiry: int  # seconds for which a session is kept
    receive: int  # messages at once before one is acknowledged
    packet: int = 0  # bytes of the largest packet; 0: any
    qos: int = 2
    session_there: bool = False

    @classmethod
    def of(cls, body: bytes, version: MqttVersion) -> SessionLimits:
        """Return what a CONNACK says; what can't be read of it counts as not said."""
        packet, qos = 0, 2
        if version is MqttVersion.FIVE:
            for name, value in _properties(body[2:]):
                packet = value if name == 0x27 else packet
                qos = value if name == 0x24 else qos
        return cls(0, 0, packet, qos, bool(body[0] & 1))


def connect(
    version: MqttVersion, client_id: str, asked: SessionLimits, *, user: str = "", password: str = "", fresh: bool = False
) -> bytes:
    """Return a CONNECT. fresh: what the broker keeps for this id is dropped. A password goes with a user alone, as clients send it."""
    flags = (0x02 if fresh else 0) | (0x80 if user else 0) | (0x40 if user and password else 0)
    body = _text("MQTT") + bytes((version.value, flags)) + struct.pack(">H", KEEPALIVE)
    if version is not MqttVersion.FOUR:
        wishes = struct.pack(">BIBHBI", 0x11, asked.expiry, 0x21, max(1, asked.receive), 0x27, LARGEST)
        body += bytes((len(wishes),)) + wishes
    body += _text(client_id)
    if user:
        body += _text(user) + (_text(password) if password else b"")
    return _packet(0x10, body)


def subscribe(version: MqttVersion, number: int, wanted: list[tuple[str, int]]) -> bytes:
    """Return a SUBSCRIBE to topic filters, each with its QoS."""
    body = struct.pack(">H", number) + (b"\0" if version is MqttVersion.FIVE else b"")
    return _packet(0x82, body + b"".join(_text(one) + bytes((qos,)) for one, qos in wanted))


def publish(version: MqttVersion, number: int, topic: str, data: bytes) -> bytes:
    """Return a PUBLISH of QoS 1."""
    return _packet(0x32, _text(topic) + struct.pack(">H", number) + (b"\0" if version is MqttVersion.FIVE else b"") + data)


def leave(version: MqttVersion, expiry: int) -> bytes:
    """Return a DISCONNECT. expiry: seconds for which the session is kept from now on, where the version can say so."""
    return _packet(0xE0, b"\0\x05\x11" + struct.pack(">I", expiry) if version is MqttVersion.FIVE else b"")


class PacketReader:
    """Packets from a socket, each within a time: one that comes a byte at a time is given up like one that does not come."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source

    def read(self, until: float, wanted: tuple[int, ...] = KINDS) -> tuple[int, bytes]:
        """Return the next packet's kind and how it begins. until: monotonic seconds.

        Raises TimeoutError, ConnectionError when the connection ends, NoPacketError for what is none of the wanted kinds.
        """
        first = self._take(1, until)
        if first[0] >> 4 not in wanted:
            raise NoPacketError(first + self._more(until))
        size, shift, head = 0, 0, first
        while True:
            byte = self._take(1, until)
            head += byte
            size |= (byte[0] & 0x7F) << shift
            shift += 7
            if not byte[0] & 0x80:
                break
            if shift > 21:
                raise NoPacketError(head)
        if size > LARGEST:
            raise NoPacketError(head)
        body = self._take(min(size, KEPT), until)
        left = size - len(body)
        while left:
            left -= len(self._take(min(left, KEPT), until))
        return first[0] >> 4, body

    def _more(self, until: float) -> bytes:
        """Return a little of what follows at once, to tell what is spoken."""
        try:
            self._source.settimeout(max(0.01, min(0.2, until - time.monotonic())))
            return self._source.recv(8)
        except OSError:
            return b""

    def _take(self, count: int, until: float) -> bytes:
        out = b""
        while len(out) < count:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._source.settimeout(left)
            got = self._source.recv(count - len(out))
            if not got:
                raise ConnectionError("the connection ended")
            out += got
        return out


def _packet(first: int, body: bytes) -> bytes:
    size, left = b"", len(body)
    while True:
        left, low = divmod(left, 128)
        size += bytes((low | (0x80 if left else 0),))
        if not left:
            return bytes((first,)) + size + body


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


_SIZES = {0x11: 4, 0x21: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x22: 2, 0x28: 1, 0x29: 1, 0x2A: 1, 0x13: 2}


def _properties(data: bytes) -> list[tuple[int, int]]:
    """Return the numbers among the properties of a CONNACK, up to the first that is none."""
    out: list[tuple[int, int]] = []
    at = 1
    while data and at < min(len(data), 1 + data[0]) and data[0] < 0x80:
        name = data[at]
        size = _SIZES.get(name)
        if size is None:  # a text, or pairs of them
            size = 2 + int.from_bytes(data[at + 1 : at + 3], "big")
            if name == 0x26:
                size += 2 + int.from_bytes(data[at + 1 + size : at + 3 + size], "big")
        else:
            out.append((name, int.from_bytes(data[at + 1 : at + 1 + size], "big")))
        at += 1 + size
    return out
