"""The MQTT link with brokers that speak one version only, and with one that is killed."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from edgecloud.intake.mqtt import MqttTransport, parse_broker
from edgecloud.intake.transport import Delivery
from tests import broker as brokers
from tests.edgecloud.hearing import Ear, until

FLEET = "orchard"


class OldBroker:
    """Speaks 3.1.1 alone. Version 5 is refused as the standard says, or gets no answer at all."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.levels: list[int] = []
        self.subscribed = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for s in (self._listener, *self._open):
            s.close()

    def _accept(self) -> None:
        while True:
            try:
                s, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(s)
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s: socket.socket) -> None:
        try:
            while True:
                first = s.recv(1)
                if not first:
                    return
                size = shift = 0
                while True:
                    (byte,) = s.recv(1)
                    size |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                body = b""
                while len(body) < size:
                    body += s.recv(size - len(body))
                if first[0] == 0x10:
                    self.levels.append(body[6])
                    if body[6] == 5 and self._silent:
                        continue
                    if body[6] == 5:
                        s.sendall(b"\x20\x03\x00\x84\x00")
                        s.close()
                        return
                    s.sendall(b"\x20\x02\x00\x00")
                elif first[0] == 0x82:
                    s.sendall(b"\x90\x03" + body[:2] + b"\x01")
                    self.subscribed.set()
        except (OSError, ValueError):
            return


@pytest.mark.slow("waits for a broker")
@pytest.mark.parametrize("silent", [True, False], ids=["silent", "refusing"])
def test_a_broker_that_knows_only_the_older_version_is_spoken_to_in_it(silent: bool) -> None:
    old = OldBroker(silent=silent)
    transport = MqttTransport(parse_broker(f"mqtt://127.0.0.1:{old.port}"), fleet=FLEET, client_id="centre", connect_seconds=0.5)
    transport.start(Ear())
    until(lambda: transport.connected)
    assert old.subscribed.wait(100)
    assert old.levels[0] == 5 and old.levels[-1] == 4
    transport.stop()
    old.close()


@pytest.mark.slow("waits for a port that answers nobody")
def test_a_port_that_never_answers_is_said_once_however_long_it_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        transport = MqttTransport(parse_broker(url), fleet=FLEET, client_id="centre", connect_seconds=0.3)
        with caplog.at_level("DEBUG", "edgecloud.link"):
            transport.start(Ear())
            until(lambda: caplog.text.count("trying the other") >= 4)
            transport.stop()
    said = [one.getMessage() for one in caplog.records if one.levelname != "DEBUG"]
    assert len(said) <= 2 and sum("has not answered in MQTT" in one for one in said) == 1, "at each try it would be 14,000 lines a day"


@pytest.mark.slow("waits for a broker")
def test_a_broker_that_comes_late_is_found(tmp_path: Path) -> None:
    if brokers.program() is None:
        pytest.skip(brokers.MISSING)
    broker = brokers.Mosquitto(tmp_path)
    transport = MqttTransport(parse_broker(broker.url), fleet=FLEET, client_id="centre")
    transport.start(Ear())
    time.sleep(0.5)
    assert not transport.connected
    broker.start()
    until(lambda: transport.connected)
    transport.stop()
    broker.stop()


@pytest.mark.slow("waits for a broker")
def test_a_killed_broker_is_found_again_and_old_acknowledgements_do_no_harm(tmp_path: Path) -> None:
    if brokers.program() is None:
        pytest.skip(brokers.MISSING)
    with brokers.mosquitto(tmp_path) as broker:
        ear = Ear()
        transport, other = (MqttTransport(parse_broker(broker.url), fleet=FLEET, client_id=c) for c in ("centre", "device"))
        transport.start(ear)
        other.start(lambda _d: None)
        until(lambda: transport.connected and other.connected)

        def send(data: bytes) -> None:
            before = len(ear.got)
            until(lambda: (other.publish(f"e1/{FLEET}/pi-7/digits/up/update", data), time.sleep(0.1), len(ear.got) > before)[-1])

        send(b"before")
        old: Delivery = ear.got[0]
        broker.kill()
        until(lambda: not transport.connected)
        broker.start()
        until(lambda: transport.connected and other.connected)
        transport.acknowledge(old)
        send(b"after")
        assert ear.data()[-1] == b"after"
        transport.stop()
        other.stop()
