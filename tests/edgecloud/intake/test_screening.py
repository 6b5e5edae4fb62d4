"""What is left out of a connection's bytes: whole messages without a turn, acknowledged; all else goes through as it came."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from edgecloud.intake.paho_client import PahoClient
from edgecloud.intake.quotas.screening import HOLD, PacketScreen
from tests.mqtt_bytes import packet

UNWANTED = "e1/orchard/nobody/m/up/hello"


def publish(number: int, topic: str, size: int, qos: int = 1) -> bytes:
    name = topic.encode()
    head = struct.pack(">H", len(name)) + name + (struct.pack(">H", number) if qos else b"")
    return packet(0x30 | qos << 1, head + bytes(size))


def turns(messages: Sequence[tuple[str, int]]) -> list[bool]:
    return [topic != UNWANTED for topic, _ in messages]


PACKETS = st.one_of(
    st.tuples(st.just("wanted"), st.integers(0, 300), st.sampled_from([0, 1])),
    st.tuples(st.just("unwanted"), st.integers(0, 300), st.sampled_from([0, 1])),
    st.tuples(st.just("large"), st.integers(HOLD - 3, HOLD + 3000), st.just(1)),
    st.tuples(st.just("other"), st.integers(0, 5), st.just(0)),
)


@given(st.lists(PACKETS, max_size=12), st.data())
def test_however_it_is_cut_each_packet_goes_through_whole_or_is_left_out_and_acknowledged(packets: list, data: st.DataObject) -> None:
    stream, wanted, acknowledged = b"", b"", []
    for number, (kind, size, qos) in enumerate(packets, 1):
        topic = UNWANTED if kind == "unwanted" else "e1/orchard/pi-7/m/up/update"
        one = packet(0xD0, bytes(size)) if kind == "other" else publish(number, topic, size, qos)
        stream += one
        if kind != "unwanted":
            wanted += one
        elif qos:
            acknowledged.append(number)
    screen, passed, said, at = PacketScreen(turns), b"", b"", 0
    while at < len(stream):
        size = data.draw(st.integers(1, 1 + min(len(stream) - at, 70_000)))
        kept, acks = screen.pass_on(stream[at : at + size])
        passed, said, at = passed + kept, said + acks, at + size
    assert passed == wanted
    assert said == b"".join(b"\x40\x02" + struct.pack(">H", n) for n in acknowledged)


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=8))
def test_whatever_comes_nothing_is_added_and_no_fault_is_met(pieces: list[bytes]) -> None:
    screen, everything = PacketScreen(lambda messages: [True] * len(messages)), b"".join(pieces)
    passed = b"".join(screen.pass_on(piece)[0] for piece in pieces)
    assert everything.startswith(passed)


def test_what_is_no_mqtt_is_left_to_the_library() -> None:
    screen = PacketScreen(turns)
    assert screen.pass_on(b"\x30\xff\xff\xff\xff\xff") == (b"\x30\xff\xff\xff\xff\xff", b"")
    assert screen.pass_on(publish(1, UNWANTED, 9)) == (publish(1, UNWANTED, 9), b"")
    screen.reset()
    assert screen.pass_on(publish(1, UNWANTED, 9)) == (b"", b"\x40\x02\x00\x01")


@pytest.fixture
def ends() -> Iterator[tuple[PahoClient, socket.socket, list[int]]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    client = PahoClient(CallbackAPIVersion.VERSION2, client_id="centre", manual_ack=True, protocol=mqtt.MQTTv311)
    client.screen = PacketScreen(turns)
    heard: list[int] = []
    client.on_message = lambda _client, _data, message: heard.append(message.mid)
    client._sock = near  # type: ignore[assignment]
    yield client, far, heard
    client._sock_close()
    far.close()


def test_the_client_reads_what_has_a_turn_and_acknowledges_the_rest(ends: tuple[PahoClient, socket.socket, list[int]]) -> None:
    client, far, heard = ends
    far.sendall(b"".join(publish(n, UNWANTED if n % 3 else "e1/orchard/pi-7/m/up/update", 40) for n in range(1, 31)))
    end = time.monotonic() + 60
    while len(heard) < 10 and time.monotonic() < end:
        client.loop_read()
    assert heard == list(range(3, 31, 3))
    client.loop_write()
    assert far.recv(1 << 16) == b"".join(b"\x40\x02" + struct.pack(">H", n) for n in range(1, 31) if n % 3)
    far.sendall(publish(99, UNWANTED, 40)[:-5])
    client.loop_read()
    client._sock_close()
    assert client.screen is not None and client.screen.pass_on(publish(1, "e1/o/pi-7/m/up/update", 4))[0]
