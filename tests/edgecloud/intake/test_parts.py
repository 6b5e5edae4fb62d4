"""Updates that come in parts: any order, any losses, bounded, and one update at the end."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.intake import linking
from edgecloud.intake.decision import Bounds, Result
from edgecloud.registry import SqliteStore
from modelwire.errors import NotUnderstood
from modelwire.limits import Limits
from modelwire.wire import parts, records
from modelwire.wire.records import Level, Receipt, Transfer, Wanted
from tests.edgecloud.centre import Centre, admit, make_registry
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


class Joins:
    """Counts how often parts are joined."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._join = parts.join
        monkeypatch.setattr(parts, "join", self)

    def __call__(self, said: Transfer, pieces: dict[int, bytes]) -> bytes:
        self.count += 1
        return self._join(said, pieces)


@pytest.fixture
def joins(monkeypatch: pytest.MonkeyPatch) -> Joins:
    return Joins(monkeypatch)


def statements(store: SqliteStore) -> list[str]:
    """Return a list that gets what is asked of the registry from now on, but for the brackets around a message."""
    said: list[str] = []
    store.database.connection.set_trace_callback(
        lambda sql: said.append(sql) if sql.split()[0] not in ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE") else None
    )
    return said


def test_five_hundred_repeats_of_the_last_part_of_a_failed_whole_cause_no_join(
    centre: Centre, device: ScriptedDevice, joins: Joins
) -> None:
    out = parts.describe(b"garbage" * 1000, fleet="orchard", device="pi-7", model="digits", at=1, part=PART)
    centre.take(device.say("part", out.transfer))
    for i in range(out.count):
        centre.take((device.topic("part"), out.cut(i)))
    assert joins.count == 1
    asked = statements(centre.store)
    for _ in range(500):
        assert centre.ingest.take(device.topic("part"), out.cut(out.count - 1), centre.now).result is Result.DROPPED
    assert joins.count == 1 and len(asked) == 500  # one look each
    for _ in range(500):
        centre.take(device.say("part", out.transfer))
    assert joins.count == 1 and centre.store.transfers.all() == []


def test_five_hundred_repeats_of_the_last_part_of_a_whole_that_waits_cause_no_join(store: SqliteStore, base: Base, joins: Joins) -> None:
    centre = Centre(store, Bounds(parked_bytes=1000))
    device = centre.meet(ScriptedDevice(base))
    first, second = device.train(), device.train(extension=BULK)
    _, manifest, pieces = device.transfer(second, PART)
    centre.take(manifest)
    for piece in pieces:
        centre.take(piece)
    assert joins.count == 1 and store.refusals.last(1)[0].error == "BudgetExhausted"
    asked = statements(store)
    for _ in range(500):
        assert centre.ingest.take(*pieces[-1], centre.now).result is Result.NOTED
    assert joins.count == 1 and len(asked) == 500
    store.database.connection.set_trace_callback(None)
    for _ in range(500):
        centre.take(manifest)
    assert joins.count == 1  # nothing has changed for it
    centre.now += 10
    for _ in range(500):
        centre.take(manifest)
    assert joins.count == 2  # and once in ten seconds
    centre.deliver(device, first)
    assert centre.take(manifest).result is Result.STORED and joins.count == 3


def test_a_whole_that_came_before_its_hello_is_tried_again_once_it_has_come(centre: Centre, base: Base, joins: Joins) -> None:
    device = ScriptedDevice(base)
    admit(centre.store, device.name, device.key.public, 1)
    device.epoch = 1
    _, manifest, pieces = device.transfer(device.train(extension=BULK), PART)
    for message in (manifest, *pieces, manifest, manifest):
        centre.take(message)
    assert joins.count == 1
    centre.greet(device)
    assert centre.take(manifest).result is Result.STORED and joins.count == 2


