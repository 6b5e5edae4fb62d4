"""`edgecloud policy` and `edgecloud compact`, as an operator types them."""

from __future__ import annotations

import pytest

from edgecloud.registry import open_registry
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice


@pytest.fixture
def met(desk: Desk, base: Base) -> Desk:
    """A board with nine verified versions."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    store = open_registry(desk.folder / "fleet.db", synchronous="OFF")
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, *(device.train() for _ in range(9)))
    centre.rebuild()
    store.close()
    return desk


def test_the_policy_is_two_states_until_another_is_set_and_is_kept_as_it_was_said(met: Desk) -> None:
    assert "nobody has set one" in met.ok("policy")
    said = met.json("policy", "--recover-within", "3 states")
    assert (said["number"], said["recover_within"], said["keep"]) == (1, "3 states", "all")
    assert met.json("policy", "--recover-within", "3 states")["number"] == 1  # it is that already
    assert met.json("policy", "--recover-within", "60 s")["number"] == 2
    assert met.json("policy")["recover_within"] == "60 s"


def test_a_promise_that_cannot_be_kept_says_the_least_and_changes_nothing(met: Desk) -> None:
    for text, least in (("0.5 states", "1 state"), ("0.000001 ms", " ms"), ("soon", "2 states")):
        said = met.error("policy", "--recover-within", text)
        assert said["error"] == "BadArgument" and least in str(said["hint"])
    assert met.json("policy")["number"] == 0


def test_compacting_keeps_the_head_and_says_what_it_did(met: Desk) -> None:
    said = met.json("compact")
    assert said["wrong"] == said["damaged"] == [] and said["states"] and said["recover_within"] == "2 states"
    assert met.json("policy")["states"] == said["states"]
    assert met.json("compact")["kept"] == 0
    assert met.json("verify", "--all")["wrong"] == []
    before = met.json("materialise", "pi-7@4", "-o", str(met.folder / "a.tflite"))
    assert before["name"] == "pi-7/digits@4"


@pytest.mark.parametrize("damage", ["bytes = zeroblob(size)", "size = 1", "size = 999999999999"])
def test_a_damaged_state_is_named_by_the_command_and_made_again(met: Desk, damage: str) -> None:
    met.ok("compact")
    size = met.json("stats")["state_bytes"]
    store = open_registry(met.folder / "fleet.db", synchronous="OFF")
    trigger = store.database.one("SELECT sql FROM sqlite_master WHERE name = 'state_no_update'")[0]
    store.database.run("DROP TRIGGER state_no_update")
    store.database.run(f"UPDATE state SET {damage}")
    store.database.run(trigger)
    store.close()
    assert met.json("verify", "--all")["wrong"] == []  # no version is lost by it
    said = met.json("compact")
    assert said["damaged"] and said["kept"] == said["states"]
    assert met.json("compact")["damaged"] == []
    assert met.json("stats")["state_bytes"] == size


def test_a_promise_that_can_no_longer_be_kept_is_named_with_the_least_possible(met: Desk) -> None:
    met.ok("compact")
    least = str(met.error("policy", "--recover-within", "0.0001 ms")["hint"]).split('"')[1]
    assert met.json("policy", "--recover-within", least)["unkept"] is None  # what is said to be possible is
    assert met.json("compact")["unkept"] is None
    store = open_registry(met.folder / "fleet.db", synchronous="OFF")
    store.policies.set_rates(dict.fromkeys(store.policies.rates(), 1.0), 1)  # as after a move to a slow machine
    store.close()
    code, out, err = met.run("compact")
    assert code == 15 and "do not keep the promise" in out and "the least is" in err
    assert "the least is" in met.ok("policy") and "can't be kept" in str(met.json("policy")["unkept"])
