"""Nothing that a broker sends takes more memory than a packet within the limit, whatever it is and however its bytes come."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from edgeagent.link.mqtt import _Client
from edgecloud.intake.paho_client import PahoClient
from edgecommon.mqtt_packets import PIECE, PIECES, BeyondBoundsError, InboundBound, Minutely, Oversize
from tests.mqtt_bytes import packet

LIMIT = 200
PINGRESP = b"\xd0\x00"


def publish(topic: bytes, number: int, content: bytes, *, qos: int = 1, again: bool = False) -> bytes:
    head = struct.pack(">H", len(topic)) + topic + (struct.pack(">H", number) if qos else b"")
    return packet(0x30 | qos << 1 | again << 3, head + content)


class Wire:
    """A socket that has some bytes now and then, by a plan; each None in it is a moment in which nothing has come."""

    def __init__(self, pieces: list[bytes | None]) -> None:
        self.pieces, self.most, self.ended = list(pieces), 0, False

    def __call__(self, count: int) -> bytes:
        self.most = max(self.most, count)
        if not self.pieces:
            if self.ended:
                return b""
            raise BlockingIOError
        piece = self.pieces.pop(0)
        if piece is None:
            raise BlockingIOError
        if len(piece) > count:
            self.pieces.insert(0, piece[count:])
        return piece[:count]


def split(stream: bytes, seed: int) -> list[bytes | None]:
    """Return a stream cut at random, with moments of silence between."""
    draw, out = random.Random(seed), list[bytes | None]()
    while stream:
        cut = draw.choice([1, 2, 3, 7, 50, 1000, 100_000])
        out.append(stream[:cut])
        stream = stream[cut:]
        out += [None] * draw.choice([0, 0, 1, 2])
    return out


def packets(bound: InboundBound, wire: Wire) -> list[tuple[int, bytes, Oversize | None]]:
    """Read as a library does: one byte, the length byte by byte, then the rest; return the packets, and what they stand for."""
    out: list[tuple[int, bytes, Oversize | None]] = []

    def take(count: int) -> bytes:
        while True:
            try:
                return bound.read(count, wire)
            except BlockingIOError:
                if not wire.pieces and not wire.ended:
                    wire.ended = True

    while first := take(1):
        size = shift = 0
        while True:
            byte = take(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        body = b""
        while len(body) < size:
            data = take(size - len(body))
            assert data, "a packet that was handed on ends"
            body += data
        out.append((first[0], body, bound.oversize()))
    return out


messages = st.tuples(
    st.binary(min_size=1, max_size=12), st.integers(1, 65535), st.integers(0, 3 * LIMIT), st.sampled_from([0, 1]), st.booleans()
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(messages, max_size=8), st.integers(0, 2**32), st.booleans())
def test_what_fits_goes_through_as_it_is_and_of_the_rest_only_topic_and_number_do(
    sent: list[tuple[bytes, int, int, int, bool]], seed: int, five: bool
) -> None:
    stream, wanted = b"", list[tuple[int, bytes, Oversize | None]]()
    for topic, number, size, qos, again in sent:
        again = again and qos == 1
        whole = publish(topic, number, bytes(size), qos=qos, again=again)
        head = struct.pack(">H", len(topic)) + topic + (struct.pack(">H", number) if qos else b"")
        large = len(head) + size > LIMIT
        body = head + (b"\0" if five else b"") if large else head + bytes(size)
        wanted.append((whole[0], body, Oversize(topic.decode(errors="replace"), len(head) + size) if large else None))
        stream += whole
    wire = Wire(split(stream, seed))
    seen = packets(InboundBound(LIMIT, five=five), wire)
    assert [one for one in seen if one[:2] != (0xD0, b"")] == wanted
    assert wire.most <= PIECE


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=600), st.integers(0, 2**32))
def test_whatever_comes_is_handed_on_within_the_limit_or_ends_the_connection(stream: bytes, seed: int) -> None:
    wire, bound, got = Wire(split(stream, seed)), InboundBound(LIMIT, five=False), 0
    for _ in range(10_000):
        try:
            data = bound.read(1, wire)
        except BlockingIOError:
            if not wire.pieces:
                break
        except BeyondBoundsError:
            break
        else:
            got += len(data)
    assert wire.most <= PIECE and len(bound._kept) <= PIECE + 65_539 and got <= 3 * len(stream) + 10


def test_a_broker_that_is_busy_with_a_large_message_is_known_to_live() -> None:
    whole = publish(b"t", 7, bytes(3 * PIECE * PIECES))
    bound, wire = InboundBound(LIMIT, five=False), Wire([whole])
    for _ in range(3):
        assert bound.read(1, wire) + bound.read(1, wire) == PINGRESP and bound.oversize() is None
    assert bound.read(100, wire) == publish(b"t", 7, b"") and bound.oversize() is not None


def test_silence_in_a_large_message_is_silence() -> None:
    bound, wire = InboundBound(LIMIT, five=False), Wire([publish(b"t", 7, bytes(1000))[:500], None, None])
    assert bound.read(2, wire) == PINGRESP
    for _ in range(5):
        with pytest.raises(BlockingIOError):
            bound.read(1, wire)


def test_a_large_message_that_comes_again_is_answered_before_all_of_it_has_come() -> None:
    whole = publish(b"t", 7, bytes(1 << 20), again=True)
    bound, wire = InboundBound(LIMIT, five=False), Wire([whole[:9], None, whole[9:], None])
    assert bound.read(100, wire) == publish(b"t", 7, b"", again=True)
    assert bound.oversize() == Oversize("t", (1 << 20) + 5) and bound.oversize() is None
    assert bound.read(100, wire) == PINGRESP
    with pytest.raises(BlockingIOError):
        bound.read(1, wire)


def test_a_connection_that_ends_within_a_large_message_ends() -> None:
    bound, wire = InboundBound(LIMIT, five=False), Wire([publish(b"t", 7, bytes(1000))[:500]])
    wire.ended = True
    assert bound.read(2, wire) == b"" or bound.read(2, wire) == b""


@pytest.mark.parametrize(
    "bad",
    [b"\x32\xff\xff\xff\xff", b"\x32\x80\x80\x80\x80", b"\x00", b"\x10", b"\xc0", b"\x62", b"\x34", b"\x36", b"\x20\xff\x7f",
     b"\x90\xc9\x01", b"\x32\xc9\x01\xff\xff" + bytes(210), b"\x32\xc9\x01\x00\xc7" + bytes(210)],
)  # fmt: skip
def test_what_no_broker_says_and_what_can_not_be_let_go_ends_the_connection(bad: bytes) -> None:
    bound, wire = InboundBound(LIMIT, five=False), Wire([bad])
    with pytest.raises(BeyondBoundsError):
        for _ in range(300):
            bound.read(1, wire)


def test_a_subject_is_news_once_a_minute_and_after_the_clock_was_set_back() -> None:
    news = Minutely()
    assert [news.is_news("a", t) for t in (100, 101, 159.9, 160, 161, 20, 21)] == [True, False, False, True, False, True, False]
    for n in range(10_000):
        assert news.is_news(f"topic {n}", 21)
    assert len(news._said) <= Minutely.MOST


# The library that is installed, of both sides: tests/edgecommon/paho_versions.py runs these with every release that may be.


def board(five: bool) -> mqtt.Client:
    client = _Client(
        CallbackAPIVersion.VERSION2, client_id="pi-7", protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311, manual_ack=True,
        reconnect_on_failure=False,
    )  # fmt: skip
    client.bound, client.plain = InboundBound(1000, five=five), True
    return client


def centre(five: bool) -> mqtt.Client:
    client = PahoClient(CallbackAPIVersion.VERSION2, client_id="centre", protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311, manual_ack=True)
    client._bound = InboundBound(1000, five=five)
    return client


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(30)
    yield near, far
    near.close()
    far.close()


@pytest.mark.parametrize("five", [False, True])
@pytest.mark.parametrize("made", [board, centre])
def test_the_library_reads_by_the_bound_and_answers_what_was_let_go(
    ends: tuple[socket.socket, socket.socket], made: Callable[[bool], Any], five: bool
) -> None:
    client, (near, far), heard = made(five), ends, list[tuple[bytes, Oversize | None]]()

    def on_message(c: Any, _data: Any, message: Any) -> None:
        heard.append((bytes(message.payload), c.bound.oversize()))
        c.ack(message.mid, message.qos)

    client.on_message, client._sock = on_message, near
    assert not client.bound.kind
    none = b"\0" if five else b""
    far.sendall(b"\x20\x03\x00\x00\x00" if five else b"\x20\x02\x00\x00")
    far.sendall(publish(b"t", 1, none + b"small"))
    for size in (2000, 100_000, 2000):
        whole = publish(b"large", 2, none + bytes(size))
        while whole:
            far.sendall(whole[:30_000])
            whole = whole[30_000:]
            for _ in range(8):
                assert client.loop_read() == 0
    far.sendall(publish(b"t", 3, none + b"next"))
    for _ in range(8):
        assert client.loop_read() == 0
    large = [Oversize("large", 9 + len(none) + size) for size in (2000, 100_000, 2000)]
    assert heard == [(b"small", None), *((b"", one) for one in large), (b"next", None)]
    assert client.bound.kind == 3 and client._ping_t == 0
    client.loop_write()
    wanted = b"".join(b"\x40\x02\x00" + bytes([n]) for n in (1, 2, 2, 2, 3))
    got = b""
    while len(got) < len(wanted):
        got += far.recv(4096)
    assert got == wanted
