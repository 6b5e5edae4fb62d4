"""What ingest decides about updates: order, repeats, conflicts, orphans, refusals."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.intake import routing as ingest_module
from edgecloud.intake.decision import Bounds, Result
from edgecloud.registry import SqliteStore
from modelwire.errors import RegistryDamaged
from modelwire.update.sections import Kind
from modelwire.wire.records import Level, Receipt
from tests.edgecloud.centre import Centre, admit, make_registry
from tests.edgecloud.device import Base, ScriptedDevice

VERIFIED, STORED, REFUSED = Level.VERIFIED, Level.STORED, Level.REFUSED


def settle(centre: Centre, device: ScriptedDevice, rng: np.random.Generator) -> None:
    """Let the device resend in any order, and the centre rebuild now and then, until nothing is left to say."""
    for _ in range(60):
        if not device.waiting:
            return
        for version in rng.permutation(list(device.waiting)):
            if version in device.waiting:
                centre.take(device.update(device.waiting[version]))
            if rng.random() < 0.3:
                centre.rebuild()
            if rng.random() < 0.5:
                for record in centre.said():
                    device.hear(record)
        centre.rebuild()
        for record in centre.said():
            device.hear(record)
    raise AssertionError(f"it never settled: {device.waiting.keys()}, {centre.statuses(device)}")


@pytest.mark.slow("lives through hundreds of updates, some thousand times")
@settings(max_examples=40)
@given(
    order=st.lists(st.integers(0, 9), max_size=40),
    lies=st.sets(st.integers(0, 9), max_size=2),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_is_lost_repeated_or_overtaken_every_update_is_stored_once_and_the_head_is_right(
    base: Base, order: list[int], lies: set[int], seed: int
) -> None:
    """order: deliveries before the device resends; versions that are not in it were lost. lies: rounds with a wrong fingerprint."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_registry(Path(folder) / "fleet.db", base)
        centre, rng = Centre(store), np.random.default_rng(seed)
        device = centre.meet(ScriptedDevice(base, seed=seed))
        made = [device.train(fingerprint=(1, 2)) if n in lies else device.train() for n in range(10)]
        for n in order:
            centre.take(device.update(made[n]))
            if rng.random() < 0.2:
                centre.rebuild()
        for record in centre.said():
            device.hear(record)
        settle(centre, device, rng)

        rows = store.versions.of(store.lineages.get("pi-7", "digits").id)
        assert len({v.version for v in rows}) == len({v.commit for v in rows}) == len(rows)
        served = [v for v in rows if v.status.value == "verified"]
        assert all(v.status.value in ("verified", "refused") for v in rows)
        assert not {v.version for v in served} & {n + 1 for n in lies}
        first_lie = min(lies, default=10)
        assert [v.version for v in served][:first_lie] == list(range(1, first_lie + 1))
        # The served versions are one unbroken chain, its end is the head, and the head is what the device runs.
        assert [v.parent for v in served] == [base.manifest.commit, *(v.commit for v in served[:-1])]
        assert centre.head(device) == served[-1].version == device.version
        assert served[-1].root == device.state.root
        assert store.inbox.orphans("pi-7") == []
        store.close()


def test_updates_in_order_are_stored_then_verified(centre: Centre, device: ScriptedDevice) -> None:
    sent = [device.train() for _ in range(3)]
    assert [o.result for o in centre.deliver(device, *sent)] == [Result.STORED] * 3
    assert centre.receipts() == [(1, STORED), (2, STORED), (3, STORED)]
    centre.rebuild()
    assert centre.receipts() == [(1, VERIFIED), (2, VERIFIED), (3, VERIFIED)]
    assert centre.head(device) == 3


def test_a_repeated_update_gets_the_receipt_of_today(centre: Centre, device: ScriptedDevice) -> None:
    one, lie = device.train(), device.train(fingerprint=(1, 2))
    centre.deliver(device, one, lie, one, lie)
    assert centre.receipts() == [(1, STORED), (2, STORED), (1, STORED), (2, STORED)]
    centre.rebuild()
    centre.said()
    assert [o.result for o in centre.deliver(device, one, lie)] == [Result.REPEATED] * 2
    assert centre.receipts() == [(1, VERIFIED), (2, REFUSED)]
    assert len(centre.statuses(device)) == 2


