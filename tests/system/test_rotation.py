"""The fleet's keys change under real processes: boards on line and asleep, commands from before, and an ingester left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

import edgecloud
from edgecloud import keys
from edgecloud.registry import open_registry
from modelwire.wire import records
from modelwire.wire.keys import KeyKind, write_key
from modelwire.wire.records import Trust, expect
from modelwire.wire.signing import PrivateKey
from tests import broker
from tests.system.fleet import Fleet
from tests.worlds import MODELS, world

pytestmark = [
    pytest.mark.slow("starts a fleet of processes", seconds=20),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

QUICK = {
    "link.resend": "1s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "2", "train.margin": "1000",
    "train.learning_rate": "0.02", "store.history": "50",
}  # fmt: skip
RUN = ("run", "--timeout", "500s")
RETIRED = 19  # the exit code


@pytest.fixture
def fleet(fleet: Fleet) -> Fleet:
    """A fleet with one board, which has trained and been heard once."""
    fleet.add_base("digits")
    fleet.add_device("pi-7", {"digits": MODELS / "digits.tflite"}, QUICK)
    with fleet.spool("pi-7") as spool:
        x, y = world("digits", 0).stream(0, 96)
        spool.extend("digits", x, y.tolist())
    fleet.agent("pi-7", *RUN, "--rounds", "1")
    return fleet


def wait_for(reached: Callable[[], bool], seconds: float = 100.0) -> None:
    """Wait until it is reached. seconds: a safety limit for a machine that hangs."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.1)


def rotate(fleet: Fleet, *words: str) -> Any:
    return fleet.cloud("trust", "rotate", *words)


def versions(fleet: Fleet) -> list[tuple[str, str]]:
    with edgecloud.open(fleet.db) as registry:
        return [(v.kind, v.status) for v in registry.device("pi-7").versions()]


def trusts(fleet: Fleet) -> int:
    held: int = fleet.look("pi-7", "status")["trust"]
    return held


def asked(fleet: Fleet) -> int:
    """Ask for a snapshot, which the operator's key seals, and return the number of versions that there were."""
    before = len(versions(fleet))
    fleet.cloud("snapshot", "request", "pi-7")
    return before


@pytest.mark.parametrize("words", [("receipt",), ("command",), ("director",), ("root",), ("root", "receipt", "command", "director")])
def test_a_board_on_line_goes_on_while_the_keys_change_under_a_running_ingester(fleet: Fleet, words: tuple[str, ...]) -> None:
    device, welcomed = fleet.devices["pi-7"], fleet.ingester.said("welcomed pi-7")
    device.start()
    wait_for(lambda: fleet.ingester.said("welcomed pi-7") > welcomed)
    number = rotate(fleet, *words)["number"]
    wait_for(lambda: trusts(fleet) == number)  # it is told at once, and not by the next hello in an hour
    before = asked(fleet)
    wait_for(lambda: ("snapshot", "verified") in versions(fleet)[before:])
    assert device.stop() == 0
    fleet.agent("pi-7", *RUN, "--rounds", "2")
    assert {status for _, status in versions(fleet)} == {"verified"}
    assert fleet.ingester.running and fleet.ingester.said("signing with the receipt key") == ("receipt" in words)
    assert fleet.ingester.stop() == 0


@pytest.mark.parametrize("changes", [1, 2, 20])
def test_a_board_that_slept_through_changes_of_all_keys_comes_back(fleet: Fleet, changes: int) -> None:
    words = ("receipt", "root", "command", "director")
    for n in range(changes):
        wanted = ("root",) if n in (1, changes - 2) else (words[n % 4],) if words[n % 4] != "root" else ("receipt", "command")
        number = rotate(fleet, *wanted, "--now")["number"]
    before, device = asked(fleet), fleet.devices["pi-7"]
    device.start()
    wait_for(lambda: ("snapshot", "verified") in versions(fleet)[before:])
    wait_for(lambda: trusts(fleet) == number >= changes + 1)  # the command may come before what tells of the change
    assert device.stop() == 0
    fleet.agent("pi-7", *RUN, "--rounds", "2")
    assert {status for _, status in versions(fleet)} == {"verified"}
    assert fleet.ingester.stop() == 0


def test_a_board_set_up_with_the_new_fleet_pub_is_believed_and_believes(fleet: Fleet) -> None:
    for words in (("root",), ("receipt",), ("root",)):
        rotate(fleet, *words, "--now")
    fleet.add_device("pi-8", {"digits": MODELS / "digits.tflite"}, QUICK)
    with fleet.spool("pi-8") as spool:
        x, y = world("digits", 1).stream(0, 96)
        spool.extend("digits", x, y.tolist())
    fleet.agent("pi-8", *RUN, "--rounds", "1")
    with edgecloud.open(fleet.db) as registry:
        assert [v.status for v in registry.device("pi-8").versions()] == ["verified"]
    assert fleet.ingester.stop() == 0


