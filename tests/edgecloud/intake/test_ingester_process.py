"""The ingester as a process over a real mosquitto that keeps nothing on disk: killed at any moment, nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

import edgecloud
from edgecloud.registry import open_registry
from edgecloud.versions import materialise
from modelwire.errors import LineageError
from modelwire.wire import records
from modelwire.wire.keys import KeyKind, write_key
from modelwire.wire.signing import Role
from tests import broker as brokers
from tests.edgecloud.centre import add_base, admit, make_registry
from tests.edgecloud.device import FLEET, Base, ScriptedDevice, Sent
from tests.keys import FLEET_ID, RECEIPT

pytestmark = [
    pytest.mark.slow("starts and kills an ingester and a broker", seconds=10),
    pytest.mark.skipif(brokers.program() is None, reason=brokers.MISSING),
]
ROOT = Path(edgecloud.__file__).parents[2]
WINDOW, RESEND = 8, 0.4  # un-receipted updates in flight; seconds
LONG = 300.0  # seconds after which a machine hangs, however busy it is


class Process:
    """`edgecloud ingest` as a process of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.log = folder / "ingest.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        command = [sys.executable, "-m", "edgecloud", "ingest", "--broker", self.url, "--json", *more]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def end(self, number: signal.Signals) -> tuple[int, bytes]:
        process, self._process = self._process, None
        if process is None:
            return 0, b""
        process.send_signal(number)
        out, _ = process.communicate(timeout=LONG)
        return process.returncode, out

    def wait(self) -> tuple[int, bytes]:
        assert self._process is not None
        out, _ = self._process.communicate(timeout=LONG)
        code = self._process.returncode
        self._process = None
        return code, out


class Boards:
    """Devices on one connection, each with an outbox that resends until a receipt comes; they live through everything."""

    def __init__(self, port: int, devices: list[ScriptedDevice]) -> None:
        self.devices = {d.name: d for d in devices}
        self.lock = threading.Lock()
        self._offered: dict[tuple[str, int], float] = {}
        self._stored: dict[str, int] = {d.name: 0 for d in devices}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="boards")
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def pump(self) -> list[mqtt.MQTTMessageInfo]:
        """Say hello where no epoch is granted, and send again what got no receipt for a while; return what was sent."""
        now, sent = time.monotonic(), []
        with self.lock:
            for device in self.devices.values():
                if not device.epoch:
                    sent.append(self._client.publish(*device.hello(), qos=1))
                    continue
                for version in sorted(device.waiting)[:WINDOW]:
                    if now - self._offered.get((device.name, version), -RESEND) >= RESEND:
                        self._offered[device.name, version] = now
                        sent.append(self._client.publish(*device.update(device.waiting[version]), qos=1))
        return sent

    def train(self, name: str) -> Sent:
        with self.lock:
            return self.devices[name].train()

    def waiting(self) -> int:
        with self.lock:
            return sum(len(d.waiting) for d in self.devices.values())

    def until(self, true: object) -> None:
        assert callable(true)
        end = time.monotonic() + LONG
        while not true():
            assert time.monotonic() < end, f"{self.waiting()} updates still wait"
            self.pump()
            time.sleep(0.05)

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(f"e1/{FLEET}/+/+/dn/#", qos=1)

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        signed = records.parse(message.payload)
        signed.verify(RECEIPT.public, FLEET_ID, "the fleet", Role.RECEIPT)
        with self.lock:
            self.devices[signed.record.device].hear(signed.record)


@contextmanager
def world(folder: Path, base: Base, names: list[str]) -> Iterator[tuple[brokers.Mosquitto, Process, Boards]]:
    make_registry(folder / "fleet.db", None).close()
    (folder / "receipt.key").write_text(write_key(KeyKind.RECEIPT_PRIVATE, bytes([0xF2]) * 32))
    (folder / "receipt.key").chmod(0o600)
    devices = [ScriptedDevice(base, name=name, seed=n) for n, name in enumerate(names)]
    store = open_registry(folder / "fleet.db")
    add_base(store, base)
    for device in devices:
        admit(store, device.name, device.key.public, 1)
    store.close()
    with brokers.mosquitto(folder) as broker:
        ingester, boards = Process(folder, broker.url), Boards(broker.port, devices)
        try:
            yield broker, ingester, boards
        finally:
            ingester.end(signal.SIGKILL)
            boards.close()


