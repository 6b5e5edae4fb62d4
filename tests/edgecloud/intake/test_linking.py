"""An update is linked to its own device's lineage, once, whoever else speaks or listens."""

from __future__ import annotations

from pathlib import Path

from edgecloud.intake.decision import Result
from edgecloud.registry import open_registry
from modelwire.wire.records import Receipt
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice


def test_an_orphan_on_another_devices_commit_is_refused_to_the_device_that_sent_it(
    centre: Centre, device: ScriptedDevice, base: Base
) -> None:
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    device.train()  # lost on the way
    refused = device.train()
    centre.deliver(device, refused)
    other.head = refused.commit
    stranger = other.train()
    centre.deliver(other, stranger)
    centre.said()
    for _ in range(2):
        centre.now += 1000
        centre.deliver(device, refused)
    said = {(r.device, r.commit) for r in centre.said() if isinstance(r, Receipt)}
    assert said == {("pi-7", refused.commit), ("pi-8", stranger.commit)}


def test_two_ingesters_of_one_registry_move_a_head_once(tmp_path: Path, base: Base) -> None:
    first = Centre(make_registry(tmp_path / "fleet.db", base))
    device = first.meet(ScriptedDevice(base))
    second = Centre(open_registry(tmp_path / "fleet.db", synchronous="OFF"))
    sent = device.train()
    outcomes = first.deliver(device, sent) + second.deliver(device, sent)
    assert [o.result for o in outcomes] == [Result.STORED, Result.REPEATED]
    assert first.statuses(device) == {1: "stored"} and second.head(device) == 1
    for centre in (first, second):
        centre.store.close()
