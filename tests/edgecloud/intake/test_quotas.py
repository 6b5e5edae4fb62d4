"""Quotas: a device that has used up what it may is asked to wait, loses nothing, and is taken in later; nobody is told for another."""

from __future__ import annotations

import pytest

from edgecloud.intake.decision import Decision, Result
from edgecloud.intake.quotas.charging import LONGEST, SPREAD, count_work
from edgecloud.registry import QuotaRow
from modelwire.errors import StateBusy
from modelwire.wire.records import Level, Receipt, Wait, Wanted
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import BULK, PART, Base, ScriptedDevice, key_of

HOUR, DAY = 3600, 86_400


def waits(centre: Centre) -> list[Wait]:
    return [r for r in centre.said() if isinstance(r, Wait)]


def test_versions_beyond_an_hours_wait_and_come_later_with_nothing_lost(centre: Centre, device: ScriptedDevice) -> None:
    centre.now = 10 * HOUR + 3000
    centre.store.quotas.set("pi-7", QuotaRow(versions_an_hour=2), 1)
    sent = [device.train() for _ in range(4)]
    assert [o.result for o in centre.deliver(device, *sent)] == [Result.STORED] * 2 + [Result.WAITS] * 2
    said = waits(centre)
    assert len(said) == 2 and all(600 <= w.seconds < 600 + SPREAD and "2 versions an hour" in w.reason for w in said)
    assert centre.deliver(device, sent[0])[0].result is Result.REPEATED, "what is held already is no news"
    assert centre.store.refusals.count() == 0
    centre.now += said[0].seconds
    assert [o.result for o in centre.deliver(device, *sent[2:])] == [Result.STORED] * 2
    centre.rebuild()
    assert set(centre.statuses(device).values()) == {"verified"} and len(centre.statuses(device)) == 4


def test_bytes_of_a_day_count_once_and_are_free_the_next_day(centre: Centre, device: ScriptedDevice) -> None:
    centre.now = 5 * DAY + 100
    sent = [device.train() for _ in range(3)]
    centre.store.quotas.set("pi-7", QuotaRow(bytes_a_day=len(sent[0].data) + len(sent[1].data)), 1)
    assert [o.result for o in centre.deliver(device, *sent)] == [Result.STORED] * 2 + [Result.WAITS]
    assert centre.store.quotas.used("pi-7", centre.now).bytes == len(sent[0].data) + len(sent[1].data)
    (said,) = waits(centre)
    assert LONGEST <= said.seconds < LONGEST + SPREAD, "it asks again: an operator may have given it more"
    centre.now += DAY
    assert centre.deliver(device, sent[2])[0].result is Result.STORED


@pytest.mark.parametrize("quota", [QuotaRow(bytes_a_day=1000), QuotaRow(disk_bytes=1000)])
def test_of_an_update_larger_than_a_quota_nobody_says_that_it_goes_on_by_itself(
    centre: Centre, device: ScriptedDevice, quota: QuotaRow
) -> None:
    centre.store.quotas.set("pi-7", quota, 1)
    sent = device.train(extension=BULK)
    _, told, _ = device.transfer(sent, PART)
    assert centre.take(told).result is Result.WAITS
    (said,) = waits(centre)
    assert f"too few for this update of {len(sent.data)}" in said.reason and "by itself" not in said.reason
    centre.store.quotas.set("pi-7", QuotaRow(), 1)
    assert centre.take(told).result is Result.NOTED


