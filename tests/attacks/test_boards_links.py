"""What a hostile broker can do to a board below the records: packets that are too large, too many, or not what was asked for."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeagent.link import mqtt
from edgeagent.link.mqtt import MqttLink
from edgeagent.link.transport import Arrived, Connected, Event, Lost, Will
from edgeagent.settings.tree import LinkSettings
from modelwire.wire import topics


class Hostile:
    """A broker that lets everybody in, and then sends what it likes."""

    def __init__(self, flood: Callable[[socket.socket], None]) -> None:
        self._flood, self._listener = flood, socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x20\x02\x00\x00")
                subscribe = connection.recv(4096)
                connection.sendall(b"\x90\x04" + subscribe[2:4] + b"\x01\x01")
                self._flood(connection)
                while connection.recv(4096):
                    pass
        except OSError:
            pass
        self.ended.set()

    def close(self) -> None:
        self._listener.close()


def publish(payload: bytes, qos: int = 1, topic: bytes = b"e1/home/pi-7/tiny/dn/cmd") -> bytes:
    body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", 7) + payload
    return bytes([0x30 | qos << 1]) + length(len(body)) + body


def length(n: int) -> bytes:
    """Return the remaining length of a packet as MQTT writes it."""
    out = bytearray()
    while True:
        n, low = divmod(n, 128)
        out.append(low | (128 if n else 0))
        if not n:
            return bytes(out)


@contextmanager
def met(tmp_path: Path, flood: Callable[[socket.socket], None]) -> Iterator[tuple[MqttLink, Hostile]]:
    broker = Hostile(flood)
    link = MqttLink(LinkSettings(broker=broker.url, protocol="3.1.1", reconnect_min=600, reconnect_max=600), tmp_path, "pi-7")
    link.open(Will(topics.up("home", "pi-7", "tiny", "state"), b""), [topics.all_down("home", "pi-7"), topics.trust_of_all("home")])
    try:
        yield link, broker
    finally:
        link.close()
        broker.close()


def until_lost(link: MqttLink) -> tuple[str, list[Event]]:
    """Return why the link was given up, and what came before."""
    seen: list[Event] = []
    for _ in range(100_000):
        event = link.poll(30.0)
        assert event is not None, f"nothing more came after {len(seen)} events"
        if isinstance(event, Lost):
            return event.reason, seen
        seen.append(event)
    raise AssertionError("endless")


def test_a_packet_that_says_it_has_256_mib_is_not_waited_for(tmp_path: Path) -> None:
    with met(tmp_path, lambda s: s.sendall(b"\x32" + length((1 << 28) - 1))) as (link, broker):
        reason, seen = until_lost(link)
        assert "a packet of 268435455 bytes" in reason and [type(e) for e in seen] == [Connected] and broker.ended.wait(30)


def test_messages_of_a_quality_that_nobody_asked_for_are_not_kept(tmp_path: Path) -> None:
    with met(tmp_path, lambda s: s.sendall(publish(b"x" * 60_000, qos=2) * 3)) as (link, broker):
        reason, seen = until_lost(link)
        assert "QoS 2" in reason and [type(e) for e in seen] == [Connected] and broker.ended.wait(30)


def test_a_flood_of_messages_while_the_agent_trains_stays_within_bounds(tmp_path: Path) -> None:
    many, each = 300, 64 * 1024

    with met(tmp_path, lambda s: s.sendall(publish(b"x" * each) * many)) as (link, _):
        assert isinstance(link.poll(30.0), Connected)
        assert link._client is not None and link._client._thread is not None
        link._client._thread.join(60)  # given up before the agent looks at one of them
        reason, seen = until_lost(link)
        size = sum(len(e.data) for e in seen if isinstance(e, Arrived))
        assert "more than it may" in reason and size <= mqtt.WAITING_MAX < many * each


def test_a_topic_that_is_no_text_ends_the_link_and_not_the_agent(tmp_path: Path) -> None:
    with met(tmp_path, lambda s: s.sendall(publish(b"x", topic=b"e1/\xff\xfe/\x00"))) as (link, _):
        reason, _seen = until_lost(link)
        assert reason


@pytest.mark.parametrize("packet", [b"\xc0\x00", b"\x62\x02\x00\x07", b"\x20\x02\x00\x00", b"\x90\x04\x00\x01\x01\x01"])
def test_small_packets_that_no_broker_says_or_says_twice_end_the_link(tmp_path: Path, packet: bytes) -> None:
    with met(tmp_path, lambda s: s.sendall(packet * 100_000)) as (link, _):
        reason, seen = until_lost(link)
        assert reason.startswith("the broker ") and [type(e) for e in seen] == [Connected]
