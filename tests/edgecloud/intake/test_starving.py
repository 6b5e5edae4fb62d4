"""A running ingester beside who sends too much: the honest are answered, the rest is acknowledged and not looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.intake.decision import Result
from edgecloud.intake.quotas.inlet import AT_EASE, STRANGERS_QUEUES
from edgecloud.intake.quotas.rates import BOARD, STRANGERS
from edgecloud.registry import QuotaRow, open_registry
from modelwire.wire.records import Level, Wait
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice, key_of
from tests.edgecloud.intake.test_service import MemoryBroker, Running, receipts, said, until, waiting

pytestmark = pytest.mark.slow("sends thousands of messages to an ingester")


def fleet(path: Path, base: Base) -> tuple[ScriptedDevice, ScriptedDevice]:
    store = make_registry(path, base)
    centre = Centre(store)
    honest, greedy = (centre.meet(ScriptedDevice(base, name=name)) for name in ("pi-7", "pi-8"))
    store.close()
    return honest, greedy


def test_a_flood_of_strangers_and_of_one_device_is_left_out_and_an_honest_update_is_stored(
    tmp_path: Path, base: Base, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fleet.db"
    honest, greedy = fleet(path, base)
    strangers = [ScriptedDevice(base, name=f"nobody-{n}", key=key_of(f"nobody-{n}")) for n in range(50)]
    hellos = [one.hello() for one in strangers]
    same = greedy.update(greedy.train())
    broker = MemoryBroker()
    running = Running(path, broker)
    session = running.start()
    until(lambda: "centre" in broker.sessions)
    for n in range(3000):
        broker.publish(*hellos[n % 50])
        broker.publish(*same)
    broker.publish(*honest.update(honest.train()))
    until(lambda: not waiting(broker))
    until(lambda: (1, Level.VERIFIED) in receipts(broker))
    session.stop()
    results = running.ingester.tally.results
    assert results["stored"] == 2 and running.error is None
    # Who has sent much has few messages waiting, and how fast those are taken hangs on the machine: what comes before that is the least.
    assert results["quarantined"] >= STRANGERS_QUEUES * STRANGERS.messages_at_once * (1 - AT_EASE[0])
    assert sum(results.values()) <= 6001 and BOARD.messages_at_once < 3000
    assert "beyond their senders' turns were left out" in caplog.text


def test_a_device_that_is_asked_to_wait_is_taken_in_when_its_quota_allows_it(tmp_path: Path, base: Base) -> None:
    path = tmp_path / "fleet.db"
    honest, greedy = fleet(path, base)
    store = open_registry(path, synchronous="OFF")
    store.quotas.set("pi-8", QuotaRow(versions_an_hour=1), 1)
    broker = MemoryBroker()
    running = Running(path, broker).start()
    until(lambda: "centre" in broker.sessions)
    sent = [greedy.train() for _ in range(3)]
    for one in sent:
        broker.publish(*greedy.update(one))
    broker.publish(*honest.update(honest.train()))
    until(lambda: running.ingester.tally.results[Result.WAITS.value] == 2)
    assert {r.device for r in said(broker) if isinstance(r, Wait)} == {"pi-8"}
    store.quotas.set("pi-8", QuotaRow(), 2)
    for one in sent[1:]:
        broker.publish(*greedy.update(one))
    until(lambda: (3, Level.VERIFIED) in receipts(broker))
    assert running.stop().error is None
    store.close()
