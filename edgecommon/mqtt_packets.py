"""Packets of MQTT 5 and 3.1.1 as bytes: the few that a look at a broker needs, and the bound on all that a broker sends."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from modelwire import limits

CONNACK, PUBLISH, PUBACK, SUBACK, DISCONNECT = 2, 3, 4, 9, 14  # kinds of packets that a broker sends
KINDS = (CONNACK, PUBLISH, PUBACK, SUBACK, DISCONNECT, 11, 13)  # and the answers to UNSUBSCRIBE and PINGREQ
LARGEST = 1024 * 1024  # bytes of a packet that is read, and of them only the beginning is kept
KEPT = 64 * 1024  # bytes of it
KEEPALIVE = 60  # seconds
INBOUND = limits.DEFAULT.part + 1024  # bytes of the largest packet that is taken in: a part, its topic, and what is around it
PIECE = 64 * 1024  # bytes of a larger one that are in memory at once
PIECES = 32  # of them at one look at the socket, so that what is to be written gets its turn
TOPIC = 200  # characters of a topic that are told of a packet that is too large
_PINGRESP = b"\xd0\x00"  # the broker lives: what a library is told while it gets nothing else
_QOS_2 = 0x34  # of the first byte of a PUBLISH of QoS 2, and of 3, which there is not: both sides subscribe at 1
_NOT_FOR_CLIENTS = (0, 1, 5, 6, 7, 8, 10, 12)  # kinds of packets: what only a client says, and the rest of QoS 2


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


class BeyondBoundsError(Exception):
    """A broker sends what would take more memory than it may; the connection is given up.

    No OSError: paho would keep the reason to itself.
    """


@dataclass(frozen=True, slots=True)
class Oversize:
    """A message that was let go unread, as its packet is larger than what is taken in."""

    topic: str  # as it may be told: its beginning
    size: int  # bytes of its packet, behind the head


class Minutely:
    """Tells what is news: what was not said within the last minute. Holds a few subjects; who thinks up more is told of again sooner."""

    MOST = 256

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def is_news(self, subject: str, now: float) -> bool:
        """Return whether a subject is to be said, and take it for said. now: seconds of any clock, which may be set back."""
        if 0 <= now - self._said.get(subject, float("-inf")) < 60.0:
            return False
        if len(self._said) >= self.MOST:
            self._said.clear()
        self._said[subject] = now
        return True


class InboundBound:
    """The bound on what one connection brings into memory, between its socket and a library that would allocate what a packet says it has.

    A packet within the limit goes through byte for byte. In the place of a larger PUBLISH the library gets one without content, of
    the same topic and number, so that it is acknowledged as any other and does not come again. The rest of it is read in pieces and let go;
    meanwhile the library reads that the broker lives (PINGRESP), or it would give up a link that is merely busy. One that
    the broker says it sends again (DUP) is handed on as soon as its number is known: on a link that ends before all of it has
    come it would come at each connection, for ever.
    """

    kind = 0  # of the packet that was handed on last; 0: the library has not read here yet

    def __init__(self, limit: int, *, five: bool) -> None:
        """limit: bytes of a packet behind its head; five: MQTT 5 is spoken."""
        self._limit, self._five = limit, five
        self._head = bytearray()  # of the packet that begins, as far as it has come
        self._ready = b""  # to be read at once
        self._left = 0  # bytes of the packet that are still to be handed on
        self._drop = 0  # bytes of a packet that are still to be let go
        self._size = self._first = 0  # of that packet, and its first byte
        self._kept = bytearray()  # its beginning
        self._told = False  # it was handed on
        self._oversize: Oversize | None = None

    def read(self, count: int, receive: Callable[[int], bytes]) -> bytes:
        """Return up to `count` bytes of what may be taken in, none when the connection ended.

        receive: returns up to so many bytes of the socket, none at its end; what it raises is passed on, BlockingIOError too.
        Raises BeyondBoundsError for what can't be let go.
        """
        if not self._ready and not self._left and not self._begin(receive):
            return b""
        if self._ready:
            out, self._ready = self._ready[:count], self._ready[count:]
            return out
        data = receive(min(count, self._left))
        self._left -= len(data)
        return data

    def oversize(self) -> Oversize | None:
        """Return what the message is that was just handed on, where it stands for a larger one; once."""
        one, self._oversize = self._oversize, None
        return one

    def _begin(self, receive: Callable[[int], bytes]) -> bool:
        """Have something to hand on; return whether there is, and not the end of the connection."""
        head = self._head
        while not self._drop:
            byte = receive(1)
            if not byte:
                return False
            head += byte
            if len(head) == 1:
                self._check(head[0])
            elif byte[0] < 0x80:
                self._open(bytes(head))
                head.clear()
                if not self._drop:
                    return True
            elif len(head) == 5:
                raise BeyondBoundsError("the broker sends a packet of a length that is none")
        return self._let_go(receive)

    def _check(self, first: int) -> None:
        if first & 0xF4 == _QOS_2:  # a library would keep each until the broker says to let it go
            raise BeyondBoundsError("the broker sends what was not subscribed to: QoS 2")
        if first >> 4 in _NOT_FOR_CLIENTS:
            raise BeyondBoundsError(f"the broker sends a packet of type {first >> 4}, which is none of a broker's")

    def _open(self, head: bytes) -> None:
        size = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(head[1:]))
        self.kind, self._oversize = head[0] >> 4, None
        if size <= self._limit:
            self._ready, self._left = head, size
            return
        if self.kind != PUBLISH:
            raise BeyondBoundsError(f"the broker sends a packet of {size} bytes, of type {self.kind}")
        self._size = self._drop = size
        self._first, self._told = head[0], False
        self._kept.clear()

    def _let_go(self, receive: Callable[[int], bytes]) -> bool:
        """Read on in a packet that is too large. Returns whether the connection goes on."""
        before = self._drop
        for _ in range(PIECES):
            try:
                data = receive(min(self._drop, PIECE))
            except BlockingIOError:
                if self._drop == before:
                    raise
                break
            if not data:
                return False
            self._drop -= len(data)
            if not self._told:
                self._kept += data
                self._tell()
            if not self._drop:
                break
        self._ready = self._ready or _PINGRESP
        return True

    def _tell(self) -> None:
        """Hand on what a packet that is too large stands for, once that is known and, but for one that comes again, all of it has come."""
        numbered = 2 if self._first & 0x06 else 0
        if len(self._kept) < 2:
            return
        length = int.from_bytes(self._kept[:2], "big")
        behind = 2 + length + numbered
        if behind > self._size:
            raise BeyondBoundsError("the broker sends a packet whose topic is longer than itself")
        known = len(self._kept) >= behind
        del self._kept[behind:]
        if not known or (self._drop and not self._first & 0x08):
            return
        topic = bytes(self._kept[2 : 2 + length]).decode(errors="replace")[:TOPIC]
        self._oversize, self._told = Oversize(topic, self._size), True
        self._ready = _packet(self._first, bytes(self._kept) + (b"\0" if self._five else b""))


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
