"""What every Transport passes: at least once, acknowledged by hand, sessions that outlive their process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgecloud.intake.mqtt import MqttTransport, parse_broker
from edgecloud.intake.transport import IntakeTransport
from tests import broker as brokers
from tests.edgecloud.hearing import Ear, until
from tests.edgecloud.memory import MemoryBroker, MemoryTransport

FLEET = "orchard"


@dataclass
class Wire:
    """A way to make transports, and a device's end of it."""

    make: Callable[[], IntakeTransport]
    send: Callable[[str, bytes], None]
    heard: Callable[[], list[tuple[str, bytes]]]  # what came down, in order


@pytest.fixture(params=["memory", "mqtt"])
def wire(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wire]:
    if request.param == "memory":
        memory = MemoryBroker()
        yield Wire(lambda: MemoryTransport(memory, fleet=FLEET, client_id="centre"), memory.publish, memory.down)
        return
    if brokers.program() is None:
        pytest.skip(brokers.MISSING)
    with brokers.mosquitto(tmp_path) as broker:
        heard: list[tuple[str, bytes]] = []
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="device")
        ready = threading.Event()
        client.on_connect = lambda c, *_: c.subscribe(f"e1/{FLEET}/+/+/dn/#", qos=1)
        client.on_subscribe = lambda *_: ready.set()
        client.on_message = lambda _c, _d, m: heard.append((m.topic, bytes(m.payload)))
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        assert ready.wait(100)

        def send(topic: str, data: bytes) -> None:
            client.publish(topic, data, qos=1).wait_for_publish(100)

        yield Wire(lambda: MqttTransport(parse_broker(broker.url), fleet=FLEET, client_id="centre"), send, lambda: list(heard))
        client.disconnect()
        client.loop_stop()


def listening(wire: Wire) -> tuple[IntakeTransport, Ear]:
    transport, ear = wire.make(), Ear()
    transport.start(ear)
    until(lambda: transport.connected)
    probe = f"e1/{FLEET}/probe/m/up/state"

    def heard() -> bool:
        wire.send(probe, b"probe")
        time.sleep(0.05)
        return bool(ear.got)

    until(heard)  # connected comes before the subscription is granted
    wire.send(probe, b"the last")
    until(lambda: ear.data()[-1] == b"the last")
    for delivery in ear.got:
        transport.acknowledge(delivery)
    ear.got.clear()
    return transport, ear


def test_what_a_device_sends_comes_with_its_topic_and_bytes(wire: Wire) -> None:
    transport, ear = listening(wire)
    large = bytes(range(256)) * 384  # 96 KiB, the largest part
    wire.send(f"e1/{FLEET}/pi-7/digits/up/update", b"\x00one\xff")
    wire.send(f"e1/{FLEET}/pi-8/digits/up/part", large)
    until(lambda: len(ear.got) == 2)
    assert [(d.topic, d.data) for d in ear.got] == [
        (f"e1/{FLEET}/pi-7/digits/up/update", b"\x00one\xff"),
        (f"e1/{FLEET}/pi-8/digits/up/part", large),
    ]
    transport.stop()


def test_other_fleets_and_what_goes_down_are_not_delivered(wire: Wire) -> None:
    transport, ear = listening(wire)
    wire.send("e1/other/pi-7/digits/up/update", b"not ours")
    wire.send(f"e1/{FLEET}/pi-7/digits/dn/receipt", b"down")
    wire.send(f"e1/{FLEET}/pi-7/digits/up/update", b"ours")
    wire.send(f"e1/{FLEET}/pi-8/digits/up/update", b"the last")
    until(lambda: b"the last" in ear.data())
    assert ear.data() == [b"ours", b"the last"]
    transport.stop()


def test_what_was_not_acknowledged_comes_again_and_what_was_never_does(wire: Wire) -> None:
    transport, ear = listening(wire)
    for n in range(5):
        wire.send(f"e1/{FLEET}/pi-7/digits/up/update", bytes([n]))
    until(lambda: len(ear.got) == 5)
    for delivery in ear.got[:3]:
        transport.acknowledge(delivery)
    transport.drain(5.0)
    transport.stop()
    wire.send(f"e1/{FLEET}/pi-7/digits/up/update", b"the last")
    again, second = wire.make(), Ear()
    again.start(second)
    until(lambda: b"the last" in second.data())
    assert second.data() == [bytes([3]), bytes([4]), b"the last"]
    again.stop()


def test_messages_wait_while_nobody_listens(wire: Wire) -> None:
    transport, _ = listening(wire)
    transport.stop()
    wire.send(f"e1/{FLEET}/pi-7/digits/up/hello", b"while you were out")
    again, ear = wire.make(), Ear()
    again.start(ear)
    until(lambda: bool(ear.got))
    assert ear.data() == [b"while you were out"]
    again.stop()


def test_an_acknowledgement_of_an_older_connection_means_nothing(wire: Wire) -> None:
    transport, ear = listening(wire)
    wire.send(f"e1/{FLEET}/pi-7/digits/up/update", b"x")
    until(lambda: len(ear.got) == 1)
    old = ear.got[0]
    transport.stop()
    again, second = wire.make(), Ear()
    again.start(second)
    until(lambda: bool(second.got))
    transport.acknowledge(old)  # its client is gone; nothing may happen
    again.acknowledge(second.got[0])
    again.stop()
    wire.send(f"e1/{FLEET}/pi-7/digits/up/update", b"the last")
    third, nothing = wire.make(), Ear()
    third.start(nothing)
    until(lambda: bool(nothing.got))
    assert nothing.data() == [b"the last"]
    third.stop()


def test_answers_reach_the_device_and_drain_says_so(wire: Wire) -> None:
    transport, _ = listening(wire)
    for n in range(50):
        transport.publish(f"e1/{FLEET}/pi-7/digits/dn/receipt", bytes([n]))
    assert transport.drain(10.0)
    until(lambda: len(wire.heard()) >= 50)
    assert [d for _, d in wire.heard()] == [bytes([n]) for n in range(50)]
    transport.stop()
