"""The ingester's MQTT client: few calls of the system for many packets, and the same bytes on the wire."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgecloud.intake.paho_client import WRITE_BYTES, PahoClient

Ends = tuple[PahoClient, socket.socket, list[tuple[int, bytes]]]


class CountingSocket:
    """A socket that counts what is asked of it."""

    def __init__(self, real: socket.socket) -> None:
        self.real, self.sends, self.reads = real, 0, 0

    def send(self, data: bytes) -> int:
        self.sends += 1
        return self.real.send(data)

    def recv(self, size: int) -> bytes:
        self.reads += 1
        return self.real.recv(size)

    def close(self) -> None:
        self.real.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A client on one end of a pair of sockets, the other end, and what was heard."""
    near, far = socket.socketpair()
    near.setblocking(False)
    client = PahoClient(CallbackAPIVersion.VERSION2, client_id="centre", manual_ack=True, protocol=mqtt.MQTTv311)
    heard: list[tuple[int, bytes]] = []
    client.on_message = lambda _client, _data, message: heard.append((message.mid, message.payload))
    client._sock = CountingSocket(near)  # type: ignore[assignment]
    yield client, far, heard
    client._sock_close()
    far.close()


def publish(number: int, payload: bytes) -> bytes:
    """Return a PUBLISH of QoS 1."""
    body = struct.pack(">H", 1) + b"t" + struct.pack(">H", number) + payload
    length, rest = bytearray(), len(body)
    while rest > 127:
        length.append(rest & 127 | 128)
        rest >>= 7
    return bytes([0x32]) + bytes(length) + bytes([rest]) + body


def test_one_call_reads_all_packets_that_have_come(ends: Ends) -> None:
    client, far, heard = ends
    wanted = [(n, bytes([n]) * n) for n in range(1, 60)]
    far.sendall(b"".join(publish(*one) for one in wanted))
    assert client.loop_read() == 0
    assert heard == wanted
    assert client._sock.reads == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(20))
def test_packets_come_whole_however_the_bytes_come(ends: Ends, seed: int) -> None:
    client, far, heard = ends
    draw = random.Random(seed)
    wanted = [(n, draw.randbytes(draw.choice([1, 100, 127, 128, 5000]))) for n in range(1, 30)]
    stream = b"".join(publish(*one) for one in wanted)
    while stream:
        cut = draw.choice([1, 2, 3, 50, 700, 9000])
        far.sendall(stream[:cut])
        stream = stream[cut:]
        assert client.loop_read() == 0
    assert heard == wanted
    assert client.loop_read() == 0  # nothing has come, and that is no fault
    far.close()
    assert client.loop_read() != 0


def test_what_was_read_ahead_of_a_connection_that_ended_is_not_taken_for_the_next(ends: Ends) -> None:
    client, far, heard = ends
    far.sendall(publish(1, b"one") + publish(2, b"two"))
    client.on_message = lambda _client, _data, message: (heard.append((message.mid, message.payload)), client._sock_close())  # type: ignore[func-returns-value]
    client.loop_read()
    assert heard == [(1, b"one")]
    assert (client._unread, client._place) == (b"", 0)


def test_what_waits_goes_in_one_call_and_in_its_order(ends: Ends) -> None:
    client, far, _ = ends
    client._thread = object()  # type: ignore[assignment]  # as if it ran: what is said only waits
    client._state = mqtt._ConnectionState.MQTT_CS_CONNECTED
    for n in range(1, 40):
        client.ack(n, 1)
        client.publish("t", bytes([n]), qos=1)
    waiting = b"".join(bytes(one["packet"]) for one in client._out_packet)
    assert client.loop_write() == 0
    assert far.recv(1 << 20) == waiting
    assert client._sock.sends == 1  # type: ignore[union-attr]
    assert not client.want_write()
    client._thread = None


def test_a_packet_that_something_follows_from_is_written_by_itself(ends: Ends) -> None:
    client, far, _ = ends
    client._thread = object()  # type: ignore[assignment]
    client.ack(1, 1)
    client.ack(2, 1)
    client._send_pingreq()
    client.ack(3, 1)
    client._send_disconnect()
    assert client.loop_write() == 0
    assert far.recv(1 << 10) == bytes([0x40, 2, 0, 1, 0x40, 2, 0, 2, 0xC0, 0, 0x40, 2, 0, 3, 0xE0, 0])
    assert far.recv(1) == b""  # it has hung up
    client._thread = None


def test_a_full_socket_keeps_what_is_left(ends: Ends) -> None:
    client, far, _ = ends
    client._thread = object()  # type: ignore[assignment]
    client.max_inflight_messages_set(1000)
    client._state = mqtt._ConnectionState.MQTT_CS_CONNECTED
    for n in range(100):
        client.publish("t", bytes([n]) * (WRITE_BYTES // 8), qos=1)
    waiting = b"".join(bytes(one["packet"]) for one in client._out_packet)
    got = bytearray()
    while len(got) < len(waiting):
        assert client.loop_write() == 0
        got += far.recv(1 << 16)
    assert bytes(got) == waiting
    client._thread = None


def test_the_thread_is_woken_once_until_it_looks() -> None:
    client = PahoClient(CallbackAPIVersion.VERSION2, client_id="centre", manual_ack=True, protocol=mqtt.MQTTv311)
    client.connect_async("127.0.0.1", 9)
    client._thread_main = lambda: None  # type: ignore[method-assign]
    assert client.loop_start() == 0
    bell, ear = client._sockpairW, client._sockpairR
    assert bell is not None
    assert ear is not None
    for _ in range(3):
        client.ack(1, 1)
    assert len(ear.recv(100)) == 1
    assert client.want_write()
    client.ack(2, 1)
    assert len(ear.recv(100)) == 1
    client._reset_sockets()
