"""What a hostile broker can do to a board below the records: packets that are too large, too many, or not what was asked for."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeagent.link import mqtt
from edgeagent.link.mqtt import MqttLink
from edgeagent.link.transport import Arrived, Connected, Event, Lost, Will
from edgeagent.settings.tree import LinkSettings
from edgecommon.mqtt_packets import Oversize
from modelwire.wire import topics
from tests.mqtt_bytes import length


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


@contextmanager
def met(tmp_path: Path, flood: Callable[[socket.socket], None], keepalive: float = 60.0) -> Iterator[tuple[MqttLink, Hostile]]:
    broker = Hostile(flood)
    settings = LinkSettings(broker=broker.url, protocol="3.1.1", reconnect_min=600, reconnect_max=600, keepalive=keepalive)
    link = MqttLink(settings, tmp_path, "pi-7")
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


def test_a_packet_that_says_it_has_256_mib_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with met(tmp_path, lambda s: s.sendall(b"\x32" + length((1 << 28) - 1)), keepalive=5) as (link, broker):
        reason, seen = until_lost(link)
        assert reason and [type(e) for e in seen] == [Connected] and broker.ended.wait(30)


@pytest.mark.parametrize("first", [0x20, 0x40, 0x90, 0xB0, 0xD0, 0xE0, 0xF0])
def test_a_large_packet_that_is_no_message_ends_the_link_before_it_is_read(tmp_path: Path, first: int) -> None:
    with met(tmp_path, lambda s: s.sendall(bytes([first]) + length((1 << 28) - 1))) as (link, broker):
        reason, seen = until_lost(link)
        assert "a packet of 268435455 bytes" in reason and [type(e) for e in seen] == [Connected] and broker.ended.wait(30)


@pytest.mark.parametrize(("bad", "said"), [(b"\x32\xff\xff\xff\xff\x01", "a length that is none"), (b"\x00\x00", "type 0")])
def test_a_packet_that_begins_as_none_does_ends_the_link(tmp_path: Path, bad: bytes, said: str) -> None:
    with met(tmp_path, lambda s: s.sendall(bad)) as (link, _):
        reason, _seen = until_lost(link)
        assert said in reason


def test_the_longest_topic_of_a_large_message_is_told_by_its_beginning(tmp_path: Path) -> None:
    with met(tmp_path, lambda s: s.sendall(b"\x32" + length(200_000) + b"\xff\xff" + b"x" * 200_000)) as (link, _):
        event = next(e for e in iter(lambda: link.poll(30.0), None) if not isinstance(e, Connected))
        assert event == Oversize("x" * 200, 200_000)


def test_a_message_of_100_mib_is_let_go_and_acknowledged_and_the_next_one_is_heard(tmp_path: Path) -> None:
    answers, acknowledged = bytearray(), threading.Event()

    def flood(s: socket.socket) -> None:
        body = struct.pack(">H", 5) + b"e1/up" + struct.pack(">H", 99)
        s.sendall(b"\x32" + length(len(body) + 100 * 2**20) + body)
        for _ in range(100):
            s.sendall(bytes(2**20))
        s.sendall(publish(b"next"))
        s.settimeout(30)
        while b"\x40\x02\x00\x63" not in answers:
            answers.extend(s.recv(4096))
        acknowledged.set()

    with met(tmp_path, flood) as (link, _):
        tracemalloc.start()
        try:
            seen = [event for _ in range(3) if (event := link.poll(60.0)) is not None]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert [type(e) for e in seen] == [Connected, Oversize, Arrived]
        assert seen[1] == Oversize("e1/up", 9 + 100 * 2**20) and isinstance(seen[2], Arrived) and seen[2].data == b"next"
        assert peak < 8 * 2**20, "of it no more than a piece is held at once"
        assert acknowledged.wait(30)


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


class Session:
    """A broker that keeps a session: its message comes again, marked so, until it is acknowledged; each connection has a part of it."""

    def __init__(self, size: int, each: int) -> None:
        self._size, self._each, self._listener = size, each, socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        self.begun, self.acknowledged = 0, threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    self._speak(connection)

    def _speak(self, connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"\x20\x02\x01\x00")
        subscribe = connection.recv(4096)
        connection.sendall(b"\x90\x04" + subscribe[2:4] + b"\x01\x01")
        if self.acknowledged.is_set():
            connection.sendall(publish(b"next"))
            while connection.recv(4096):
                pass
            return
        self.begun += 1
        body = struct.pack(">H", 5) + b"e1/up" + struct.pack(">H", 99)
        connection.sendall((b"\x3a" if self.begun > 1 else b"\x32") + length(len(body) + self._size) + body)
        connection.sendall(bytes(self._each))
        while self.begun > 1 and not self.acknowledged.is_set():
            if b"\x40\x02\x00\x63" in connection.recv(4096):
                self.acknowledged.set()

    def close(self) -> None:
        self._listener.close()


def test_a_large_message_on_a_link_that_never_lives_long_enough_for_it_comes_twice_and_no_more(tmp_path: Path) -> None:
    broker = Session(200_000_000, 1_000_000)
    link = MqttLink(LinkSettings(broker=broker.url, protocol="3.1.1", reconnect_min=0.05, reconnect_max=0.1), tmp_path, "pi-7")
    link.open(Will(topics.up("home", "pi-7", "tiny", "state"), b""), [topics.all_down("home", "pi-7"), topics.trust_of_all("home")])
    try:
        seen: list[Event] = []
        while not any(isinstance(event, Arrived) for event in seen):
            event = link.poll(60.0)
            assert event is not None, seen
            seen.append(event)
    finally:
        link.close()
        broker.close()
    assert broker.begun == 2 and [type(e) for e in seen if isinstance(e, (Oversize, Arrived))] == [Oversize, Arrived]


def test_a_library_that_reads_past_the_bound_is_refused_in_3_1_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt._Client, "_sock_recv", mqtt.mqtt.Client._sock_recv)
    with met(tmp_path, lambda s: None) as (link, _):
        reason, seen = until_lost(link)
        assert reason.startswith("paho-mqtt 2") and "pip install" in reason and not seen
