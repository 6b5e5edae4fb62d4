"""The service over a transport in memory: commit, then acknowledge, then answer; rebuild beside it; stop and start again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud.ingester import Ingester, Pace, Tally
from cloud.link import MqttTransport, parse_broker
from cloud.registry import Request, open_registry
from modelwire import records, signing
from modelwire.errors import BadArgument, BrokerUnreachable, RegistryDamaged, StateBusy
from modelwire.records import Command, Level, Receipt, Record
from tests.broker import free_port

from .centre import FLEET_KEY, Centre, make_registry
from .device import FLEET, Base, ScriptedDevice
from .memory import MemoryBroker, MemoryTransport

QUICK = Pace(batch_seconds=0.01, tick=0.05, resend=0.3, busy=0.2, connect=1.0)


class Running:
    """An ingester on a thread of its own, over a registry and a broker that outlive it."""

    def __init__(self, path: Path, broker: MemoryBroker, *, pace: Pace = QUICK, key: signing.PrivateKey = FLEET_KEY) -> None:
        self.ingester = Ingester(
            path, key, MemoryTransport(broker, fleet=FLEET, client_id="centre"), pace=pace, synchronous="OFF"
        )
        self.error: BaseException | None = None
        self.tally: Tally | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, once: float | None = None) -> Running:
        self._once = once
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            self.tally = self.ingester.run(self._once)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def wait(self, seconds: float = 200.0) -> Running:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "it did not end"
        return self

    def stop(self) -> Running:
        self.ingester.stop()
        return self.wait()


def until(true: Callable[[], bool], seconds: float = 150.0) -> None:
    """Wait until it is true. seconds: a safety limit for a machine that hangs."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def said(broker: MemoryBroker) -> list[Record]:
    """Return what went down, each proven to be the fleet's word on the topic of the device that it names."""
    out = []
    for topic, data in broker.down():
        signed = records.parse(data)
        signed.verify(FLEET_KEY.public, "the fleet")
        r = signed.record
        assert topic.startswith(f"e1/{r.fleet}/{r.device}/{r.model}/dn/")
        out.append(r)
    return out


def receipts(broker: MemoryBroker) -> list[tuple[int, Level]]:
    return [(r.version, r.level) for r in said(broker) if isinstance(r, Receipt)]


@pytest.fixture
def path(tmp_path: Path, base: Base) -> Iterator[Path]:
    make_registry(tmp_path / "fleet.db", base).close()
    yield tmp_path / "fleet.db"


@pytest.fixture
def device(path: Path, base: Base) -> ScriptedDevice:
    store = open_registry(path, synchronous="OFF")
    met = Centre(store).meet(ScriptedDevice(base))
    store.close()
    return met


def waiting(broker: MemoryBroker) -> int:
    return len(broker.sessions["centre"].waiting)


def catch_up(path: Path, broker: MemoryBroker) -> Running:
    """Start an ingester, and stop it when nothing waits for it and all that it stored is verified."""
    running = Running(path, broker).start()
    until(lambda: running.error is not None or (not waiting(broker) and running.ingester.tally.verified > 0))
    return running.stop()


def test_updates_are_stored_acknowledged_answered_and_verified_in_that_order(path, device):
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    sent = [device.train() for _ in range(40)]
    for s in sent:
        broker.publish(*device.update(s))
    until(lambda: receipts(broker).count((40, Level.VERIFIED)) == 1)
    assert waiting(broker) == 0
    running.stop()
    heard = receipts(broker)
    for n in range(1, 41):
        assert heard.index((n, Level.STORED)) < heard.index((n, Level.VERIFIED))
    assert running.error is None
    assert running.tally.document()["stored"] == running.tally.document()["verified"] == 40


def test_once_ends_when_nothing_more_comes_and_all_is_rebuilt(path, device):
    broker = MemoryBroker()
    Running(path, broker).start(once=0.2).wait()  # leaves a session behind
    for _ in range(25):
        broker.publish(*device.update(device.train()))
    started = time.monotonic()
    running = Running(path, broker).start(once=0.5).wait()
    assert running.error is None and 0.5 <= time.monotonic() - started < 10
    assert running.tally.verified == 25


def test_a_second_ingester_of_one_registry_is_refused(path):
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    assert isinstance(Running(path, broker).start().wait().error, StateBusy)
    running.stop()
    again = Running(path, broker).start()
    until(lambda: again.error is not None or again.ingester._transport.connected)
    assert again.stop().error is None


def test_a_key_of_another_fleet_is_refused(path):
    other = signing.PrivateKey(b"o" * 32)
    assert isinstance(Running(path, MemoryBroker(), key=other).start().wait().error, BadArgument)