def test_another_update_under_a_held_number_is_a_conflict_and_the_first_stays(centre: Centre, device: ScriptedDevice) -> None:
    one = device.train()
    centre.deliver(device, one)
    twin = device.seal(Kind.SNAPSHOT, device.state.snapshot(), version=1, parent=one.parent)
    (outcome,) = centre.deliver(device, twin)
    receipt = centre.said()[-1]
    assert outcome.result is Result.REFUSED
    assert (receipt.level, receipt.commit, receipt.good, receipt.good_version) == (REFUSED, twin.commit, one.commit, 1)
    assert "already held" in receipt.reason
    lineage = centre.store.lineages.get("pi-7", "digits")
    assert [v.commit for v in centre.store.versions.of(lineage.id)] == [one.commit]
    assert centre.store.refusals.by_commit(twin.commit).error == "Conflict"


def test_a_refused_update_is_refused_again_in_the_same_words_and_counted(centre: Centre, device: ScriptedDevice) -> None:
    one = device.train()
    centre.deliver(device, one)
    twin = device.seal(Kind.SNAPSHOT, device.state.snapshot(), version=1, parent=one.parent)
    centre.deliver(device, twin, twin, twin)
    first, *others = [r for r in centre.said() if isinstance(r, Receipt) and r.level is REFUSED]
    assert [r.reason for r in others] == [first.reason] * 2
    assert centre.store.refusals.count() == 1 and centre.store.refusals.by_commit(twin.commit).repeats == 2


def test_a_parent_that_is_not_the_head_is_stale_and_the_answer_names_the_head(centre: Centre, device: ScriptedDevice) -> None:
    one, two = device.train(), device.train()
    centre.deliver(device, one, two)
    fork = device.seal(Kind.SNAPSHOT, device.state.snapshot(), parent=one.commit)
    late = device.seal(Kind.SNAPSHOT, device.state.snapshot(), parent=device.base.manifest.commit)
    assert [o.result for o in centre.deliver(device, fork, late)] == [Result.REFUSED] * 2
    receipts = [r for r in centre.said() if r.level is REFUSED]
    assert [(r.good, r.good_version) for r in receipts] == [(two.commit, 2)] * 2
    assert all("stale parent" in r.reason for r in receipts)
    snapshot = device.snapshot(receipts[-1].good)
    assert centre.deliver(device, snapshot)[0].result is Result.STORED


def test_a_child_of_a_refused_update_is_refused_not_parked(centre: Centre, device: ScriptedDevice) -> None:
    one = device.train()
    centre.deliver(device, one)
    twin = device.seal(Kind.SNAPSHOT, device.state.snapshot(), version=1, parent=one.parent)
    child = device.train()
    centre.deliver(device, twin, child)
    assert centre.receipts() == [(1, STORED), (1, REFUSED), (2, REFUSED)]
    assert centre.store.inbox.orphans("pi-7") == []


def test_orphans_get_no_receipt_until_their_parent_links_them_all(centre: Centre, device: ScriptedDevice) -> None:
    sent = [device.train() for _ in range(5)]
    assert [o.result for o in centre.deliver(device, sent[4], sent[2], sent[3], sent[2])] == [Result.PARKED] * 4
    assert centre.said() == []
    assert centre.deliver(device, sent[0])[0].result is Result.STORED
    assert centre.receipts() == [(1, STORED)]
    centre.deliver(device, sent[1])
    assert centre.receipts() == [(n, STORED) for n in (2, 3, 4, 5)]
    assert centre.head(device) == 5 and centre.store.inbox.orphans("pi-7") == []


def test_the_park_is_bounded_by_device_and_keeps_the_lowest_versions(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(parked_count=3))
    device = centre.meet(ScriptedDevice(base))
    sent = [device.train() for _ in range(8)]
    for n in (7, 5, 4, 3, 6, 2):
        centre.deliver(device, sent[n])
    assert [o.version for o in store.inbox.orphans("pi-7")] == [3, 4, 5]
    assert [r.error for r in store.refusals.last(9)] == ["BudgetExhausted"]
    centre.deliver(device, *sent)  # the device sends again what got no receipt
    assert centre.head(device) == 8


