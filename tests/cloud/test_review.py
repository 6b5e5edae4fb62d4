"""What a review of the centre proved to go wrong once, each as a sentence that must hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import cloud
from cloud import cli
from cloud.ingester import Ingester, Pace
from cloud.link import MqttTransport, parse_broker
from cloud.outcome import Bounds, Result
from cloud.rebuilding import Rebuilder
from cloud.registry import Waiting, open_registry
from cloud.registry.backup import backup, restore
from cloud.registry.blobs import FileBlobs
from cloud.registry.lock import lock_registry
from cloud.transport import Delivery
from modelwire import parts
from modelwire.errors import BadArgument, BrokerUnreachable, RegistryDamaged, StateBusy
from modelwire.records import Level, Receipt, Wanted, Welcome, encode

from .centre import FLEET_KEY, Centre, make_registry
from .conformance.test_transport import Ear, until
from .device import FLEET, ScriptedDevice, key_of
from .memory import MemoryBroker
from .test_ingester import Running, receipts

PART = 200


def silent(_done: int, _total: int) -> None:
    pass


def wanted(centre: Centre, count: int) -> list[int]:
    (said,) = [r for r in centre.said() if isinstance(r, Wanted)]
    return parts.missing(said.have, count)


# Transfers in parts.


def test_an_orphan_in_parts_that_found_no_room_is_taken_when_its_parent_has_come(store, base):
    centre = Centre(store, Bounds(parked_bytes=100))
    device = centre.meet(ScriptedDevice(base))
    first, second = device.train(), device.snapshot()
    _, manifest, pieces = device.transfer(second, PART)
    centre.take(manifest)
    assert [centre.take(p).result for p in pieces][-1] is Result.DROPPED
    centre.deliver(device, first)
    centre.said()
    again = [centre.take(manifest)] + [centre.take(pieces[i]) for i in wanted_or_nothing(centre, len(pieces))]
    assert Result.STORED in [o.result for o in again]
    assert centre.head(device) == second.version and store.transfers.all() == []


def wanted_or_nothing(centre: Centre, count: int) -> list[int]:
    said = [r for r in centre.said() if isinstance(r, Wanted)]
    return parts.missing(said[-1].have, count) if said else []


def test_an_update_in_parts_before_any_hello_is_taken_after_it(centre, base):
    device = ScriptedDevice(base)
    centre.store.devices.add(device.name, device.key.public, 1)
    device.epoch = 1
    sent = device.train()
    _, manifest, pieces = device.transfer(sent, PART)
    for message in (manifest, *pieces):
        centre.take(message)
    centre.take(device.hello())
    centre.said()
    again = [centre.take(manifest)] + [centre.take(pieces[i]) for i in wanted_or_nothing(centre, len(pieces))]
    assert Result.STORED in [o.result for o in again]


@pytest.mark.parametrize("other", [PART // 2, PART + 50])
def test_a_device_that_cuts_an_update_anew_is_asked_for_the_new_parts(centre, device, other):
    sent = device.train()
    _, manifest, pieces = device.transfer(sent, PART)
    centre.take(manifest)
    centre.take(pieces[-1])
    centre.said()
    said, manifest, pieces = device.transfer(sent, other)
    centre.take(manifest)
    assert wanted(centre, parts.count(said)) == list(range(len(pieces)))
    assert [centre.take(p).result for p in pieces][-1] is Result.STORED


def test_a_device_can_not_hold_up_the_transfer_of_another(centre, device, base):
    thief = centre.meet(ScriptedDevice(base, name="pi-8"))
    said, manifest, pieces = device.transfer(device.train(), PART)
    stolen = replace(said, device="pi-8", hashes=bytes(len(said.hashes)))
    centre.take((thief.topic("part"), encode(stolen, thief.key)))
    centre.take(manifest)
    centre.take((thief.topic("part"), encode(stolen, thief.key)))
    assert [centre.take(p).result for p in pieces][-1] is Result.STORED


def test_a_transfer_that_rests_makes_room_when_all_places_are_taken(store, base):
    centre = Centre(store, Bounds(transfers_total=2))
    devices = [centre.meet(ScriptedDevice(base, name=f"pi-{n}")) for n in range(4)]
    opened = [d.transfer(d.train(), PART) for d in devices]
    for _, manifest, _ in opened[:2]:
        centre.take(manifest)
    centre.now += 3600
    centre.take(opened[1][2][0])  # this one goes on, the first one has left
    assert centre.take(opened[2][1]).result is Result.NOTED
    assert centre.take(opened[3][1]).result is Result.DROPPED
    assert [t.device for t in store.transfers.all()] == ["pi-1", "pi-2"]


def test_what_follows_an_update_in_parts_waits_as_long_as_parts_come(centre, device):
    first, second = device.snapshot(), device.train()
    _, manifest, pieces = device.transfer(first, PART // 2)
    centre.take(manifest)
    centre.deliver(device, second)
    for piece in pieces:  # a slow link: each part takes most of a minute
        centre.now += 50
        (outcome,) = centre.deliver(device, second)
        assert outcome.result is Result.PARKED
        centre.take(piece)
    assert centre.receipts()[-2:] == [(1, Level.STORED), (2, Level.STORED)]


# Lineages.


def test_an_orphan_on_another_devices_commit_is_refused_to_the_device_that_sent_it(centre, device, base):
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    device.train()  # lost on the way
    refused = device.train()
    centre.deliver(device, refused)
    other.head = refused.commit
    stranger = other.train()
    centre.deliver(other, stranger)
    centre.said()
    centre.now += 1000
    centre.deliver(device, refused)
    said = {(r.device, r.commit) for r in centre.said() if isinstance(r, Receipt)}
    assert said == {("pi-7", refused.commit), ("pi-8", stranger.commit)}


# Quarantine.


def test_a_flood_of_keys_under_one_name_does_not_keep_the_true_board_from_being_seen(store, base):
    centre = Centre(store, Bounds(held_count=4))
    for n in range(8):
        liar = ScriptedDevice(base, name="pi-9")
        liar.key = key_of(f"mallory {n}")
        centre.take(liar.hello())
    board = ScriptedDevice(base, name="pi-9")
    centre.said()
    centre.take(board.hello())
    assert [r.status for r in centre.said() if isinstance(r, Welcome)] == ["quarantine"]
    assert board.key.public in [w.mark for w in store.inbox.held("pi-9")]
    assert len(store.inbox.held("pi-9")) == 4


def test_looking_for_what_waited_too_long_does_not_read_what_waits(store):
    for n in range(100):
        store.inbox.hold(Waiting(0, f"s{n}", "m", "update", "unknown-key", bytes([n]), b"", bytes(1 << 20), 1000, 0))
    path = store.database.path
    store.close()
    with closing(open_registry(path, synchronous="OFF")) as fresh:
        read = io_bytes()
        fresh.inbox.expire(0)
        fresh.inbox.released(100)
        fresh.inbox.held_total("update")
        assert io_bytes() - read < 2 << 20


def io_bytes() -> int:
    """Return what this process has read so far, from the cache of the system too."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


