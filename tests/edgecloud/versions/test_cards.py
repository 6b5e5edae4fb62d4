"""Data cards at the centre: read strictly, never in an update's way, merged over lineages and the fleet, and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgecloud
from edgecloud.registry import open_registry
from modelwire.cards.card import Card, card_of, merge
from modelwire.cards.shift import shifts
from modelwire.cards.sketch import Channel
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice

MEAN = Channel("x.mean")


def seen(seed: int, n: int, *, classes: int = 3, sky: float = 0.0, hours: tuple[int, int] = (6, 20), channel: Channel = MEAN) -> Card:
    """Return the card of n samples. sky: the mean of x.mean."""
    rng = np.random.default_rng(seed)
    return card_of(
        n, labels=rng.integers(0, classes, n), hours=rng.integers(*hours, n), tags={"weather": rng.choice(["sun", "rain"], n).tolist()},
        channels=[channel], values=rng.normal(sky, 1, (n, 1)), judged=20, loss_before=0.5, loss_after=0.25,
    )  # fmt: skip


@pytest.fixture
def fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], base: Base
) -> tuple[Desk, Centre, dict[str, ScriptedDevice]]:
    """Three devices, alike but for pi-3, each with three versions that carry a card and one that carries none."""
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, capsys)
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    centre = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=1_700_000_000)
    devices = {}
    for d, name in enumerate(("pi-1", "pi-2", "pi-3")):
        devices[name] = device = centre.meet(ScriptedDevice(base, name=name))
        for n in range(3):
            odd = {"classes": 2, "sky": 2.0} if name == "pi-3" else {}
            centre.deliver(device, device.train(extension={"card": seen(10 * d + n, 200, **odd).encode(), "samples": 9}))  # type: ignore[arg-type]
        centre.deliver(device, device.train())
    centre.rebuild()
    return desk, centre, devices


def test_the_card_of_a_model_is_the_sum_of_its_versions_and_each_has_its_own(fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]]) -> None:
    desk, _, _ = fleet
    one = desk.json("card", "pi-1@2")
    assert one["samples"] == 200 and one["updates"] == 1 and one["name"] == "pi-1/digits@2"
    whole = desk.json("card", "pi-1")
    expected = merge(merge(seen(0, 200), seen(1, 200)), seen(2, 200))
    assert whole["samples"] == 600 and whole["updates"] == 3 and whole["devices"] == ["pi-1"]
    assert whole["labels"] == {str(k): n for k, n in expected.labels.items()} and whole["hours"] == list(expected.hours)
    assert whole["channels"][0]["mean"] == pytest.approx(expected.sketches[0].mean)
    assert (whole["loss_before"], whole["loss_after"], whole["judged"]) == (0.5, 0.25, 60)
    text = desk.ok("card", "pi-1/digits")
    assert "600 samples, told by 3 updates" in text and "weather" in text and "x.mean" in text and "0.5000 -> 0.2500" in text
    with edgecloud.open(desk.folder / "fleet.db") as registry:
        assert registry.device("pi-1").version(2).card == seen(1, 200)
        assert registry.device("pi-1").version(4).card is None


def test_facts_hold_for_the_cards_after_the_one_that_told_them(fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]]) -> None:
    desk, centre, devices = fleet
    device = devices["pi-1"]
    for runtime in ("litert 1", "", "", "litert 2", ""):
        told = card_of(10, tags={"runtime": [runtime] * 10} if runtime else None)
        centre.deliver(device, device.train(extension={"card": told.encode()}))
    assert desk.json("card", "pi-1")["tags"]["runtime"] == {"litert 1": 30, "litert 2": 20}, "and the first three were told none"
    assert desk.json("card", "--fleet")["tags"]["runtime"] == {"litert 1": 30, "litert 2": 20}
    assert "runtime" not in desk.json("card", "pi-1@3")["tags"]
    for version, runtime in ((5, 1), (6, 1), (7, 1), (8, 2), (9, 2)):
        assert desk.json("card", f"pi-1@{version}")["tags"]["runtime"] == {f"litert {runtime}": 10}
        assert desk.json("show", f"pi-1@{version}")["card"]["tags"]["runtime"] == {f"litert {runtime}": 10}
    with edgecloud.open(desk.folder / "fleet.db") as registry:
        assert registry.device("pi-1").version(9).card.tags["runtime"] == {"litert 2": 10}


def test_the_card_of_the_fleet_is_the_sum_of_all(fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]]) -> None:
    desk, _, _ = fleet
    found = desk.json("card", "--fleet")
    assert found["samples"] == 1800 and found["devices"] == ["pi-1", "pi-2", "pi-3"] and found["updates"] == 9
    assert desk.json("card", "--fleet", "--model", "digits") == found


def test_a_device_that_sees_something_else_stands_out_and_the_others_do_not(fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]]) -> None:
    desk, _, _ = fleet
    odd = {f["field"]: f for f in desk.json("card", "pi-3", "--against", "fleet")["fields"]}
    assert set(odd) == {"labels", "hours", "tags.weather", "channels.x.mean"}
    assert odd["labels"]["words"] == odd["channels.x.mean"]["words"] == "another population"
    assert odd["labels"]["psi"] > 0.25 and odd["hours"]["words"].startswith("alike")
    even = {f["field"]: f for f in desk.json("card", "pi-1", "--against", "pi-2")["fields"]}
    assert all(f["words"].startswith("alike") for f in even.values())
    document = desk.json("card", "pi-3", "--against", "fleet")
    assert document["against_samples"] == 1200 and document["against"] == "2 other devices of the fleet"
    text = desk.ok("card", "pi-3", "--against", "fleet")
    assert "another population" in text and "mean 2" in text and "2: 0%, there 3" in text


def test_a_card_that_can_not_be_read_is_noted_and_the_update_counts(
    fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]], base: Base
) -> None:
    desk, centre, devices = fleet
    device = devices["pi-1"]
    bad = [b"", b"\xa0", seen(1, 9).encode() + b"\0", "text", 7, ["a"], b"x" * 9000, seen(1, 9).encode().replace(b"rain", b"r\x1bin")]
    for value in bad:
        outcome = centre.deliver(device, device.train(extension={"card": value}))[0]
        assert outcome.result.value == "stored" and "data card can't be read" in outcome.reason
    centre.rebuild()
    assert set(centre.statuses(device).values()) == {"verified"}
    document = desk.json("show", "pi-1@5")
    assert document["card"] is None and "can't be read" in document["annotations"][0]["text"]
    whole = desk.json("card", "pi-1")
    assert whole["samples"] == 600 and whole["unreadable"] == len(bad)
    assert f"{len(bad)} cards could not be read" in desk.ok("card", "pi-1")
    assert "1 could not be read" in str(desk.error("card", "pi-1@5")["message"])


def test_refused_versions_are_not_in_a_card(fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]]) -> None:
    desk, centre, devices = fleet
    device = devices["pi-2"]
    centre.deliver(device, device.train(extension={"card": seen(99, 500).encode()}, fingerprint=(1, 2)))
    assert desk.json("card", "pi-2")["samples"] == 1100, "stored, and not proven yet"
    centre.rebuild()
    assert desk.json("card", "pi-2")["samples"] == 600


def test_show_tells_of_the_card_in_a_line(fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]]) -> None:
    desk, _, _ = fleet
    assert "of 200 samples: labels, hours, weather, x.mean; edgecloud card pi-1/digits@1" in desk.ok("show", "pi-1@1")
    document = desk.json("show", "pi-1@1")
    assert document["card"]["samples"] == 200 and document["metrics"] == {"samples": 9}
    assert "data card" not in desk.ok("show", "pi-1@4")


def test_channels_on_different_axes_are_left_out_and_named(fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]], base: Base) -> None:
    desk, centre, _ = fleet
    device = centre.meet(ScriptedDevice(base, name="pi-4"))
    centre.deliver(device, device.train(extension={"card": seen(7, 100, channel=Channel("x.mean", 1.0, 3)).encode()}))
    found = desk.json("card", "--fleet")
    assert found["left_out"] == ["x.mean"] and found["samples"] == 1900 and found["channels"][0]["count"] == 1800
    assert "different axes" in desk.ok("card", "--fleet")
    assert "channels.x.mean" not in {f["field"] for f in desk.json("card", "pi-4", "--against", "pi-1")["fields"]}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("card",), 15), (("card", "pi-1", "--fleet"), 2), (("card", "--fleet", "--against", "pi-1"), 2), (("card", "pi-1@4"), 15),
        (("card", "pi-1@base"), 15), (("card", "pi-9"), 54), (("card", "pi-1@77"), 54), (("card", "--fleet", "--model", "x"), 54),
        (("card", "pi-1", "--model", "digits"), 2),
    ],
)  # fmt: skip
def test_what_no_card_is_of_is_said(fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]], arguments: tuple[str, ...], code: int) -> None:
    desk, _, _ = fleet
    assert desk.error(*arguments)["code"] == code


def test_a_model_that_no_other_device_has_is_not_taken_for_one_without_cards(
    fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]], base: Base
) -> None:
    desk, centre, _ = fleet
    device = centre.meet(ScriptedDevice(base, name="pi-4", model="motion"))
    centre.deliver(device, device.train(extension={"card": seen(1, 50).encode()}))
    said = desk.error("card", "pi-4", "--against", "fleet")
    assert "no other device of the fleet has sent motion" in str(said["message"]) and "privacy" not in str(said["hint"])
    assert "50 samples, told by 1 update of 1 device\n" in desk.ok("card", "pi-4")
    assert "beside new samples alone" in str(desk.error("card", "pi-1@4")["hint"]), "the other updates of this device carried one"


def test_a_fleet_of_several_models_asks_which(fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]], tmp_path: Path) -> None:
    desk, centre, _ = fleet
    centre.store.lineages.ensure("pi-1", "motion")
    assert desk.error("card", "--fleet")["code"] == 58
    assert desk.json("card", "--fleet", "--model", "digits")["samples"] == 1800


def test_chance_is_told_from_a_shift() -> None:
    """Small samples of one population differ by more than 0.25 often; by more than `chance` rarely."""
    rng = np.random.default_rng(0)
    above = beyond = 0
    for _ in range(300):
        a, b = (card_of(60, labels=rng.integers(0, 10, 60)) for _ in range(2))
        (shift,) = shifts(a, b)
        above += shift.psi > 0.25
        beyond += shift.beyond_chance
    assert above > 100 and beyond < 20
    (shift,) = shifts(card_of(60, labels=rng.integers(0, 10, 60)), card_of(60, labels=rng.integers(0, 5, 60)))
    assert shift.beyond_chance and shift.words == "another population"
    assert shifts(Card(5), Card(6)) == ()


def test_named_entries_of_a_card_are_shown_and_merged(fleet: tuple[Desk, Centre, dict[str, ScriptedDevice]]) -> None:
    desk, centre, devices = fleet
    device = devices["pi-1"]
    for night in (0.5, 1.0):
        card = card_of(10, entries={"accuracy/night": (4, night), "accuracy/none": (0, 0.0)})
        centre.deliver(device, device.train(extension={"card": card.encode()}))
    centre.rebuild()
    assert desk.json("card", "pi-1@5")["entries"] == {"accuracy/night": {"of": 4, "mean": 0.5}, "accuracy/none": {"of": 0, "mean": None}}
    merged = desk.json("card", "pi-1")["entries"]
    assert isinstance(merged, dict) and merged["accuracy/night"] == {"of": 8, "mean": 0.75}
    assert ["accuracy/night", "0.7500 on 8"] in [line.split(None, 1) for line in desk.ok("card", "pi-1").splitlines()]