def test_the_park_is_bounded_in_bytes(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(parked_bytes=1000))
    device = centre.meet(ScriptedDevice(base))
    sent = [device.train() for _ in range(8)]
    centre.deliver(device, *sent[1:])
    held = store.inbox.orphans("pi-7")
    assert 0 < sum(len(o.bytes) for o in held) <= 1000
    assert [o.version for o in held] == [2, 3]


def test_orphans_that_come_again_without_their_parent_are_refused_and_a_snapshot_mends_the_lineage(
    centre: Centre, device: ScriptedDevice
) -> None:
    sent = [device.train() for _ in range(5)]
    centre.deliver(device, sent[0], *sent[2:])  # version 2 is gone for good, as after restoring an older registry
    device.waiting.pop(2)
    centre.now += 119
    assert centre.deliver(device, sent[2])[0].result is Result.PARKED
    centre.said()
    centre.now += 1
    assert centre.deliver(device, sent[2])[0].result is Result.PARKED  # its parent may be late, and come behind it
    assert not centre.said()
    centre.now += 120
    (outcome,) = centre.deliver(device, sent[2])
    receipts = [r for r in centre.said() if isinstance(r, Receipt)]
    assert outcome.result is Result.REFUSED and "does not hold" in outcome.reason
    assert [(r.version, r.level, r.good) for r in receipts] == [(n, REFUSED, sent[0].commit) for n in (3, 4, 5)]
    snapshots = [s for s in (device.hear(r) for r in receipts) if s]
    assert len(snapshots) == 1
    assert centre.deliver(device, snapshots[0])[0].result is Result.STORED
    centre.rebuild()
    assert centre.statuses(device) == {1: "verified", 6: "verified"}


def test_a_rebuild_that_fails_refuses_the_version_and_all_after_it_and_a_snapshot_on_the_good_one_is_taken(
    centre: Centre, device: ScriptedDevice
) -> None:
    good = device.train()
    centre.deliver(device, good)
    lie = device.train(root=bytes(32))
    after = [device.train(), device.train()]
    centre.deliver(device, lie, *after[:1])
    centre.said()
    judged = centre.rebuild()
    assert [(j.name, j.ok) for j in judged] == [("pi-7/digits@1", True), ("pi-7/digits@2", False), ("pi-7/digits@3", False)]
    refusals = [r for r in centre.said() if r.level is REFUSED]
    assert [(r.version, r.good, r.good_version) for r in refusals] == [(2, good.commit, 1), (3, good.commit, 1)]
    assert "another root" in refusals[0].reason
    # What was still on its way is refused when it comes.
    assert centre.deliver(device, after[1])[0].result is Result.REFUSED
    snapshot = device.snapshot(refusals[0].good)
    assert (snapshot.version, centre.deliver(device, snapshot)[0].result) == (5, Result.STORED)
    centre.rebuild()
    assert centre.statuses(device) == {1: "verified", 2: "refused", 3: "refused", 5: "verified"}
    assert centre.head(device) == 5


def test_orphans_of_a_version_that_is_refused_go_with_it(centre: Centre, device: ScriptedDevice) -> None:
    lie, missing, orphan = device.train(root=bytes(32)), device.train(), device.train()
    centre.deliver(device, lie, orphan)
    centre.rebuild()
    assert centre.receipts() == [(1, STORED), (1, REFUSED)]  # its grandchild waits for a parent that can still come
    centre.deliver(device, missing)
    assert centre.receipts() == [(2, REFUSED), (3, REFUSED)]
    assert centre.store.inbox.orphans("pi-7") == []


def test_an_orphan_that_the_head_has_outrun_is_refused(centre: Centre, device: ScriptedDevice) -> None:
    sent = [device.train() for _ in range(4)]
    centre.deliver(device, sent[0], sent[2])
    centre.said()
    jump = device.snapshot(sent[0].commit)  # what a device does that has given up 2 and 3
    assert centre.deliver(device, jump)[0].result is Result.STORED
    assert centre.receipts() == [(5, STORED), (3, REFUSED)]
    assert centre.store.inbox.orphans("pi-7") == []


@pytest.mark.parametrize("epoch", [2, 2**32 - 1])
def test_an_epoch_that_was_never_granted_is_refused(centre: Centre, device: ScriptedDevice, epoch: int) -> None:
    (outcome,) = centre.deliver(device, device.train(epoch=epoch))
    assert (outcome.result, outcome.reason) == (Result.REFUSED, f"epoch {epoch} was never granted")
    assert centre.said()[-1].good == device.base.manifest.commit