# The service.


def test_a_signal_in_the_middle_of_a_wake_up_does_not_lock_the_ingester_up(tmp_path, base):
    make_registry(tmp_path / "fleet.db", base).close()
    program = (
        "import os, signal, sys, threading\n"
        "from pathlib import Path\n"
        "from cloud.ingester import Ingester\n"
        "from tests.cloud.centre import FLEET_KEY\n"
        "from tests.cloud.memory import MemoryBroker, MemoryTransport\n"
        "i = Ingester(Path(sys.argv[1]), FLEET_KEY, MemoryTransport(MemoryBroker(), fleet='orchard', client_id='c'))\n"
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
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "fleet.db")], cwd=root, capture_output=True, text=True, timeout=200
    )
    assert done.stdout == "ended\n", done.stderr


def test_messages_that_wait_are_bounded_in_bytes_and_the_large_ones_still_come_through(tmp_path, base, caplog):
    make_registry(tmp_path / "fleet.db", base).close()
    broker = MemoryBroker()
    path = tmp_path / "fleet.db"
    running = Running(path, broker, pace=Pace(batch_seconds=0.01, busy=0.1, queue_bytes=1 << 20)).start()
    until(lambda: "centre" in broker.sessions)
    store = open_registry(path, synchronous="OFF")
    with store.transaction():
        for n in range(50):
            broker.publish(f"e1/{FLEET}/pi-{n}/digits/up/update", bytes(300_000))
        until(lambda: "the batch waits" in caplog.text and running.ingester._waiting_bytes > (1 << 20) - 300_000)
        assert len(broker.sessions["centre"].sent) <= 6
    broker.publish(f"e1/{FLEET}/pi-0/digits/up/update", bytes(2_000_000))
    until(lambda: not broker.sessions["centre"].waiting)
    running.stop()
    store.close()


