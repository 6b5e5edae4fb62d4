"""`edgecloud freeze` and `unfreeze`: who is left out stays out until somebody says otherwise, with who and why."""

from __future__ import annotations

from edgecloud.registry.rollout_rows import RolloutRow
from tests.edgecloud.desk import Desk

from .fleet import fleet, offer, variant


def test_a_frozen_device_is_left_out_until_it_is_taken_in_again(desk: Desk) -> None:
    fleet(desk, 3).close()
    assert desk.json("freeze")["frozen"] == [] and "no device is frozen" in desk.ok("freeze")
    said = desk.json("freeze", "pi-02", "--reason", "on the bench", "--by", "anna")
    assert (said["device"], said["model"], said["reason"], said["by"], said["under_way"]) == ("pi-02", None, "on the bench", "anna", [])
    assert desk.json("freeze", "pi-02", "--reason", "still there")["reason"] == "still there"
    desk.ok("freeze", "pi-03/digits")
    assert [(one["device"], one["model"]) for one in desk.json("freeze")["frozen"]] == [("pi-02", None), ("pi-03", "digits")]  # type: ignore[attr-defined]
    assert "still there" in desk.ok("freeze")
    assert desk.json("unfreeze", "pi-02")["was_frozen"] is True and desk.json("unfreeze", "pi-02")["was_frozen"] is False
    other = desk.json("unfreeze", "pi-03")
    assert (other["was_frozen"], other["still_frozen"]) == (False, True)
    assert "unfreeze pi-03/MODEL" in desk.ok("unfreeze", "pi-03")
    assert desk.json("unfreeze", "pi-03/digits")["was_frozen"] is True


def test_what_is_under_way_is_told(desk: Desk) -> None:
    store = fleet(desk, 3)
    variant(desk)
    desk.ok("deploy", "tall", "--all", "--phase", "1", "--phase", "all", "--name", "spring")
    row = store.rollouts.named("spring")
    assert isinstance(row, RolloutRow)
    offer(store, row, ["pi-01"])
    assert desk.json("freeze", "pi-01")["under_way"] == ["spring"]
    assert "goes on" in desk.ok("freeze", "pi-01")
    store.close()


def test_names_that_are_none_are_told(desk: Desk) -> None:
    fleet(desk, 1).close()
    for command in ("freeze", "unfreeze"):
        for name, error in (
            ("pi-99", "UnknownDevice"), ("pi-01/faces", "UnknownVersion"), ("pi-01@1", "BadArgument"), ("../x", "Malformed"),
        ):  # fmt: skip
            assert desk.error(command, name)["error"] == error, (command, name)
    assert desk.error("freeze", "--reason", "why")["error"] == "Usage" and desk.error("unfreeze")["error"] == "Usage"
    assert desk.json("freeze")["frozen"] == []
