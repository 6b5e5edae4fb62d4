"""The ingester's key changes under way: it signs with the one that the newest record names, or with none that nobody believes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edgecloud.intake.speaking import GRACE, Voice
from edgecloud.registry import SqliteStore, TrustRow, open_registry
from modelwire.errors import BadArgument, MissingFile, RetiredKey
from modelwire.wire.records import Receipt, encode, parse
from modelwire.wire.signing import PrivateKey, Role, Signer
from tests.edgecloud.device import FLEET, ScriptedDevice
from tests.edgecloud.hearing import until
from tests.edgecloud.intake.test_service import Running, device, path
from tests.edgecloud.memory import MemoryBroker
from tests.keys import FLEET_ID, RECEIPT, ROOT, trust

__all__ = ["device", "path"]  # fixtures
NEXT, THIRD = PrivateKey(b"\x31" * 32), PrivateKey(b"\x32" * 32)


@dataclass
class KeyFile:
    """The file that holds the receipt key."""

    key: Signer | None = RECEIPT
    reads: int = field(default=0)

    def read(self) -> Signer:
        self.reads += 1
        if self.key is None:
            raise MissingFile(path="receipt.key", what="the key")
        return self.key


def turn(store: SqliteStore, number: int, key: PrivateKey, *, since: int = 100, overlap: int = 50) -> None:
    record = replace(trust(FLEET, number=number, since=since, overlap=overlap), receipt=key.public)
    store.trusts.add(TrustRow(number, encode(record, ROOT, FLEET_ID)))


def test_the_key_that_a_new_record_names_is_read_and_the_record_told_to_all(store: SqliteStore) -> None:
    file = KeyFile()
    voice = Voice(RECEIPT, file.read)
    assert voice.look(store, 1) == () and voice.look(store, 1) == () and file.reads == 0
    file.key = NEXT
    turn(store, 2, NEXT)
    (told,) = voice.look(store, 101)
    assert voice.key is NEXT and told.topic == f"e1/{FLEET}/all/all/dn/trust" and told.sealed == store.trusts.newest().record
    assert voice.look(store, 10_000) == () and file.reads == 1


def test_with_the_old_key_it_goes_on_while_that_is_good_and_says_so_once(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    file = KeyFile()
    voice = Voice(RECEIPT, file.read)
    voice.look(store, 1)
    turn(store, 2, NEXT)
    with caplog.at_level(logging.WARNING):
        for now in range(101, 151):
            voice.look(store, now)
    assert voice.key is RECEIPT and caplog.text.count("names another receipt key") == 1
    file.key = None  # it is being replaced
    assert voice.look(store, 150) == () and voice.key is RECEIPT
    file.key = THIRD  # one that no record names
    assert voice.look(store, 150) == () and voice.key is RECEIPT
    voice.look(store, 151)
    with pytest.raises(RetiredKey, match="trust record 2"):
        voice.look(store, 151 + GRACE)
    file.key = NEXT
    voice.look(store, 151 + GRACE)
    assert voice.key is NEXT


def test_two_changes_end_the_first_key_at_once(store: SqliteStore) -> None:
    voice = Voice(RECEIPT, KeyFile().read)
    voice.look(store, 1)
    turn(store, 2, NEXT, overlap=10_000)
    voice.look(store, 101)
    turn(store, 3, THIRD, overlap=10_000)
    voice.look(store, 101)
    with pytest.raises(RetiredKey):
        voice.look(store, 101 + GRACE)


def test_a_key_that_never_spoke_is_told_from_one_that_did(store: SqliteStore) -> None:
    with pytest.raises(BadArgument, match="none of the receipt keys"):
        Voice(NEXT).look(store, 1)
    turn(store, 2, NEXT, overlap=0)
    with pytest.raises(RetiredKey):
        Voice(RECEIPT).look(store, 200)
    assert [reply.record.KIND for reply in Voice(NEXT).look(store, 200)] == ["trust", "trust"], "told again at each start"


def test_a_running_ingester_changes_its_key_without_a_start(path: Path, device: ScriptedDevice) -> None:
    broker, file = MemoryBroker(), KeyFile()
    running = Running(path, broker)
    running.ingester._voice = Voice(RECEIPT, file.read)
    running.start()
    until(lambda: "centre" in broker.sessions)
    broker.publish(*device.update(device.train()))
    until(lambda: len(broker.down()) >= 2)
    store = open_registry(path, synchronous="OFF")
    file.key = NEXT
    turn(store, 2, NEXT, since=1 << 33)
    store.close()
    until(lambda: any("/all/all/dn/trust" in topic for topic, _ in broker.down()))
    before = len(broker.down())
    broker.publish(*device.update(device.train()))
    until(lambda: len(broker.down()) >= before + 2)
    for at, (_, data) in enumerate(broker.down()):
        signed = parse(data)
        if isinstance(signed.record, Receipt):
            signed.verify((NEXT if at >= before else RECEIPT).public, FLEET_ID, "the centre", Role.RECEIPT)
    assert running.stop().error is None


def test_an_ingester_whose_key_is_over_ends_with_its_name_and_signs_nothing(path: Path, device: ScriptedDevice) -> None:
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    store = open_registry(path, synchronous="OFF")
    turn(store, 2, NEXT, overlap=0)
    store.close()
    assert isinstance(running.wait().error, RetiredKey)
    broker.publish(*device.update(device.train()))
    again = Running(path, broker).start().wait()
    assert isinstance(again.error, RetiredKey) and not any(isinstance(parse(d).record, Receipt) for _, d in broker.down())
