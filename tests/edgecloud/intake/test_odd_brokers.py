"""Brokers that say odd things, let nobody listen, or hand on what a receiver fails at."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from edgecloud.intake.mqtt import MqttTransport, parse_broker
from edgecloud.intake.service import Ingester, Pace
from edgecloud.intake.transport import Delivery
from modelwire.errors import BrokerRefused
from tests import broker
from tests.edgecloud.centre import make_registry
from tests.edgecloud.device import FLEET, Base
from tests.edgecloud.hearing import Ear, until
from tests.keys import RECEIPT


class OddBroker:
    """Greets, takes the subscription, and says one more thing on its first connection: to a topic, or as it stands."""

    def __init__(self, odd: bytes, *, raw: bytes = b"") -> None:
        self._odd, self._raw = odd, raw
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
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
            self.connections += 1
            threading.Thread(target=self._serve, args=(s, self.connections), daemon=True).start()

    def _serve(self, s: socket.socket, number: int) -> None:
        try:
            s.recv(4096)
            s.sendall(b"\x20\x03\x00\x00\x00")
            asked = s.recv(4096)
            s.sendall(b"\x90\x04" + asked[2:4] + b"\x00\x01")
            topic = f"e1/{FLEET}/pi-7/digits/up/update".encode()
            if number == 1 and self._raw:
                s.sendall(self._raw)
            for text, body in ((self._odd, b"odd"), (topic, b"whole"))[number > 1 or bool(self._raw) :]:
                said = len(text).to_bytes(2, "big") + text + b"\x00\x01" + b"\x00" + body
                s.sendall(b"\x32" + bytes([len(said)]) + said)
            while s.recv(4096):
                pass
        except OSError:
            return


def test_a_message_that_breaks_the_mqtt_library_does_not_leave_the_centre_deaf() -> None:
    odd = OddBroker(f"e1/{FLEET}/pi-7/".encode() + b"\xff\xfe/up/update")
    transport, ear = MqttTransport(parse_broker(f"mqtt://127.0.0.1:{odd.port}"), fleet=FLEET, client_id="centre"), Ear()
    transport.start(ear)
    until(lambda: b"whole" in ear.data(), 10)
    transport.stop()
    odd.close()


@pytest.mark.parametrize(
    ("raw", "said"),
    [(b"\x90\xff\xff\xff\x7f", "a packet of 268435455 bytes, of type 9"), (b"\x62\x02\x00\x07", "type 6"), (b"\x34\x05", "QoS 2"),
     (b"\x32\xff\xff\xff\xff", "a length that is none")],
)  # fmt: skip
def test_a_broker_that_breaks_the_protocol_is_left_and_named_and_found_again(
    raw: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    odd = OddBroker(b"", raw=raw)
    transport, ear = MqttTransport(parse_broker(f"mqtt://127.0.0.1:{odd.port}"), fleet=FLEET, client_id="centre"), Ear()
    transport.start(ear)
    until(lambda: b"whole" in ear.data())
    transport.stop()
    odd.close()
    assert f"{said}" in caplog.text and "ask who runs the broker" in caplog.text and "Traceback" not in caplog.text


def test_a_message_above_what_was_announced_is_let_go_on_the_same_connection() -> None:
    topic = f"e1/{FLEET}/pi-7/digits/up/update".encode()
    body = len(topic).to_bytes(2, "big") + topic + b"\x00\x07\x00" + bytes(150_000)
    odd = OddBroker(b"", raw=b"\x32" + bytes([len(body) & 127 | 128, len(body) >> 7 & 127 | 128, len(body) >> 14]) + body)
    transport, ear = MqttTransport(parse_broker(f"mqtt://127.0.0.1:{odd.port}"), fleet=FLEET, client_id="centre"), Ear()
    transport.start(ear)
    until(lambda: b"whole" in ear.data())
    assert [(one.data, one.unread) for one in ear.got] == [(b"", len(body)), (b"whole", 0)] and odd.connections == 1
    assert ear.got[0].topic == topic.decode()
    transport.stop()
    odd.close()


@pytest.mark.slow("waits for a broker that behaves badly")
def test_a_receiver_that_fails_once_is_called_again() -> None:
    odd = OddBroker(f"e1/{FLEET}/pi-7/digits/up/update".encode())
    transport = MqttTransport(parse_broker(f"mqtt://127.0.0.1:{odd.port}"), fleet=FLEET, client_id="centre")
    got: list[bytes] = []

    def receive(delivery: Delivery) -> None:
        if delivery.data == b"odd":
            raise ZeroDivisionError
        got.append(delivery.data)

    transport.start(receive)
    until(lambda: got == [b"whole"], 10)
    transport.stop()
    odd.close()


@pytest.mark.slow("waits for a broker that behaves badly")
def test_a_broker_that_does_not_let_the_centre_listen_is_not_called_connected(
    tmp_path: Path, base: Base, caplog: pytest.LogCaptureFixture
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                s, _ = listener.accept()
                while data := s.recv(4096):
                    if data[0] == 0x10:
                        s.sendall(b"\x20\x03\x00\x00\x00")
                    elif data[0] == 0x82:
                        s.sendall(b"\x90\x04" + data[2:4] + b"\x00\x87")
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    make_registry(tmp_path / "fleet.db", base).close()
    transport = MqttTransport(parse_broker(f"mqtt://127.0.0.1:{listener.getsockname()[1]}"), fleet=FLEET, client_id="centre")
    ingester = Ingester(tmp_path / "fleet.db", RECEIPT, transport, pace=Pace(connect=2.0), synchronous="OFF")
    with pytest.raises(BrokerRefused, match=r"does not let a client without a user name listen on e1/"):
        ingester.run(once=0.1)
    assert caplog.text.count("does not let a client without a user name listen") == 1, "said once, not at every attempt"
    listener.close()


@pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)
@pytest.mark.slow("waits for a link that another one takes", seconds=5)
def test_a_session_that_another_ingester_takes_over_is_named_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with broker.mosquitto(tmp_path) as b:
        first, second = (MqttTransport(parse_broker(b.url), fleet=FLEET, client_id="centre") for _ in range(2))
        first.start(Ear())
        until(lambda: first.connected, 60)
        second.start(Ear())
        until(lambda: "another client has the id centre" in caplog.text, 60)
        for one in (first, second):
            one.stop()


def test_after_a_refusal_a_broker_that_hangs_up_is_named_too(caplog: pytest.LogCaptureFixture) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        answers = [b"\x20\x03\x00\x87\x00", b""]
        try:
            while True:
                s, _ = listener.accept()
                with s:
                    s.recv(4096)
                    s.sendall(answers.pop(0) if answers else b"")
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    transport = MqttTransport(parse_broker(f"mqtt://127.0.0.1:{listener.getsockname()[1]}"), fleet=FLEET, client_id="centre")
    transport.start(Ear())
    until(lambda: "hangs up without an answer in MQTT" in caplog.text, 60)
    assert caplog.text.index("none is set") < caplog.text.index("hangs up"), "both reasons are said, in their order"
    assert transport.trouble is not None and not transport.trouble.refused
    transport.stop()
    listener.close()


@pytest.mark.slow("waits for the second look at the version of MQTT", seconds=3)
def test_a_broker_that_hangs_up_is_not_called_silent(caplog: pytest.LogCaptureFixture) -> None:
    count = [0]
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            while True:
                s, _ = listener.accept()
                with s:
                    s.recv(4096)
                    count[0] += 1
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
    transport = MqttTransport(parse_broker(url), fleet=FLEET, client_id="centre", connect_seconds=0.5)
    transport.start(Ear())
    until(lambda: count[0] >= 4, 60)
    transport.stop()
    listener.close()
    assert caplog.text.count("hangs up without an answer in MQTT") == 1 and "has not answered" not in caplog.text


@pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)
def test_an_empty_message_is_taken_off_the_broker_and_says_nothing(tmp_path: Path) -> None:
    with broker.mosquitto(tmp_path) as b:
        centre, ear = MqttTransport(parse_broker(b.url), fleet=FLEET, client_id="centre"), Ear()
        other = MqttTransport(parse_broker(b.url), fleet="other", client_id="doctor")
        for one, receive in ((centre, ear), (other, Ear())):
            one.start(receive)
        until(lambda: centre.connected and other.connected, 60)
        for data in (b"", b"whole"):
            other.publish(f"e1/{FLEET}/pi-7/digits/up/state", data)
        until(lambda: ear.data() == [b"whole"], 60)
        for one in (centre, other):
            one.stop()
