"""A broker that lets a device in and then takes nothing is given up."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from edgeagent.link.mqtt import MqttLink
from edgeagent.link.transport import Connected, Lost, Will
from edgeagent.settings.tree import LinkSettings
from modelwire.wire import topics


class Deaf:
    """A broker that lets everybody in, answers each ping, and never says that it took a message."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        while packet := connection.recv(4096):
            if packet[0] == 0x10:
                connection.sendall(b"\x20\x02\x00\x00")
            elif packet[0] == 0x82:
                connection.sendall(b"\x90\x03" + packet[2:4] + b"\x01")
            elif packet[0] == 0xC0:
                connection.sendall(b"\xd0\x00")

    def close(self) -> None:
        self._listener.close()


@pytest.mark.slow("waits until a link is given up")
def test_a_link_over_which_the_broker_takes_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagent.link.mqtt.STALLED", 0.2)  # times keepalive
    broker = Deaf()
    link = MqttLink(LinkSettings(broker=broker.url, protocol="3.1.1", keepalive=5, reconnect_min=0.05), tmp_path, "pi-7")
    link.open(Will(topics.up("home", "pi-7", "m", "state"), b""), [topics.all_down("home", "pi-7")])
    try:
        until = time.monotonic() + 150
        seen: list[object] = []
        while time.monotonic() < until and not any(isinstance(e, Lost) for e in seen):
            event = link.poll(0.2)
            seen += [event] if event else []
            if isinstance(event, Connected):
                link.send("e1/home/pi-7/m/up/hello", b"x")
        lost = [e for e in seen if isinstance(e, Lost)]
        assert lost and "has taken none" in lost[0].reason
    finally:
        link.close()
        broker.close()
