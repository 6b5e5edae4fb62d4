"""`edgecloud devices`: totals, age, order and filters; and --stale, by which a script learns that boards are silent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgecloud.commands.fleet.listing import SILENT
from edgecloud.registry import WitnessRow, open_registry
from tests.edgecloud.centre import Centre, admit
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice, key_of

AT, HOUR = 1_700_000_000, 3600
SCORES = {"accuracy_before": 0.5, "accuracy_after": 0.75, "samples": 8}


@pytest.fixture
def fleet(desk: Desk, base: Base, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """pi-1 spoke 30 hours ago, pi-2 two hours ago, pi-3 now; pi-4 was let in 40 hours ago and never spoke, pi-5 is revoked."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    store = open_registry(desk.folder / "fleet.db", synchronous="OFF")
    centre = Centre(store)
    for n, hours in ((1, 30), (2, 2), (3, 0), (5, 50)):
        centre.now = AT - hours * HOUR
        device = centre.meet(ScriptedDevice(base, name=f"pi-{n}"))
        for _ in range(n):
            centre.deliver(device, device.train(extension={**SCORES, "accuracy_after": 0.7 + n / 100}))
    centre.rebuild()
    admit(store, "pi-4", key_of("pi-4").public, AT - 40 * HOUR)
    store.close()
    desk.ok("devices", "revoke", "pi-5")
    for module in ("listing", "overview"):
        monkeypatch.setattr(f"edgecloud.commands.fleet.{module}.now", lambda: AT)
    return desk


def listed(desk: Desk, *words: str, code: int = 0) -> list[str]:
    """Return the names that a list holds, in its order, as text and as JSON alike."""
    got, out, err = desk.run("devices", *words)
    assert (got, err) == (code, ""), err
    names = [line.split()[0] for line in out.splitlines()[1:] if line.startswith("pi-")]
    got, out, _ = desk.run("devices", *words, "--json")
    assert got == code and [d["device"] for d in json.loads(out)["devices"]] == names
    return names


def test_the_newest_is_first_and_other_orders_are_had(fleet: Desk) -> None:
    assert listed(fleet) == ["pi-3", "pi-2", "pi-1", "pi-5", "pi-4"]
    assert listed(fleet, "--sort", "name") == ["pi-1", "pi-2", "pi-3", "pi-4", "pi-5"]
    for order in ("versions", "bytes", "head", "accuracy"):
        assert listed(fleet, "--sort", order) == ["pi-5", "pi-3", "pi-2", "pi-1", "pi-4"], order
    assert listed(fleet, "--sort", "name", "-n", "2") == ["pi-1", "pi-2"] == listed(fleet, "list", "-n", "2", "--sort", "name")
    assert listed(fleet, "--sort", "name", "-n", "2", "list") == ["pi-1", "pi-2"], "options may stand before the verb"
    assert "3 more: -n 0 shows all" in fleet.ok("devices", "-n", "2")


def test_filters_leave_what_they_name(fleet: Desk) -> None:
    assert listed(fleet, "--name", "pi-[12]") == ["pi-2", "pi-1"] and listed(fleet, "--name", "nobody*") == []
    assert listed(fleet, "--status", "revoked") == ["pi-5"] and "pi-5" not in listed(fleet, "--status", "admitted")
    assert listed(fleet, "--model", "dig*") == ["pi-3", "pi-2", "pi-1", "pi-5"] and listed(fleet, "--model", "x") == []
    assert listed(fleet, "--status", "on-line") == [] and listed(fleet, "--name", "pi-1", "--status", "revoked") == []


def test_a_row_and_the_totals_hold_versions_bytes_accuracy_and_age(fleet: Desk) -> None:
    text = fleet.ok("devices")
    (row,) = [line.split() for line in text.splitlines() if line.startswith("pi-2")]
    assert row[:3] == ["pi-2", "digits", "2"] and "0.720" in row and row[8:11] == ["2", "h", "ago"]
    said: dict[str, Any] = fleet.json("devices")
    models = {d["device"]: m for d in said["devices"] for m in d["models"]}
    assert [models[f"pi-{n}"]["versions"] for n in (1, 2, 3, 5)] == [1, 2, 3, 5] and models["pi-3"]["accuracy"] == 0.73
    assert said["totals"] == {
        "devices": 5, "admitted": 4, "models": 4, "on_line": 0, "versions": 11, "bytes": sum(m["bytes"] for m in models.values())
    }  # fmt: skip
    assert "5 devices, 1 of them revoked; 0 of 4 models on line; 11 versions of" in text and "the last word 0 s ago" in text


def test_stale_lists_the_silent_and_ends_with_a_code_for_scripts(fleet: Desk) -> None:
    assert listed(fleet, "--stale", "24h", code=SILENT) == ["pi-1", "pi-4"], "and no revoked one"
    assert listed(fleet, "--stale", "1h", code=SILENT) == ["pi-2", "pi-1", "pi-4"]
    assert listed(fleet, "--stale", "35h", code=SILENT) == ["pi-4"], "who never spoke is silent since it was let in"
    assert listed(fleet, "--stale", "3d") == []
    assert fleet.run("devices", "--stale", "24")[0] == 2, "a number is no time"


def test_seen_is_the_last_message_of_any_kind_and_no_word_that_the_broker_kept(
    desk: Desk, base: Base, centre: Centre, device: ScriptedDevice
) -> None:
    def seen() -> int | None:
        (one,) = centre.store.lineages.standings("pi-7")
        return one.seen_at

    sent = device.train()
    for step, what in enumerate(
        [lambda: centre.deliver(device, sent), lambda: centre.deliver(device, sent), lambda: centre.take(device.response(1, True, "done"))],
        1,
    ):
        centre.now += 100
        what()
        assert seen() == centre.now, f"message {step}"
    centre.now += 100
    centre.take(device.presence(True, 5))
    assert seen() == (spoke := centre.now)
    centre.now += 100
    centre.take(device.presence(True, 5))
    assert seen() == spoke, "the broker gives a retained word again at every start of the ingester"
    centre.take(device.presence(False, 5))
    assert seen() == centre.now


def test_a_log_that_is_long_is_not_followed_for_a_list_and_claims_are_told_all_the_same(
    fleet: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.ok("claim", "new", "--count", "3", "--expires", "3650d")
    told = fleet.json("devices")["preauthorised"]
    monkeypatch.setattr("edgecloud.commands.fleet.claim.LONG", 3)
    assert fleet.json("devices")["preauthorised"] == told and len(told) == 1  # type: ignore[arg-type]


def test_what_is_said_besides_the_rows_is_cut_as_they_are(fleet: Desk, base: Base) -> None:
    store = open_registry(fleet.folder / "fleet.db", synchronous="OFF")
    centre = Centre(store)
    for n in (6, 7, 8):
        centre.take(ScriptedDevice(base, name=f"pi-{n}", fleet_id=store.identity.id).hello())
    for n in (1, 2, 3):
        store.losses.testify(WitnessRow(f"pi-{n}", 900 + n, bytes(32), b"", AT), 4)
    store.close()
    text = fleet.ok("devices", "-n", "2")
    assert text.count("has seen entry") == 2 and "and of 1 more: -n 0 shows all" in text
    assert "pi-7" in text and "pi-8" not in text and "1 more: -n 0 shows all" in text.partition("keys that wait:")[2]
    text = fleet.ok("devices")
    assert text.count("has seen entry") == 3 and "pi-8" in text and "shows all" not in text
    assert len(fleet.json("devices", "-n", "2")["waiting"]) == 3  # type: ignore[arg-type]