def prove(folder: Path, boards: Boards, updates: int) -> None:
    """Every update was stored exactly once, is verified, and gives the bytes that its device served."""
    store = open_registry(folder / "fleet.db", readonly=True)
    bases = materialise.LoadedBases(store)
    for device in boards.devices.values():
        lineage = store.lineages.get(device.name, device.model)
        assert lineage is not None
        rows = store.versions.of(lineage.id)
        assert [v.version for v in rows] == list(range(1, updates + 1))
        assert [v.commit for v in rows] == [device.made[v].commit for v in range(1, updates + 1)]
        assert {v.status.value for v in rows} == {"verified"}
        for checked in materialise.check_lineage(store, lineage, bases):
            assert checked.error is None
            assert checked.version is not None and checked.version.root == device.made[checked.version.version].root
        head = store.lineages.head(lineage.id, device.epoch)
        assert head is not None and head.commit == device.head
    assert store.refusals.count() == 0
    store.close()


def test_kill_9_of_ingester_and_broker_at_random_moments_loses_nothing_and_doubles_nothing(tmp_path: Path, base: Base) -> None:
    chance = random.Random(11)
    names, updates = ["pi-1", "pi-2", "pi-3"], 60
    with world(tmp_path, base, names) as (broker, ingester, boards):
        ingester.start()
        boards.until(lambda: all(d.epoch for d in boards.devices.values()))
        kills = {"ingester": 0, "broker": 0}
        made = 0
        while made < updates:
            for _ in range(6):
                for name in names:
                    boards.train(name)
                made += 1
            end = time.monotonic() + chance.uniform(0.05, 0.6)
            while time.monotonic() < end:
                boards.pump()
                time.sleep(chance.uniform(0.0, 0.03))
            if chance.random() < 0.6:
                ingester.end(signal.SIGKILL)
                kills["ingester"] += 1
                ingester.start()
            else:
                broker.kill()
                kills["broker"] += 1
                broker.start()
        boards.until(lambda: not boards.waiting())
        assert min(kills.values()) >= 2, kills
        code, out = ingester.end(signal.SIGTERM)
        assert code == 0, ingester.log.read_text()[-2000:]
        assert json.loads(out)["refused"] == 0
        prove(tmp_path, boards, updates)


def test_a_sigterm_ends_it_in_peace_and_once_takes_what_has_gathered(tmp_path: Path, base: Base) -> None:
    with world(tmp_path, base, ["pi-1"]) as (_broker, ingester, boards):
        ingester.start()
        boards.until(lambda: boards.devices["pi-1"].epoch)
        started = time.monotonic()
        assert ingester.end(signal.SIGTERM)[0] == 0
        assert time.monotonic() - started < 10
        sent = [boards.train("pi-1") for _ in range(WINDOW)]
        for said in boards.pump():  # into the session that the ingester left at the broker
            said.wait_for_publish(LONG)
        ingester.start("--once", "--idle", "1")
        code, out = ingester.wait()
        assert code == 0 and json.loads(out)["stored"] == json.loads(out)["verified"] == len(sent)
        prove(tmp_path, boards, len(sent))


def test_the_registry_is_read_copied_and_asked_while_the_ingester_writes(tmp_path: Path, base: Base) -> None:
    with world(tmp_path, base, ["pi-1"]) as (_broker, ingester, boards):
        ingester.start()
        boards.until(lambda: boards.devices["pi-1"].epoch)

        def command(*arguments: str) -> dict[str, object]:
            said = subprocess.run(
                [sys.executable, "-m", "edgecloud", *arguments, "--json"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True, text=True, timeout=LONG,
            )  # fmt: skip
            assert said.returncode == 0, said.stderr
            document: dict[str, object] = json.loads(said.stdout)
            return document

        stop = threading.Event()

        def keep_busy() -> None:
            while not stop.is_set():
                if boards.waiting() < 50:
                    boards.train("pi-1")
                boards.pump()
                time.sleep(0.005)

        thread = threading.Thread(target=keep_busy)
        thread.start()
        try:
            counts = []
            for n in range(3):
                reached = boards.devices["pi-1"].verified
                end = time.monotonic() + LONG
                while boards.devices["pi-1"].verified <= reached:  # so each copy holds more than the one before
                    assert time.monotonic() < end
                    time.sleep(0.05)
                command("backup", f"copy-{n}.db")
                counts.append(command("verify", "--db", f"copy-{n}.db"))
            assert [c["wrong"] for c in counts] == [[]] * 3
            # A copy may hold the update that is being judged just then.
            assert [c["checked"] for c in counts] == [int(str(c["exact"])) + int(str(c["waiting"])) for c in counts]
            assert all(int(str(c["exact"])) > 0 for c in counts)
            assert command("verify")["wrong"] == []
        finally:
            stop.set()
            thread.join()
        boards.until(lambda: not boards.waiting())
        numbers = [int(str(c["checked"])) for c in counts]
        assert 0 < numbers[0] < numbers[2] <= boards.devices["pi-1"].version
        with pytest.raises(LineageError), edgecloud.open(tmp_path / "copy-0.db") as fleet:
            fleet.device("pi-1").version(boards.devices["pi-1"].version)
