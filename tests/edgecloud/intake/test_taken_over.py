"""An ingester whose session goes to another client of its name again and again ends, says why, and leaves the alarm in its registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecloud.intake.mqtt import MqttTransport, parse_broker
from edgecloud.intake.service import Ingester
from edgecloud.registry import open_registry
from modelwire.errors import SessionTaken
from tests.edgecloud.centre import make_registry
from tests.edgecloud.device import FLEET, Base
from tests.keys import RECEIPT
from tests.taking_over import TakingOver


@pytest.mark.slow("connects a few times, a second apart", seconds=4)
def test_an_ingester_that_came_later_ends_with_its_name(tmp_path: Path, base: Base, caplog: pytest.LogCaptureFixture) -> None:
    make_registry(tmp_path / "fleet.db", base).close()
    broker = TakingOver(says=True)
    transport = MqttTransport(parse_broker(broker.url), fleet=FLEET, client_id="edgecloud.orchard")
    said = r"two clients use the name edgecloud\.orchard: another client took its session 3 times"
    with pytest.raises(SessionTaken, match=said) as found:
        Ingester(tmp_path / "fleet.db", RECEIPT, transport).run()
    assert found.value.code == 33 and broker.connections == 3
    store = open_registry(tmp_path / "fleet.db", readonly=True)
    (alarm,) = store.losses.alarms(only_open=True)
    store.close()
    assert (alarm.device, alarm.model, alarm.kind, alarm.times) == ("", "", "session", 3)
    assert caplog.text.count("session taken over") == 1, "said once, not each second"
    broker.close()