def test_numbers_only_rise_also_over_epochs(centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, device.train(version=7))
    device.reflash()
    centre.meet(device)
    low = device.train(version=5)
    assert "numbers only rise" in centre.deliver(device, low)[0].reason
    again = device.snapshot(device.base.manifest.commit, version=7)
    assert "already held" in centre.deliver(device, again)[0].reason
    assert centre.deliver(device, device.snapshot(device.base.manifest.commit, version=8))[0].result is Result.STORED


def test_a_version_below_its_parents_is_refused(centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, device.train(version=7))
    (outcome,) = centre.deliver(device, device.train(version=3))
    assert outcome.result is Result.REFUSED and "numbers only rise" in outcome.reason


def test_gaps_in_the_numbers_are_allowed(centre: Centre, device: ScriptedDevice) -> None:
    outcomes = centre.deliver(device, device.train(version=3), device.train(version=90))
    assert [o.result for o in outcomes] == [Result.STORED] * 2
    assert centre.store.lineages.get("pi-7", "digits").last_version == 90


def test_a_number_that_leaves_no_room_for_others_is_refused_and_not_remembered(centre: Centre, device: ScriptedDevice) -> None:
    (outcome,) = centre.deliver(device, device.train(version=2**62))
    assert outcome.result is Result.REFUSED and "out of reach" in outcome.reason
    assert centre.store.lineages.get("pi-7", "digits").last_version == 0


def test_an_update_made_for_another_base_is_refused_by_name(centre: Centre, device: ScriptedDevice) -> None:
    schema = device.train(schema_id=bytes(32))
    assert "another schema" in centre.deliver(device, schema)[0].reason
    base = device.snapshot(device.base.manifest.commit, base=bytes(32))
    assert "another base" in centre.deliver(device, base)[0].reason
    assert {r.error for r in centre.store.refusals.last(9)} == {"WrongBase"}
    assert centre.statuses(device) == {}