def test_what_failed_for_good_is_tried_again_when_it_is_described_anew(centre: Centre, device: ScriptedDevice, joins: Joins) -> None:
    """Whose first description had another whole's digest under its tree."""
    sent = device.train(extension=BULK)
    said, manifest, pieces = device.transfer(sent, PART)
    lie = device.say("part", replace(said, size=said.size, id=said.id, tree=other_tree(device, said)))
    centre.take(lie)
    for piece in other_pieces(device, said):
        centre.take(piece)
    assert joins.count == 1 and centre.store.refusals.last(1)[0].error == "DigestMismatch"
    centre.take(lie)
    assert wanted(centre, len(pieces)) == [] and joins.count == 1
    centre.take(manifest)
    assert wanted(centre, len(pieces)) == list(range(len(pieces)))
    assert [centre.take(p).result for p in pieces][-1] is Result.STORED and joins.count == 2


def bad_whole(device: ScriptedDevice, said: Transfer) -> parts.Outgoing:
    data = bytes(said.size)
    return parts.describe(data, fleet=said.fleet, device=device.name, model=device.model, at=1, part=PART)


def other_tree(device: ScriptedDevice, said: Transfer) -> bytes:
    return bad_whole(device, said).transfer.tree


def other_pieces(device: ScriptedDevice, said: Transfer) -> list[tuple[str, bytes]]:
    out = bad_whole(device, said)
    named = replace(out, transfer=replace(out.transfer, id=said.id))
    return [(device.topic("part"), named.cut(i)) for i in range(named.count)]


@pytest.mark.parametrize("change", ["size", "tree", "path", "index"])
def test_a_part_that_its_transfer_does_not_prove_is_refused_by_name_and_nothing_of_it_is_kept(
    centre: Centre, device: ScriptedDevice, change: str
) -> None:
    said, manifest, pieces = device.transfer(device.train(extension=BULK), PART)
    if change == "size":
        manifest = device.say("part", replace(said, size=said.size + 2048))
    if change == "tree":
        manifest = device.say("part", replace(said, tree=bytes(32)))
    centre.take(manifest)
    topic, data = pieces[3]
    if change == "path":
        data = data[:60] + bytes([data[60] ^ 1]) + data[61:]
    if change == "index":
        data = data[:40] + (2).to_bytes(4, "little") + data[44:]
    assert centre.take((topic, data)).result is Result.DROPPED
    (open_one,) = centre.store.transfers.all()
    assert centre.store.refusals.last(1)[0].error == "DigestMismatch"
    assert centre.store.transfers.held(open_one.id) == set() and open_one.held == 0


def test_what_is_larger_than_the_limits_is_refused_before_anything_is_kept(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(wire=Limits(container=4096, parts=4)))
    device = centre.meet(ScriptedDevice(base))
    said, manifest, _ = device.transfer(device.train(extension=BULK), PART)
    many = device.say("part", replace(said, size=4097 - 1, part_size=1024))
    assert centre.take(manifest).result is Result.DROPPED and store.refusals.last(1)[0].error == "TooLarge"
    assert centre.take(many).result is Result.NOTED
    centre = Centre(store, Bounds(wire=Limits(parts=4)))
    assert centre.take(manifest).result is Result.DROPPED and store.refusals.last(1)[0].error == "TooLarge"
    assert len(store.transfers.all()) == 1


def test_what_this_release_does_not_understand_is_taken_by_the_next_one_and_no_part_of_it_comes_again(
    centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(data: bytes, limit: Limits) -> object:
        raise NotUnderstood(what="the container", got="critical key '!new'", reads="none of that name")

    _, manifest, pieces = device.transfer(device.train(extension=BULK), PART)
    centre.take(manifest)
    with monkeypatch.context() as older:
        older.setattr(linking, "parse", not_yet)
        outcome = [centre.take(piece) for piece in pieces][-1]
        assert outcome.result is Result.DROPPED and "NotUnderstood" in outcome.reason
        centre.said()
        centre.now += 1
        centre.take(manifest)
        assert wanted(centre, len(pieces)) == []
    centre.now += centre.bounds.transfer_again
    assert centre.take(manifest).result is Result.STORED