def test_a_rebuild_commits_what_it_has_proven_before_it_has_worked_for_long(centre, device, monkeypatch):
    centre.deliver(device, *(device.train() for _ in range(20)))
    build = Rebuilder._build
    monkeypatch.setattr(Rebuilder, "_build", lambda self, *a: (time.sleep(0.05), build(self, *a))[1])
    rebuilder = Rebuilder(centre.store, seconds=0.2)
    judged = rebuilder.run(1)
    assert 1 <= len(judged) <= 5
    assert sum(s == "verified" for s in centre.statuses(device).values()) == len(judged)
    while judged := rebuilder.run(1):
        pass
    assert set(centre.statuses(device).values()) == {"verified"}


def test_a_rebuild_that_is_told_to_stop_keeps_what_it_has_proven(centre, device):
    centre.deliver(device, *(device.train() for _ in range(20)))
    assert len(Rebuilder(centre.store).run(1, stopping=lambda: True)) == 1


# The link.


class OddBroker:
    """Greets, takes the subscription, and says one more thing on its first connection."""

    def __init__(self, odd: bytes) -> None:
        self._odd = odd
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
            for text, body in ((self._odd, b"odd"), (topic, b"whole"))[number > 1 :]:
                said = len(text).to_bytes(2, "big") + text + b"\x00\x01" + b"\x00" + body
                s.sendall(b"\x32" + bytes([len(said)]) + said)
            while s.recv(4096):
                pass
        except OSError:
            return


def test_a_message_that_breaks_the_mqtt_library_does_not_leave_the_centre_deaf():
    odd = OddBroker(f"e1/{FLEET}/pi-7/".encode() + b"\xff\xfe/up/update")
    transport, ear = MqttTransport(parse_broker(f"mqtt://127.0.0.1:{odd.port}"), fleet=FLEET, client_id="centre"), Ear()
    transport.start(ear)
    until(lambda: b"whole" in ear.data(), 10)
    transport.stop()
    odd.close()


def test_a_receiver_that_fails_once_is_called_again():
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


@pytest.mark.parametrize("host", ["host..example", "a" * 64 + ".example", "-" * 300])
def test_a_broker_whose_name_no_resolver_takes_is_refused_at_once(host):
    with pytest.raises(BadArgument, match="is no broker"):
        parse_broker(f"mqtt://{host}")


def test_a_broker_that_does_not_let_the_centre_listen_is_not_called_connected(tmp_path, base, caplog):
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
    ingester = Ingester(tmp_path / "fleet.db", FLEET_KEY, transport, pace=Pace(connect=2.0), synchronous="OFF")
    with pytest.raises(BrokerUnreachable):
        ingester.run(once=0.1)
    assert "does not let this centre listen" in caplog.text
    listener.close()


# The registry's files.


def test_a_copy_in_the_place_of_the_registry_itself_is_refused(tmp_path, base):
    path = tmp_path / "fleet.db"
    make_registry(path, base).close()
    (tmp_path / "other.db").symlink_to(path)
    inode = path.stat().st_ino
    for target in (path, tmp_path / "other.db", tmp_path / "." / "fleet.db"):
        with pytest.raises(BadArgument, match="the registry itself"):
            backup(path, target, progress=silent, replace=True)
    assert path.stat().st_ino == inode


