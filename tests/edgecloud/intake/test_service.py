"""The service over a transport in memory: commit, then acknowledge, then answer; rebuild beside it; stop and start again."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgecloud
from edgecloud.audit import tampering
from edgecloud.intake.mqtt import MqttTransport, parse_broker
from edgecloud.intake.rebuilding import Rebuilder
from edgecloud.intake.service import Ingester, Pace, Tally
from edgecloud.registry import open_registry
from modelwire.errors import BadArgument, BrokerUnreachable, DiskUnwritable, RegistryDamaged, StateBusy
from modelwire.wire import records, signing
from modelwire.wire.records import Command, Level, Receipt, Record
from tests.broker import free_port
from tests.edgecloud.centre import Centre, admit, ask, make_registry
from tests.edgecloud.device import FLEET, Base, ScriptedDevice
from tests.edgecloud.hearing import until
from tests.edgecloud.intake.test_claims import enrol, give
from tests.edgecloud.memory import MemoryBroker, MemoryTransport
from tests.keys import COMMAND, FLEET_ID, RECEIPT

QUICK = Pace(batch_seconds=0.01, tick=0.05, resend=0.3, busy=0.2, connect=1.0)


class Running:
    """An ingester on a thread of its own, over a registry and a broker that outlive it."""

    def __init__(self, path: Path, broker: MemoryBroker, *, pace: Pace = QUICK, key: signing.PrivateKey = RECEIPT) -> None:
        self.ingester = Ingester(path, key, MemoryTransport(broker, fleet=FLEET, client_id="centre"), pace=pace, synchronous="OFF")
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


def said(broker: MemoryBroker) -> list[Record]:
    """Return what went down, each proven to be the fleet's word on the topic of the device that it names."""
    out = []
    for topic, data in broker.down():
        signed = records.parse(data)
        sealer = COMMAND if signed.role is signing.Role.COMMAND else RECEIPT  # which the ingester does not hold
        signed.verify(sealer.public, FLEET_ID, "the fleet", signed.role)
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


def test_updates_are_stored_acknowledged_answered_and_verified_in_that_order(path: Path, device: ScriptedDevice) -> None:
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


@pytest.mark.slow("waits for the threads of an ingester")
def test_once_ends_when_nothing_more_comes_and_all_is_rebuilt(path: Path, device: ScriptedDevice) -> None:
    broker = MemoryBroker()
    Running(path, broker).start(once=0.2).wait()  # leaves a session behind
    for _ in range(25):
        broker.publish(*device.update(device.train()))
    started = time.monotonic()
    running = Running(path, broker).start(once=0.5).wait()
    assert running.error is None and 0.5 <= time.monotonic() - started < 10
    assert running.tally.verified == 25


def test_a_second_ingester_of_one_registry_is_refused(path: Path) -> None:
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    assert isinstance(Running(path, broker).start().wait().error, StateBusy)
    running.stop()
    again = Running(path, broker).start()
    until(lambda: again.error is not None or again.ingester._transport.connected)
    assert again.stop().error is None


def test_a_key_of_another_fleet_is_refused(path: Path) -> None:
    other = signing.PrivateKey(b"o" * 32)
    assert isinstance(Running(path, MemoryBroker(), key=other).start().wait().error, BadArgument)