def test_what_came_while_the_registry_was_busy_waits_for_it(path, device, caplog):
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    store = open_registry(path, synchronous="OFF")
    with store.transaction():
        broker.publish(*device.update(device.train()))
        until(lambda: "the batch waits" in caplog.text)
        assert receipts(broker) == [] and waiting(broker) == 1
    until(lambda: (1, Level.VERIFIED) in receipts(broker))
    running.stop()
    store.close()
    assert running.error is None


def test_a_stop_in_a_busy_moment_acknowledges_nothing_and_the_next_start_takes_it(path, device, caplog):
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    store = open_registry(path, synchronous="OFF")
    with store.transaction():
        broker.publish(*device.update(device.train()))
        until(lambda: "the batch waits" in caplog.text)
        running.stop()
    assert waiting(broker) == 1 and receipts(broker) == []
    store.close()
    assert catch_up(path, broker).tally.verified == 1


def test_the_registrys_own_trouble_ends_it_and_loses_nothing(path, device, monkeypatch):
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)

    def full(*_: object) -> bytes:
        raise RegistryDamaged(path=path, reason="the disk is full")

    monkeypatch.setattr("cloud.registry.blobs.DatabaseBlobs.put", full)
    broker.publish(*device.update(device.train()))
    running.wait()
    assert isinstance(running.error, RegistryDamaged) and waiting(broker) == 1
    monkeypatch.undo()
    assert catch_up(path, broker).tally.verified == 1


def test_trouble_in_the_rebuild_ends_it_too(path, device, monkeypatch):
    broker = MemoryBroker()
    monkeypatch.setattr("cloud.rebuilding.Rebuilder.run", lambda *_, **_k: 1 / 0)
    assert isinstance(Running(path, broker).start().wait().error, ZeroDivisionError)


def test_a_full_queue_holds_the_broker_back(path, device, caplog):
    broker = MemoryBroker()
    pace = Pace(queue=10, batch=5, batch_seconds=0.01, tick=0.05, busy=0.1)
    running = Running(path, broker, pace=pace).start()
    until(lambda: "centre" in broker.sessions)
    store = open_registry(path, synchronous="OFF")
    with store.transaction():
        for _ in range(100):
            broker.publish(*device.update(device.train()))
        until(lambda: "the batch waits" in caplog.text and running.ingester._queue.full())
        assert len(broker.sessions["centre"].sent) <= 5 + 10 + 1
    until(lambda: (100, Level.VERIFIED) in receipts(broker))
    running.stop()
    store.close()


def test_what_the_operator_adds_is_seen_while_it_runs(path, base):
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    stranger = ScriptedDevice(base, name="pi-9")
    broker.publish(*stranger.hello())
    until(lambda: [r.status for r in said(broker)] == ["quarantine"])
    store = open_registry(path, synchronous="OFF")
    store.devices.add("pi-9", stranger.key.public, 5)
    until(lambda: [r.status for r in said(broker)] == ["quarantine", "ok"])
    running.stop()
    store.close()


def wait_for_ticks(running: Running, count: int) -> None:
    """Wait until the ingester has looked at its requests so many times more."""
    tick, done = running.ingester._tick, []
    running.ingester._tick = lambda ingest: (tick(ingest), done.append(1))
    until(lambda: len(done) >= count)
    running.ingester._tick = tick


def test_a_request_goes_out_again_until_it_is_answered(path, device):
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    store = open_registry(path, synchronous="OFF")
    store.requests.add(Request(77, store.lineages.get("pi-7", "digits").id, "snapshot", 5, None, None, ""))

    def asked() -> list[int]:
        return [r.id for r in said(broker) if isinstance(r, Command)]

    until(lambda: len(asked()) >= 3)
    before = len(asked())
    broker.publish(*device.hello())  # whoever says hello is asked at once
    until(lambda: len(asked()) > before)
    broker.publish(*device.response(77))
    until(lambda: store.requests.open() == [])
    wait_for_ticks(running, 2)  # the first of them may have begun before
    count = len(asked())
    time.sleep(2 * QUICK.resend)
    wait_for_ticks(running, 2)
    assert len(asked()) == count and set(asked()) == {77}
    running.stop()
    store.close()


def test_once_without_a_broker_says_so(path):
    transport = MqttTransport(parse_broker(f"mqtt://127.0.0.1:{free_port()}"), fleet=FLEET, client_id="centre")
    ingester = Ingester(path, FLEET_KEY, transport, pace=QUICK, synchronous="OFF")
    with pytest.raises(BrokerUnreachable, match="no connection within 1 s"):
        ingester.run(once=0.2)