def test_a_copy_does_not_replace_a_registry_that_an_ingester_works_on(tmp_path, base):
    for name in ("fleet.db", "other.db"):
        make_registry(tmp_path / name, base).close()
    with lock_registry(tmp_path / "other.db"), pytest.raises(StateBusy):
        backup(tmp_path / "fleet.db", tmp_path / "other.db", progress=silent, replace=True)


def test_a_registry_under_two_names_is_one_registry(tmp_path, base):
    (tmp_path / "disk").mkdir()
    path, link = tmp_path / "disk" / "fleet.db", tmp_path / "fleet.db"
    make_registry(path, base, files_from=100).close()
    link.symlink_to(path)
    with lock_registry(path), pytest.raises(StateBusy), lock_registry(link):
        pass
    with closing(open_registry(link, readonly=True)) as store:
        assert hashlib.sha256(store.blobs.get(store.bases.all()[0].file)).digest() == hashlib.sha256(base.file).digest()


def test_the_registry_that_a_restore_moves_aside_is_whole_with_its_files(tmp_path, base):
    path, copy = tmp_path / "fleet.db", tmp_path / "copy.db"
    store = make_registry(path, base, files_from=100)
    device = Centre(store).meet(ScriptedDevice(base))
    Centre(store).deliver(device, device.train())
    store.close()
    backup(path, copy, progress=silent)
    aside = restore(copy, path, progress=silent, replace=True)
    assert aside is not None
    for name in (aside, path):
        with cloud.open(name) as fleet:
            assert hashlib.sha256(fleet.find("pi-7@1").file()).digest() == device.made[1].file_sha256


def test_another_programs_database_is_not_changed_by_looking_at_it(tmp_path):
    other, empty = tmp_path / "other.db", tmp_path / "empty.db"
    with closing(sqlite3.connect(other)) as made:
        made.execute("CREATE TABLE t (x)")
    empty.touch()
    before = other.read_bytes()
    for path in (other, empty):
        assert cli.main(["devices", "revoke", "pi-7", "--db", str(path)]) == 56
    assert other.read_bytes() == before and empty.read_bytes() == b""


def test_a_full_disk_beside_the_registry_is_no_fault_of_the_message_and_leaves_nothing_half_written(tmp_path, base, monkeypatch):
    store = make_registry(tmp_path / "fleet.db", base, files_from=100)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    sent = device.train()
    real = os.fsync

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cloud.registry.blobs.os.fsync", full)
    with pytest.raises(BadArgument, match="No space left"):
        centre.deliver(device, sent)
    monkeypatch.setattr("cloud.registry.blobs.os.fsync", real)
    assert store.refusals.count() == 0
    assert list(tmp_path.glob("**/*.partial")) == []
    centre.deliver(device, sent)
    assert centre.receipts()[-1] == (1, Level.STORED)
    store.close()


def test_a_full_database_says_to_make_room_and_not_to_restore(store, base):
    pages = store.database.number("PRAGMA page_count")
    store.database.number(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(BadArgument, match="full") as caught:
        store.blobs.put(bytes(1 << 20))
    assert "make room" in caught.value.next_step


def test_a_disk_too_full_for_the_index_of_the_log_is_not_called_damage(store, monkeypatch):
    def fails() -> None:
        with store.database.named():
            raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(RegistryDamaged):
        fails()
    monkeypatch.setattr("cloud.registry.database.shutil.disk_usage", lambda _path: SimpleNamespace(free=4096))
    with pytest.raises(BadArgument, match="its disk is full") as caught:
        fails()
    assert "restore" not in caught.value.next_step


@pytest.mark.slow("sends three hundred updates")
def test_an_ingester_whose_disk_fills_up_ends_with_an_error_and_goes_on_where_it_was(tmp_path, base):
    path = tmp_path / "fleet.db"
    store = make_registry(path, base)
    device = Centre(store).meet(ScriptedDevice(base))
    store.close()
    broker = MemoryBroker()
    running = Running(path, broker)
    made = [device.train() for _ in range(300)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100_000, before[1]))
    try:
        running.start()
        until(lambda: "centre" in broker.sessions)
        for sent in made:
            broker.publish(*device.update(sent))
        running.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert running.error is not None
    again = Running(path, broker).start()
    until(lambda: (300, Level.VERIFIED) in receipts(broker))
    again.stop()
    with cloud.open(path) as fleet:
        assert [v.number for v in fleet.device("pi-7").versions()] == list(range(1, 301))