@pytest.mark.slow("waits for the threads of an ingester")
def test_what_came_while_the_registry_was_busy_waits_for_it(path: Path, device: ScriptedDevice, caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_stop_in_a_busy_moment_acknowledges_nothing_and_the_next_start_takes_it(
    path: Path, device: ScriptedDevice, caplog: pytest.LogCaptureFixture
) -> None:
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


def test_the_registrys_own_trouble_ends_it_and_loses_nothing(path: Path, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)

    def full(*_: object) -> bytes:
        raise RegistryDamaged(path=path, reason="the disk is full")

    monkeypatch.setattr("edgecloud.registry.blobs.DatabaseBlobs.put", full)
    broker.publish(*device.update(device.train()))
    running.wait()
    assert isinstance(running.error, RegistryDamaged) and waiting(broker) == 1
    monkeypatch.undo()
    assert catch_up(path, broker).tally.verified == 1


@pytest.mark.slow("runs an ingester three times", seconds=3)
def test_a_full_disk_ends_who_runs_once_and_neither_blames_a_message_nor_acknowledges_it(
    path: Path, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = MemoryBroker()
    Running(path, broker).start(once=0.2).wait()  # leaves a session behind

    def full(*_: object) -> bytes:
        raise DiskUnwritable(path=path, reason="No space left on device", disk="", fix="make room")

    monkeypatch.setattr("edgecloud.registry.blobs.DatabaseBlobs.put", full)
    broker.publish(*device.update(device.train()))
    running = Running(path, broker).start(once=0.5).wait()
    assert isinstance(running.error, DiskUnwritable) and waiting(broker) == 1
    monkeypatch.undo()
    assert catch_up(path, broker).tally.verified == 1


@pytest.mark.slow("waits two seconds for its next try", seconds=3)
def test_a_full_disk_in_the_rebuild_sets_no_lineage_aside(
    path: Path, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker, plain = MemoryBroker(), Rebuilder._build

    def full(*_: object) -> None:
        raise DiskUnwritable(path=path, reason="No space left on device", disk="", fix="make room")

    monkeypatch.setattr(Rebuilder, "_build", full)
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    broker.publish(*device.update(device.train()))
    until(lambda: "nothing more is acknowledged" in caplog.text)
    monkeypatch.setattr(Rebuilder, "_build", plain)
    until(lambda: (1, Level.VERIFIED) in receipts(broker))
    running.stop()
    assert "set aside" not in caplog.text


def test_trouble_in_the_rebuild_ends_it_too(path: Path, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = MemoryBroker()
    monkeypatch.setattr("edgecloud.intake.rebuilding.Rebuilder.run", lambda *_, **_k: 1 / 0)
    assert isinstance(Running(path, broker).start().wait().error, ZeroDivisionError)


@pytest.mark.slow("waits for the threads of an ingester")
def test_a_full_queue_holds_the_broker_back(path: Path, device: ScriptedDevice, caplog: pytest.LogCaptureFixture) -> None:
    broker = MemoryBroker()
    pace = Pace(queue=10, batch=5, batch_seconds=0.01, tick=0.05, busy=0.1)
    running = Running(path, broker, pace=pace).start()
    until(lambda: "centre" in broker.sessions)
    store = open_registry(path, synchronous="OFF")
    with store.transaction():
        for _ in range(100):
            broker.publish(*device.update(device.train()))
        until(lambda: "the batch waits" in caplog.text and running.ingester._inlet.full)
        assert len(broker.sessions["centre"].sent) <= 5 + 10 + 1
    until(lambda: (100, Level.VERIFIED) in receipts(broker))
    running.stop()
    store.close()


def test_what_the_operator_adds_is_seen_while_it_runs(path: Path, base: Base) -> None:
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    stranger = ScriptedDevice(base, name="pi-9")
    broker.publish(*stranger.hello())
    until(lambda: [r.status for r in said(broker)] == ["quarantine"])
    store = open_registry(path, synchronous="OFF")
    admit(store, "pi-9", stranger.key.public, 5)
    until(lambda: [r.status for r in said(broker)] == ["quarantine", "challenge"])
    stranger.hear(said(broker)[-1])
    broker.publish(*stranger.hello())
    until(lambda: [r.status for r in said(broker)] == ["quarantine", "challenge", "ok"])
    running.stop()
    store.close()


def wait_for_ticks(running: Running, count: int) -> None:
    """Wait until the ingester has looked at its requests so many times more."""
    tick, done = running.ingester._tick, []
    running.ingester._tick = lambda ingest: (tick(ingest), done.append(1))
    until(lambda: len(done) >= count)
    running.ingester._tick = tick


@pytest.mark.slow("waits for the threads of an ingester")
def test_a_request_goes_out_again_until_it_is_answered(path: Path, device: ScriptedDevice) -> None:
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    store = open_registry(path, synchronous="OFF")
    ask(store, store.lineages.get("pi-7", "digits"))

    def asked() -> list[int]:
        return [r.number for r in said(broker) if isinstance(r, Command)]

    until(lambda: len(asked()) >= 3)
    before = len(asked())
    broker.publish(*device.hello())  # whoever says hello is asked at once
    until(lambda: len(asked()) > before)
    broker.publish(*device.response(77))
    until(lambda: store.requests.open(5) == [])
    wait_for_ticks(running, 2)  # the first of them may have begun before
    count = len(asked())
    time.sleep(2 * QUICK.resend)
    wait_for_ticks(running, 2)
    assert len(asked()) == count and set(asked()) == {77}
    running.stop()
    store.close()


@pytest.mark.slow("waits for the threads of an ingester")
def test_once_without_a_broker_says_so(path: Path) -> None:
    transport = MqttTransport(parse_broker(f"mqtt://127.0.0.1:{free_port()}"), fleet=FLEET, client_id="centre")
    ingester = Ingester(path, RECEIPT, transport, pace=QUICK, synchronous="OFF")
    with pytest.raises(BrokerUnreachable, match="connection refused: nothing listens at port"):
        ingester.run(once=0.2)


@pytest.mark.slow("waits for the threads of an ingester")
def test_a_signal_in_the_middle_of_a_wake_up_does_not_lock_the_ingester_up(tmp_path: Path, base: Base) -> None:
    make_registry(tmp_path / "fleet.db", base).close()
    program = (
        "import os, signal, sys, threading\n"
        "from pathlib import Path\n"
        "from edgecloud.intake.service import Ingester\n"
        "from tests.keys import RECEIPT\n"
        "from tests.edgecloud.memory import MemoryBroker, MemoryTransport\n"
        "i = Ingester(Path(sys.argv[1]), RECEIPT, MemoryTransport(MemoryBroker(), fleet='orchard', client_id='c'))\n"
        "signal.signal(signal.SIGTERM, lambda *_: i.stop())\n"
        "class Held(type(i._work._cond)):\n"
        "    def notify_all(self):\n"
        "        if threading.current_thread() is threading.main_thread():\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        super().notify_all()\n"
        "i._work._cond.__class__ = Held\n"
        "tick = i._tick\n"
        "i._tick = lambda ingest: (tick(ingest), i._work.set())\n"
        "i.run()\n"
        "print('ended')\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "fleet.db")], cwd=root, capture_output=True, text=True, timeout=200
    )
    assert done.stdout == "ended\n", done.stderr


@pytest.mark.slow("waits for the threads of an ingester")
def test_messages_that_wait_are_bounded_in_bytes_and_the_large_ones_still_come_through(
    tmp_path: Path, base: Base, caplog: pytest.LogCaptureFixture
) -> None:
    make_registry(tmp_path / "fleet.db", base).close()
    broker = MemoryBroker()
    path = tmp_path / "fleet.db"
    running = Running(path, broker, pace=Pace(batch_seconds=0.01, busy=0.1, queue_bytes=1 << 20)).start()
    until(lambda: "centre" in broker.sessions)
    store = open_registry(path, synchronous="OFF")
    with store.transaction():
        for n in range(50):
            broker.publish(f"e1/{FLEET}/pi-{n}/digits/up/update", bytes(300_000))
        until(lambda: "the batch waits" in caplog.text and running.ingester._inlet.bytes > (1 << 20) - 300_000)
        assert len(broker.sessions["centre"].sent) <= 6
    broker.publish(f"e1/{FLEET}/pi-0/digits/up/update", bytes(2_000_000))
    until(lambda: not broker.sessions["centre"].waiting)
    running.stop()
    store.close()


@pytest.mark.slow("sends three hundred updates")
def test_an_ingester_whose_disk_takes_no_more_waits_and_goes_on_where_it_was(
    tmp_path: Path, base: Base, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fleet.db"
    store = make_registry(path, base)
    device = Centre(store).meet(ScriptedDevice(base))
    store.close()
    broker = MemoryBroker()
    running = Running(path, broker)
    made = [device.train() for _ in range(300)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # However few commits they come in: the log of the database alone, which three hundred updates make longer, has no room for them.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, before[1]))
    try:
        running.start()
        until(lambda: "centre" in broker.sessions)
        for sent in made:
            broker.publish(*device.update(sent))
        until(lambda: "nothing more is acknowledged until there is room" in caplog.text)
        assert waiting(broker) > 0 and (300, Level.STORED) not in receipts(broker)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    until(lambda: (300, Level.VERIFIED) in receipts(broker))
    running.stop()
    assert caplog.text.count("nothing more is acknowledged") == 1, "it is said once"
    with edgecloud.open(path) as fleet:
        assert [v.number for v in fleet.device("pi-7").versions()] == list(range(1, 301))


def test_a_hundred_boards_that_come_at_once_by_a_claim_are_let_in_and_not_one_more(path: Path) -> None:
    store = open_registry(path, synchronous="OFF")
    give(store, 100, serials=tuple(f"s{n:03}" for n in range(103)))
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    boards = [(f"pi-{n}", f"s{n:03}") for n in range(103)]
    for name, serial in [*boards, *boards[:20], *((f"late-{serial}", serial) for _, serial in boards[:20])]:
        broker.publish(*enrol(name, serial=serial))
    until(lambda: running.error is not None or sum(running.ingester.tally.results.values()) == 143)
    assert running.stop().error is None
    assert dict(running.ingester.tally.results) == {"admitted": 100, "noted": 20, "dropped": 23}
    assert len(store.devices.names()) == 100 and tampering.look(store) == []
    store.close()