def test_a_device_that_holds_as_much_as_it_may_is_told_so_and_others_are_not(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    centre.store.quotas.set("pi-7", QuotaRow(disk_bytes=10), 1)
    assert centre.deliver(device, device.train())[0].result is Result.WAITS
    assert centre.deliver(other, other.train())[0].result is Result.STORED
    assert centre.store.quotas.used("pi-7", centre.now).disk == 0
    assert centre.store.quotas.used("pi-8", centre.now).disk > 0


def test_work_counts_and_a_device_that_has_used_it_up_waits(centre: Centre, device: ScriptedDevice) -> None:
    centre.store.quotas.set("", QuotaRow(cpu_an_hour=5), 1)
    centre.store.quotas.count("pi-7", centre.now, cpu=4.9)
    sent = [device.train(), device.train()]
    assert centre.deliver(device, sent[0])[0].result is Result.STORED
    centre.store.quotas.count("pi-7", centre.now, cpu=0.2)
    assert centre.deliver(device, sent[1])[0].result is Result.WAITS


def test_a_transfer_is_not_begun_beyond_a_quota_and_goes_on_later_with_its_parts(centre: Centre, device: ScriptedDevice) -> None:
    centre.now = 10 * HOUR
    sent = device.train(extension=BULK)
    _, told, parts = device.transfer(sent, PART)
    centre.store.quotas.set("pi-7", QuotaRow(bytes_a_day=1000), 1)
    assert centre.take(told).result is Result.WAITS and centre.store.transfers.all() == []
    assert [centre.take(p).result for p in parts] == [Result.DROPPED] * len(parts)
    centre.store.quotas.set("pi-7", QuotaRow(versions_an_hour=0), 1)
    centre.said()
    centre.take(told)
    assert [centre.take(p).result for p in parts][-1] is Result.WAITS
    assert centre.store.quotas.used("pi-7", centre.now).bytes == len(sent.data)
    (held,) = centre.store.transfers.all()
    assert held.held == len(parts), "they need not come again"
    centre.store.quotas.set("pi-7", QuotaRow(), 1)
    centre.said()
    assert centre.take(told).result is Result.STORED
    assert [r.level for r in centre.said() if isinstance(r, Receipt)] == [Level.STORED]
    assert centre.store.quotas.used("pi-7", centre.now).bytes == len(sent.data), "joined, it was counted before"


def test_a_device_without_transfers_begins_none(centre: Centre, device: ScriptedDevice) -> None:
    centre.store.quotas.set("pi-7", QuotaRow(open_transfers=0), 1)
    _, told, _ = device.transfer(device.train(extension=BULK), PART)
    assert centre.take(told).result is Result.WAITS
    centre.store.quotas.set("pi-7", QuotaRow(open_transfers=1), 1)
    assert centre.take(told).result is Result.NOTED and any(isinstance(r, Wanted) for r in centre.said())


def test_what_others_send_in_a_devices_name_counts_for_nothing_and_silences_nobody(
    centre: Centre, device: ScriptedDevice, base: Base
) -> None:
    centre.store.quotas.set("pi-7", QuotaRow(bytes_a_day=1, versions_an_hour=0), 1)
    thief = ScriptedDevice(base, name="pi-7")
    thief.key, thief.epoch, thief.fleet_id = key_of("thief"), 1, centre.store.identity.id
    before = centre.store.quotas.used("pi-7", centre.now)
    assert centre.take(thief.update(thief.train())).result is Result.QUARANTINED
    assert waits(centre) == [] and centre.store.quotas.used("pi-7", centre.now) == before


def test_what_is_taken_back_is_not_counted(centre: Centre, device: ScriptedDevice) -> None:
    sent = device.train()
    with pytest.raises(StateBusy), centre.store.transaction():
        centre.ingest.catch_up()
        assert centre.ingest.take(*device.update(sent), centre.now).result is Result.STORED
        raise StateBusy(path="here")
    centre.ingest.forget()
    assert centre.store.quotas.used("pi-7", centre.now).versions == 0
    centre.deliver(device, sent)
    assert centre.store.quotas.used("pi-7", centre.now).versions == 1


def test_an_orphan_counts_when_it_comes_and_not_again_when_its_parent_does(centre: Centre, device: ScriptedDevice) -> None:
    first, second = device.train(), device.train()
    assert [o.result for o in centre.deliver(device, second, first)] == [Result.PARKED, Result.STORED]
    assert set(centre.statuses(device)) == {1, 2}
    used = centre.store.quotas.used("pi-7", centre.now)
    assert (used.versions, used.bytes) == (2, len(first.data) + len(second.data)) and used.disk == used.bytes


def test_work_on_what_a_device_has_signed_counts_and_no_other(centre: Centre, device: ScriptedDevice) -> None:
    results = (Result.STORED, Result.DROPPED, Result.REFUSED, Result.QUARANTINED)
    outcomes = [Decision(result, "pi-7", "digits") for result in results]
    count_work(centre.store, outcomes, [1.0, 20.0, 2.0, 40.0], centre.now)
    assert centre.store.quotas.used("pi-7", centre.now).cpu == 3.0