def test_a_file_that_was_there_already_is_made_durable_too(tmp_path, monkeypatch):
    blobs = FileBlobs(tmp_path / "blobs")
    blobs.put(b"x" * 100)
    synced: list[Path] = []
    monkeypatch.setattr("cloud.registry.blobs.sync_folder", synced.append)
    blobs.put(b"x" * 100)  # whoever wrote it may have been killed before it was
    assert set(synced) >= {tmp_path / "blobs", next((tmp_path / "blobs").iterdir())}


def test_a_registry_used_on_another_thread_or_after_its_end_is_not_called_damaged(tmp_path, base):
    make_registry(tmp_path / "fleet.db", base).close()
    fleet = cloud.open(tmp_path / "fleet.db")
    found: list[BaseException] = []

    def elsewhere() -> None:
        try:
            fleet.devices()
        except BaseException as error:  # noqa: BLE001 - looked at below
            found.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    fleet.close()
    with pytest.raises(BadArgument, match="closed"):
        fleet.devices()
    assert isinstance(found[0], BadArgument) and "thread" in str(found[0])


# The command line.


@pytest.mark.parametrize(
    "words",
    [
        ["devices", "list", "--db", "a" * 300],
        ["init", "--files-from", "-1", "--db", "new.db"],
        ["doctor", "--db", "nowhere/fleet.db"],
        ["doctor", "--broker", "mqtt://host..example"],
        ["annotate", "pi-7", "\udcff"],
        ["materialise", "pi-7@1", "-o", "fleet.db/x.npz"],
        ["ingest", "--once", "--key", "."],
        ["devices", "list", "--db", "."],
        ["restore", ".", "--db", "new.db"],
    ],
    ids=lambda words: " ".join(words)[:40].encode("ascii", "replace").decode(),
)
def test_whatever_is_wrong_with_the_surroundings_is_one_error_by_name(tmp_path, base, monkeypatch, capsys, words):
    store = make_registry(tmp_path / "fleet.db", base)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    store.close()
    monkeypatch.chdir(tmp_path)
    code = cli.main([*words, "--json"])
    out, err = capsys.readouterr()
    if words[0] == "doctor":
        assert code == 1 and json.loads(out)["ok"] is False
        return
    said = json.loads(err)
    assert code == said["code"] == BadArgument.code and said["hint"] and "restore BACKUP" not in said["hint"]
    assert not (tmp_path / "new.db").exists() and not (tmp_path / "fleet.key").exists()


def test_two_ingesters_of_one_registry_move_a_head_once(tmp_path, base):
    first = Centre(make_registry(tmp_path / "fleet.db", base))
    device = first.meet(ScriptedDevice(base))
    second = Centre(open_registry(tmp_path / "fleet.db", synchronous="OFF"))
    sent = device.train()
    outcomes = first.deliver(device, sent) + second.deliver(device, sent)
    assert [o.result for o in outcomes] == [Result.STORED, Result.REPEATED]
    assert first.statuses(device) == {1: "stored"} and second.head(device) == 1
    for centre in (first, second):
        centre.store.close()


def test_bytes_that_another_device_sent_as_its_own_are_still_taken_from_their_own_device(centre, device, base):
    """A registered device that has seen another's container on the broker can send it as its own; it only harms itself."""
    thief = centre.meet(ScriptedDevice(base, name="pi-8"))
    said, manifest, pieces = device.transfer(device.train(), PART)
    stolen = replace(said, device="pi-8")
    centre.take((thief.topic("part"), encode(stolen, thief.key)))
    for _, data in pieces:
        centre.take((thief.topic("part"), data))
    assert "came on" in centre.store.refusals.last(1)[0].reason
    centre.take(manifest)
    assert [centre.take(p).result for p in pieces][-1] is Result.STORED