def test_a_command_from_before_is_carried_out_within_the_overlap(fleet: Fleet) -> None:
    before = asked(fleet)
    rotate(fleet, "command", "--overlap", "1h")
    device = fleet.devices["pi-7"]
    device.start()
    wait_for(lambda: ("snapshot", "verified") in versions(fleet)[before:])
    wait_for(lambda: trusts(fleet) == 2)  # the command may come before what tells of the change
    assert device.stop() == 0
    assert fleet.ingester.stop() == 0


def test_a_command_that_a_stolen_key_sealed_is_refused_as_soon_as_the_change_was_heard_of(fleet: Fleet) -> None:
    assert fleet.ingester.stop() == 0  # or it would wait at the broker, and come before what tells of the change
    before = asked(fleet)
    rotate(fleet, "command", "--now")
    device = fleet.devices["pi-7"]
    fleet.ingester.start()
    device.start()
    wait_for(lambda: device.said("the signature does not belong to the fleet's command key") > 1)  # it is sent again and again
    assert "snapshot" not in [kind for kind, _ in versions(fleet)[before:]] and trusts(fleet) == 2
    assert device.stop() == 0
    assert fleet.ingester.stop() == 0


def test_an_ingester_without_the_new_key_goes_on_for_a_while_then_ends_and_a_board_loses_nothing(fleet: Fleet) -> None:
    new = PrivateKey(b"\x55" * 32)
    rotate(fleet, "receipt", "--overlap", "8s", "--public", write_key(KeyKind.RECEIPT, new.public))
    wait_for(lambda: fleet.ingester.said("names another receipt key") == 1)
    wait_for(lambda: not fleet.ingester.running)
    assert fleet.ingester.code == RETIRED and fleet.ingester.said("names another receipt key") == 1, fleet.ingester.tail()
    fleet.agent("pi-7", "train")
    fleet.ingester.start()
    wait_for(lambda: not fleet.ingester.running)
    assert fleet.ingester.code == RETIRED and len(versions(fleet)) == 1
    path = fleet.db.parent / "receipt.key"
    path.write_text(keys.key_text(KeyKind.RECEIPT_PRIVATE, b"\x55" * 32))
    fleet.ingester.start()
    fleet.agent("pi-7", *RUN, "--rounds", "2")
    wait_for(lambda: versions(fleet) == [("delta", "verified")] * 2)
    assert trusts(fleet) == 2 and fleet.ingester.stop() == 0


def test_a_key_that_is_put_in_place_later_is_taken_up_without_a_start(fleet: Fleet, tmp_path: Path) -> None:
    new = keys.key_text(KeyKind.RECEIPT_PRIVATE, b"\x56" * 32)
    rotate(fleet, "receipt", "--public", write_key(KeyKind.RECEIPT, PrivateKey(b"\x56" * 32).public))
    wait_for(lambda: fleet.ingester.said("names another receipt key") == 1)
    fleet.agent("pi-7", *RUN, "--rounds", "2")  # the old one is good still
    waits = fleet.db.parent / "new"
    waits.write_text(new)
    waits.chmod(0o600)
    waits.replace(fleet.db.parent / "receipt.key")
    wait_for(lambda: fleet.ingester.said("signing with the receipt key") == 1)
    fleet.agent("pi-7", *RUN, "--rounds", "3")
    assert versions(fleet) == [("delta", "verified")] * 3 and fleet.ingester.stop() == 0


def test_a_board_on_line_takes_no_record_that_its_root_key_did_not_sign(fleet: Fleet) -> None:
    rotate(fleet, "root", "--now")
    device, place = fleet.devices["pi-7"], fleet.db.parent
    device.start()
    wait_for(lambda: trusts(fleet) == 3)
    store = open_registry(fleet.db, readonly=True)
    rows, identity = [row.record for row in store.trusts.all()], store.identity
    store.close()
    thief = PrivateKey(b"\x13" * 32)
    mine = replace(expect(records.parse(rows[-1]), Trust), number=9, receipt=thief.public, command=thief.public)
    retired = keys.load_key(place / "root.key.before-3", KeyKind.ROOT_PRIVATE)
    root = keys.load_key(place / "root.key", KeyKind.ROOT_PRIVATE)
    signed = records.encode(mine, root, identity.id)
    forged = [
        records.encode(mine, retired, identity.id), records.encode(mine, thief, identity.id), records.encode(mine, root, bytes(16)),
        records.encode(replace(mine, fleet="abroad"), root, identity.id), signed[:-1], signed[:-1] + bytes([signed[-1] ^ 1]),
    ]  # fmt: skip
    host, _, port = fleet.url.removeprefix("mqtt://").partition(":")
    for data in (*rows, *forged, *rows):
        publish.single("e1/demo/all/all/dn/trust", data, qos=1, hostname=host, port=int(port))
    wait_for(lambda: device.said("refused a message on e1/demo/all/all/dn/trust") >= len(forged))
    assert trusts(fleet) == 3
    before = asked(fleet)
    wait_for(lambda: ("snapshot", "verified") in versions(fleet)[before:])
    assert device.stop() == 0 and fleet.ingester.stop() == 0
