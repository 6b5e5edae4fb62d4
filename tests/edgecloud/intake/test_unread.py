"""A message that is too large to be read: acknowledged, listed, said once a minute, and no hindrance to the next one."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from edgecloud.intake.decision import Result
from edgecloud.intake.mqtt import MqttTransport, parse_broker
from edgecloud.intake.paho_client import PahoClient
from edgecloud.intake.routing import Ingest
from edgecloud.registry import open_registry
from edgecommon.mqtt_packets import INBOUND
from modelwire.wire.topics import up
from tests import broker as brokers
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import FLEET, ScriptedDevice
from tests.edgecloud.hearing import Ear, until
from tests.mqtt_bytes import PUBLISH, packet

TOPIC = f"e1/{FLEET}/pi-7/digits/up/update"
needs_mosquitto = pytest.mark.skipif(brokers.program() is None, reason=brokers.MISSING)


def test_it_is_listed_once_counted_and_said_once_a_minute(centre: Centre) -> None:
    said = [centre.ingest.take(TOPIC, b"", now, 200_000_000) for now in (1000, 1001, 1059, 1060)]
    assert {one.result for one in said} == {Result.DROPPED} and [one.news for one in said] == [True, False, False, True]
    assert said[0].line.startswith("dropped pi-7/digits: TooLarge: a message that was let go unread is 200000000 bytes")
    (row,) = centre.store.refusals.last(10)
    assert (row.error, row.device, row.model, row.size, row.repeats) == ("TooLarge", "pi-7", "digits", 200_000_000, 3)
    assert not said[0].replies and centre.ingest.take("no/topic", b"", 1000, 10**8).result is Result.DROPPED


def test_it_changes_nothing_about_what_its_board_says_next(centre: Centre, device: ScriptedDevice) -> None:
    centre.meet(device)
    centre.ingest.take(device.topic("update"), b"", centre.now, 10**8)
    (outcome,) = centre.deliver(device, device.train())
    assert outcome.result is Result.STORED


def test_doctor_says_how_many_there_were_and_in_whose_name(desk: Desk) -> None:
    desk.ok("init")
    assert of_messages(desk)["found"] == "none was too large to be read"
    store = open_registry(desk.folder / "fleet.db")
    ingest = Ingest(store, secret=bytes(32))
    with store.transaction():
        for device in ("pi-7", "pi-7", "pi-8"):
            ingest.take(up(store.fleet, device, "digits", "hello"), b"", 1_800_000_000, 10**8)
    store.close()
    found = of_messages(desk)
    assert found["ok"] is True and str(found["found"]).startswith(f"3 above {INBOUND} bytes were let go unread, the last ")
    assert str(found["found"]).endswith("in the name of pi-7, pi-8") and "max_packet_size" in str(found["fix"])


def of_messages(desk: Desk) -> dict[str, object]:
    _, out, _ = desk.run("doctor", "--broker", f"mqtt://127.0.0.1:{brokers.free_port()}", "--json")
    (found,) = [check for check in json.loads(out)["checks"] if check["key"] == "messages"]
    assert isinstance(found, dict)
    return found


@contextlib.contextmanager
def listening(url: str, five: bool) -> Iterator[tuple[MqttTransport, Ear]]:
    transport, ear = MqttTransport(parse_broker(url), fleet=FLEET, client_id="centre"), Ear()
    transport._protocol = mqtt.MQTTv5 if five else mqtt.MQTTv311
    transport.start(ear)
    try:
        yield transport, ear
    finally:
        transport.stop()


def say(port: int, topic: str, size: int) -> None:
    """Publish a message of zeros with QoS 1, as any client may."""
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04pi-7")
        assert link.recv(4) == b"\x20\x02\x00\x00"
        head = struct.pack(">H", len(topic)) + topic.encode() + b"\0\1"
        link.sendall(packet(PUBLISH, head + bytes(size)))
        assert link.recv(4) == b"\x40\x02\x00\x01"


@needs_mosquitto
@pytest.mark.slow("waits for a broker")
@pytest.mark.parametrize("five", [False, True])
def test_it_comes_once_over_a_broker_of_any_size_and_what_comes_behind_it_is_heard(tmp_path: Path, five: bool) -> None:
    with brokers.mosquitto(tmp_path, largest=0) as broker:
        with listening(broker.url, five) as (transport, ear):
            until(lambda: transport.connected)
            say(broker.port, TOPIC, 30_000_000)
            say(broker.port, TOPIC, 10)
            until(lambda: b"\0" * 10 in ear.data())
            large = [one for one in ear.got if one.unread]
            assert [one.unread for one in large] == ([] if five else [30_000_000 + 4 + len(TOPIC)]), "in MQTT 5 the broker keeps it"
            for one in ear.got:
                transport.acknowledge(one)
            assert transport.drain(100)
            say(broker.port, TOPIC, 11)  # behind the acknowledgements
            until(lambda: b"\0" * 11 in ear.data())
        with listening(broker.url, five) as (transport, ear):
            until(lambda: b"\0" * 11 in ear.data())
            assert not [one for one in ear.got if one.unread], "it was acknowledged"


@needs_mosquitto
@pytest.mark.slow("waits for a broker")
def test_a_library_that_reads_past_the_bound_is_refused_in_3_1_1_and_warned_of_in_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(PahoClient, "_sock_recv", mqtt.Client._sock_recv)
    with brokers.mosquitto(tmp_path) as broker:
        with listening(broker.url, False) as (transport, _ear):
            until(lambda: transport.trouble is not None)
            trouble = transport.trouble
            assert trouble is not None and trouble.refused and not transport.connected
            assert trouble.reason.startswith("paho-mqtt 2") and "pip install" in trouble.fix
        with listening(broker.url, True) as (transport, _ear):
            until(lambda: transport.connected)
            assert "in MQTT 5 the broker itself keeps to the bound" in caplog.text
