"""A real board, ingester and broker, and a stranger on the broker who says again all that he heard, damages it and adds his own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgecommon.broker import parse_url
from tests import broker
from tests.system.fleet import Fleet
from tests.system.test_end_to_end import QUICK, RUN, exact, files, fill

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]
ECHOES, OWN = 2_000, 500  # messages of his, so that he does not answer himself for ever
LEAVES = ("cmd", "receipt", "part", "desired")


class Stranger:
    """Who hears everything, and says it again at once: as it was, with a byte changed, and on a topic where it does not belong."""

    def __init__(self, url: str) -> None:
        self.heard: set[bytes] = set()
        self.said, self._rng = 0, random.Random(7)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda c, *_: c.subscribe("e1/demo/pi-7/#", 1)
        self._client.on_message = lambda _c, _d, message: self._echo(message.topic, bytes(message.payload))
        at = parse_url(url)
        assert at is not None
        self._client.connect(at.host, at.port)
        self._client.loop_start()

    def flood(self) -> None:
        """Say a good deal of what was never true."""
        for n in range(OWN):
            self._client.publish(f"e1/demo/pi-7/digits/dn/{LEAVES[n % 4]}", self._rng.randbytes(1 + n * 37), qos=1, retain=n % 50 == 0)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _echo(self, topic: str, data: bytes) -> None:
        if not data or data in self.heard or self.said >= ECHOES:
            return
        place = self._rng.randrange(len(data))
        damaged = data[:place] + bytes([data[place] ^ 1 << self._rng.randrange(8)]) + data[place + 1 :]
        self.heard |= {data, damaged}
        for where in (topic, f"e1/demo/pi-7/digits/dn/{self._rng.choice(LEAVES)}"):
            for said in (data, damaged, data):
                self.said += 1
                self._client.publish(where, said, qos=1)


@contextmanager
def stranger(url: str) -> Iterator[Stranger]:
    made = Stranger(url)
    try:
        yield made
    finally:
        made.close()


def test_a_stranger_who_says_everything_again_damages_it_and_floods_stops_no_round(tmp_path: Path) -> None:
    with broker.mosquitto(tmp_path) as hub:
        fleet = Fleet(tmp_path / "fleet", hub.url)
        fleet.ingester.start()
        try:
            fleet.add_base("digits")
            fleet.add_device("pi-7", files("digits"), QUICK)
            fill(fleet, "pi-7", "digits")
            with stranger(hub.url) as he:
                he.flood()
                document = fleet.agent("pi-7", *RUN, "--rounds", "3")
                assert he.said > 50 and he.heard
            (model,) = document["models"]
            assert (model["rounds"], model["verified"], model["waiting"], model["lost"]) == (3, 3, 0, [])
            assert exact(fleet)["checked"] == 3
            status = fleet.agent("pi-7", "status")["models"][0]
            assert status["epoch"] == 1 and status["quiet"] is None and status["taking"] is None and status["blocked"] == ""
            assert b"Traceback" not in fleet.ingester.log.read_bytes()
        finally:
            fleet.close()
