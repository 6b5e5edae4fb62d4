"""A session that goes to another client of the same name: named, and after a few times left to it for a while."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.link.transport import Connected, Lost
from edgecommon.reaching import SESSION
from tests import broker as brokers
from tests.edgeagent.link.test_mqtt import needs_mosquitto, opened, quick, wait
from tests.taking_over import TakingOver


@pytest.mark.parametrize("says", [True, False])
def test_a_newcomer_names_it_and_steps_back(tmp_path: Path, says: bool) -> None:
    broker = TakingOver(says=says)
    with opened(quick(broker.url, protocol="5"), tmp_path) as device:
        lost = [wait(device, Lost) for _ in range(3 if says else 4)]
        assert all(isinstance(one, Lost) for one in lost)
        *first, last = [one for one in lost if isinstance(one, Lost)]
        assert [one.ousted for one in first] == [""] * len(first)
        assert last.ousted.startswith("another client took its session 3 times" if says else "the broker ended 4 connections in a row")
        assert ("session taken over: another client has connected with the id pi-7" in last.reason) == says
        assert last.step == SESSION and last.refused
        count = broker.connections
        assert device.poll(1.0) is None and broker.connections == count, "it waits"
    broker.close()


@needs_mosquitto
def test_a_link_that_is_left_to_another_is_lost_and_not_tried_at_once(tmp_path: Path) -> None:
    with brokers.mosquitto(tmp_path) as broker, opened(quick(broker.url), tmp_path) as device:
        wait(device, Connected)
        device.stand_aside("it is for another")
        lost = wait(device, Lost)
        assert isinstance(lost, Lost) and (lost.reason, lost.ousted) == ("it is for another", "")
        assert device.poll(1.0) is None, "it waits"