def test_two_models_of_one_device_have_lineages_of_their_own(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    other = centre.meet(ScriptedDevice(base, model="motion", seed=1))
    centre.deliver(device, device.train())
    centre.deliver(other, other.train(), other.train())
    centre.rebuild()
    assert (centre.head(device), centre.head(other)) == (1, 2)


def test_the_numbers_that_an_update_carries_are_listed(centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, device.train(), device.train(version=9, extension={"skipped": [[2, 4], [6, 8]]}))
    lineage = centre.store.lineages.get("pi-7", "digits")
    row = centre.store.versions.numbered(lineage.id, 9)
    assert centre.store.versions.skipped(row.id) == [(2, 4), (6, 8)]


@pytest.mark.parametrize("skipped", [3, [3], [[3]], [[3, 2]], [[0, 1]], [["a", "b"]], [[3, 900]], [[2.0, 3.0]]])
def test_ranges_that_make_no_sense_are_left_out_and_the_update_is_taken(centre: Centre, device: ScriptedDevice, skipped: Any) -> None:
    (outcome,) = centre.deliver(device, device.train(version=9, extension={"skipped": skipped}))
    assert outcome.result is Result.STORED
    lineage = centre.store.lineages.get("pi-7", "digits")
    assert centre.store.versions.skipped(centre.store.versions.numbered(lineage.id, 9).id) == []


def test_a_bad_message_never_spoils_its_batch(centre: Centre, device: ScriptedDevice) -> None:
    one, two = device.train(), device.train()
    with centre.store.transaction():
        outcomes = [
            centre.take(m) for m in (device.update(one), (device.topic("update"), b"garbage"), ("no/topic", b""), device.update(two))
        ]
    assert [o.result for o in outcomes] == [Result.STORED, Result.DROPPED, Result.DROPPED, Result.STORED]
    assert centre.statuses(device) == {1: "stored", 2: "stored"}
    assert centre.store.refusals.count() == 2


def test_a_fault_of_this_program_costs_the_message_and_nothing_else(
    centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(ingest_module._ROUTES, "hello", fault)
    assert centre.take(device.hello()).result is Result.DROPPED
    assert [(r.error, r.reason) for r in centre.store.refusals.last(1)] == [("Fault", "ZeroDivisionError: a bug")]
    assert centre.deliver(device, device.train())[0].result is Result.STORED


def test_the_registrys_own_trouble_is_no_fault_of_a_message(
    centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> bytes:
        raise RegistryDamaged(path="fleet.db", reason="the disk is full")

    monkeypatch.setattr(centre.store.blobs, "put", damaged)
    one = device.train()
    with pytest.raises(RegistryDamaged):
        centre.deliver(device, one)
    monkeypatch.undo()
    assert centre.store.refusals.count() == 0
    assert centre.deliver(device, one)[0].result is Result.STORED


def test_what_comes_on_the_topic_of_another_is_dropped_and_listed(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    one = device.train()
    for topic in (other.topic("update"), device.topic("update").replace("digits", "motion"), device.topic("hello")):
        assert centre.take((topic, one.data)).result is Result.DROPPED
    for message in (device.hello(), device.presence(True, 1), device.response(1)):
        leaf = message[0].rsplit("/", 1)[1]
        assert centre.take((other.topic(leaf), message[1])).result is Result.DROPPED
    elsewhere = device.topic("update").replace("orchard", "other")
    assert centre.take((elsewhere, one.data)).result is Result.DROPPED
    assert centre.take((device.topic("update").replace("/up/", "/dn/"), one.data)).result is Result.DROPPED
    assert centre.statuses(device) == {} and centre.said() == []
    assert centre.store.refusals.count() == 8


def test_leaves_that_this_release_does_not_read_are_listed(centre: Centre, device: ScriptedDevice) -> None:
    assert "not read in this release" in centre.take((device.topic("card"), b"x")).reason


def test_an_update_before_any_hello_waits_for_one(centre: Centre, base: Base) -> None:
    device = ScriptedDevice(base)
    admit(centre.store, device.name, device.key.public, 1)
    device.epoch = 1
    one = device.train()
    (outcome,) = centre.deliver(device, one)
    assert outcome.result is Result.DROPPED and "has not said hello" in outcome.reason
    assert centre.said() == []
    centre.meet(device)
    assert centre.deliver(device, one)[0].result is Result.STORED


def test_refusals_are_bounded(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(refusals=5))
    device = centre.meet(ScriptedDevice(base))
    for n in range(20):
        centre.take((device.topic("update"), b"garbage %d" % n))
    assert store.refusals.count() == 5


@pytest.mark.slow("lives through hundreds of updates, some thousand times")
@settings(max_examples=60)
@given(leaf=st.sampled_from(["hello", "update", "part", "state", "rsp", "report"]), data=st.binary(max_size=300), cut=st.integers(0, 400))
def test_no_bytes_on_any_topic_do_more_than_leave_a_row(base: Base, leaf: str, data: bytes, cut: int) -> None:
    """data: raw, and a real message damaged with it."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_registry(Path(folder) / "fleet.db", base)
        centre = Centre(store)
        device = centre.meet(ScriptedDevice(base))
        real = {"hello": device.hello()[1], "update": device.train().data, "state": device.presence(True, 1)[1]}.get(leaf, b"")
        for message in (data, real[:cut] + data + real[cut + len(data) :]):
            if message != real:
                # A changed signature is one of an unknown key: it waits, like any other stranger's.
                assert centre.take((device.topic(leaf), message)).result in (Result.DROPPED, Result.QUARANTINED)
        assert centre.statuses(device) == {} and centre.said() == []
        assert store.lineages.current(1).epoch == 1
        store.close()


def test_presence_and_answers_are_kept_for_registered_devices_alone(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    assert centre.take(device.presence(True, 3)).result is Result.NOTED
    assert centre.take(device.presence(False, 2)).reason == "late word of an older start"
    assert centre.store.lineages.presence(1).online
    stranger = ScriptedDevice(base, name="pi-9")
    assert centre.take(stranger.presence(True, 3)).result is Result.QUARANTINED
    assert centre.take(stranger.response(5)).result is Result.DROPPED
    forged = ScriptedDevice(base)
    forged.key = stranger.key
    assert centre.take(forged.presence(False, 9)).result is Result.QUARANTINED
    assert centre.store.lineages.presence(1).online


def test_a_base_fixture_is_what_its_manifest_says(base: Base) -> None:
    assert base.manifest.schema.size == sum(len(w) for w in base.weights)
