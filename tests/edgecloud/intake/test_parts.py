"""Updates that come in parts: any order, any losses, bounded, and one update at the end."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.intake.decision import Bounds, Result
from edgecloud.registry import SqliteStore
from modelwire.wire import parts, records
from modelwire.wire.records import Level, Receipt, Wanted
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import BULK, PART, Base, ScriptedDevice, key_of


def wanted(centre: Centre, count: int) -> list[int]:
    """Return the parts that the centre's last answer still wants."""
    answer = [r for r in centre.said() if isinstance(r, Wanted)][-1]
    return parts.missing(answer.have, count)


@pytest.mark.slow("sends large updates in every order")
@settings(max_examples=40)
@given(st.data())
def test_parts_in_any_order_with_any_losses_become_one_stored_update(base: Base, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = make_registry(Path(folder) / "fleet.db", base)
        centre = Centre(store)
        device = centre.meet(ScriptedDevice(base))
        sent = device.train(extension=BULK)
        said, manifest, pieces = device.transfer(sent, PART)
        count = len(pieces)
        receipts: list[Receipt] = []
        for _ in range(20):
            centre.take(manifest)
            answers = centre.said()
            receipts += [r for r in answers if isinstance(r, Receipt)]
            if receipts:
                break
            (answer,) = [r for r in answers if isinstance(r, Wanted)]
            missing = parts.missing(answer.have, count)
            arriving = data.draw(st.lists(st.sampled_from(missing), max_size=2 * count))
            for index in arriving:
                centre.take(pieces[index])
            receipts += [r for r in centre.said() if isinstance(r, Receipt)]
        else:
            for piece in pieces:
                centre.take(piece)
            receipts += [r for r in centre.said() if isinstance(r, Receipt)]
        assert receipts[0].level is Level.STORED and receipts[0].commit == sent.commit
        assert centre.statuses(device) == {1: "stored"}
        assert store.transfers.all() == []
        row = store.versions.by_commit(sent.commit)
        assert store.blobs.get(row.blob) == sent.data
        assert said.id == row.blob
        store.close()


def test_the_answer_to_a_manifest_says_what_is_held(centre: Centre, device: ScriptedDevice) -> None:
    _, manifest, pieces = device.transfer(device.train(extension=BULK), PART)
    centre.take(manifest)
    assert wanted(centre, len(pieces)) == list(range(len(pieces)))
    centre.take(pieces[2])
    centre.take(pieces[0])
    centre.take(manifest)
    assert wanted(centre, len(pieces)) == [1, *range(3, len(pieces))]


def test_a_manifest_of_an_update_that_is_held_gets_its_receipt(centre: Centre, device: ScriptedDevice) -> None:
    sent = device.train(extension=BULK)
    _, manifest, pieces = device.transfer(sent, PART)
    centre.deliver(device, sent)
    centre.rebuild()
    centre.said()
    assert centre.take(manifest).result is Result.REPEATED
    assert centre.receipts() == [(1, Level.VERIFIED)]
    assert centre.take(pieces[0]).result is Result.DROPPED  # a late copy: no transfer is open


def test_a_manifest_of_an_update_that_was_refused_gets_its_refusal(centre: Centre, device: ScriptedDevice) -> None:
    one = device.train(extension=BULK)
    centre.deliver(device, one)
    fork = device.snapshot(device.base.manifest.commit, extension=BULK)
    centre.deliver(device, fork)
    centre.said()
    _, manifest, _ = device.transfer(fork, PART)
    centre.take(manifest)
    assert centre.receipts() == [(2, Level.REFUSED)]


def test_a_whole_that_is_an_orphan_is_not_asked_for_again(centre: Centre, device: ScriptedDevice) -> None:
    one, two = device.train(extension=BULK), device.train(extension=BULK)
    _, manifest, pieces = device.transfer(two, PART)
    centre.take(manifest)
    assert [centre.take(p).result for p in pieces][-1] is Result.PARKED
    centre.take(manifest)
    assert wanted(centre, len(pieces)) == []
    centre.deliver(device, one)
    assert centre.receipts() == [(1, Level.STORED), (2, Level.STORED)]


def test_a_whole_that_can_not_be_read_is_listed_once_and_not_asked_for_again(centre: Centre, device: ScriptedDevice) -> None:
    out = parts.describe(b"garbage" * 1000, fleet="orchard", device="pi-7", model="digits", at=1, part=PART)
    manifest = device.say("part", out.transfer)
    centre.take(manifest)
    count = out.count
    assert wanted(centre, count) == list(range(count)) and count == 7
    outcomes = [centre.take((device.topic("part"), out.cut(i))) for i in range(count)]
    assert outcomes[-1].result is Result.DROPPED and "Malformed: container" in outcomes[-1].reason
    centre.take(manifest)
    assert wanted(centre, count) == []
    assert centre.store.transfers.all() == []


def test_a_part_with_other_bytes_is_dropped_and_the_right_one_still_taken(centre: Centre, device: ScriptedDevice) -> None:
    said, manifest, pieces = device.transfer(device.train(extension=BULK), PART)
    centre.take(manifest)
    topic, data = pieces[1]
    assert "DigestMismatch" in centre.take((topic, data[:-1] + bytes([data[-1] ^ 1]))).reason
    assert "not of this transfer" in centre.take((topic, parts._HEAD.pack(parts.MAGIC, 1, 0, said.id, 999) + b"x")).reason
    assert centre.take(pieces[1]).result is Result.NOTED


def test_parts_on_the_topic_of_another_device_are_dropped(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    _, manifest, pieces = device.transfer(device.train(extension=BULK), PART)
    centre.take(manifest)
    assert centre.take((other.topic("part"), pieces[0][1])).result is Result.DROPPED
    assert centre.take((other.topic("part"), manifest[1])).result is Result.DROPPED


def test_a_transfer_of_an_unknown_key_is_not_opened(centre: Centre, device: ScriptedDevice) -> None:
    device.key = key_of("mallory")
    _, manifest, pieces = device.transfer(device.train(extension=BULK), PART)
    assert centre.take(manifest).result is Result.DROPPED
    assert centre.take(pieces[0]).result is Result.DROPPED
    assert centre.said() == [] and centre.store.transfers.all() == []


def test_a_device_has_a_few_transfers_open_and_the_longest_untouched_goes_first(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(transfers_of_device=2))
    device = centre.meet(ScriptedDevice(base))
    manifests = [device.transfer(device.train(extension=BULK), PART) for _ in range(3)]
    for n, (_, manifest, _) in enumerate(manifests):
        centre.now += n
        centre.take(manifest)
    assert [records.parse(t.record).record.id for t in store.transfers.all()] == [said.id for said, _, _ in manifests[1:]]


def test_all_transfers_together_are_bounded_and_the_abandoned_ones_go(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(transfers_total=1, transfer_seconds=100))
    one = centre.meet(ScriptedDevice(base, name="pi-1"))
    two = centre.meet(ScriptedDevice(base, name="pi-2"))
    first, second = one.transfer(one.train(extension=BULK), PART)[1], two.transfer(two.train(extension=BULK), PART)[1]
    centre.take(first)
    assert centre.take(second).result is Result.DROPPED
    centre.now += 101
    assert centre.take(second).result is Result.NOTED
    assert [t.device for t in store.transfers.all()] == ["pi-2"]


@pytest.mark.parametrize(
    "change", [{"size": 0}, {"size": 1 << 40}, {"part_size": 0}, {"part_size": 1500}, {"part_size": 512}, {"what": "base"}]
)
def test_a_manifest_whose_numbers_do_not_agree_is_dropped(centre: Centre, device: ScriptedDevice, change: dict[str, Any]) -> None:
    said, _, _ = device.transfer(device.train(extension=BULK), PART)
    assert centre.take(device.say("part", replace(said, **change))).result is Result.DROPPED
    assert centre.store.transfers.all() == []
