"""What a board says of itself in its hello is shown to the operator, and moves nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from edgecloud.intake.decision import Result
from modelwire.wire import cbor
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import ScriptedDevice

SMALL = {"troubles": [["board-smaller", "budget.max_ram is 1024 MiB, and half of the 487 MiB of this board is 244 MiB"]]}


def said(centre: Centre) -> list[tuple[str, str, str, int, bool]]:
    return [(one.device, one.model, one.text, one.times, one.open) for one in centre.store.losses.alarms() if one.kind == "board"]


def test_a_trouble_is_an_alarm_once_and_anew_only_with_other_words(centre: Centre, device: ScriptedDevice) -> None:
    centre.meet(device)
    assert said(centre) == []
    for _ in range(3):
        assert centre.take(device.hello(more=SMALL)).result is Result.WELCOMED
    text = "board-smaller: budget.max_ram is 1024 MiB, and half of the 487 MiB of this board is 244 MiB"
    assert said(centre) == [(device.name, "", text, 1, True)]
    assert centre.store.losses.acknowledge(device.name, centre.now) == 1
    centre.take(device.hello(more=SMALL))
    assert said(centre) == [(device.name, "", text, 1, False)], "every hello would bring it back"
    centre.take(device.hello(more={"troubles": [["board-smaller", "less still"]]}))
    assert [(words, seen) for _, _, words, _, seen in said(centre)] == [("board-smaller: less still", True)]
    centre.deliver(device, device.train())
    assert centre.statuses(device) == {1: "stored"} or centre.statuses(device) == {1: "verified"}


@pytest.mark.parametrize(
    "value",
    [
        [], "board-smaller", [["board-smaller"]], [["board-smaller", 7]], [["Board", "x"]], [["", "x"]], [["a-", "x"]], [["a" * 33, "x"]],
        [["a", "x" * 201]], [["a", "x\n"]], [["a", "\x1b[2J"]], [["a", "x"]] * 9, {"a": "x"}, 1, [["a", "x"], "b"],
    ],
)  # fmt: skip
def test_another_form_counts_for_nothing_and_refuses_no_hello(centre: Centre, device: ScriptedDevice, value: Any) -> None:
    centre.meet(device)
    more: dict[str, cbor.Value] = {"troubles": value}
    assert centre.take(device.hello(more=more)).result is Result.WELCOMED
    assert said(centre) == []


def test_a_stranger_says_nothing(centre: Centre, device: ScriptedDevice) -> None:
    stranger = ScriptedDevice(device.base, name="pi-9")
    stranger.fleet_id = device.fleet_id
    assert centre.take(stranger.hello(more=SMALL)).result is Result.QUARANTINED
    assert said(centre) == []
