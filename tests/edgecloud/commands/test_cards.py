"""`edgecloud cards`: all devices' data beside each other, who sees another world, what their models lack, and who has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecloud.registry import EvaluationRow, open_registry
from tests.edgecloud.bias.fleets import Seen
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice

NIGHT = Seen(light={"day": 0.0, "dusk": 0.03, "night": 0.97})
PROBES = bytes(range(32))


def fleet(desk: Desk, base: Base, worlds: dict[str, Seen | None]) -> None:
    """Make a registry of devices with the cards of their worlds; None: updates without a card."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    store = open_registry(desk.folder / "fleet.db", synchronous="OFF")
    centre, rng = Centre(store, now=1_700_000_000), np.random.default_rng(1)
    for name, world in worlds.items():
        device = centre.meet(ScriptedDevice(base, name=name))
        for card in world.told(rng) if world else [None]:
            said: dict[str, Any] = {"card": card.encode()} if card else {}
            centre.deliver(device, device.train(extension={"samples": 9, **said}))
    centre.rebuild()
    store.close()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], base: Base) -> Desk:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, capsys)
    fleet(desk, base, {**{f"pi-{n}": Seen() for n in range(1, 12)}, "owl": NIGHT, "mute": None})
    return desk


def test_the_device_that_sees_the_night_is_named_with_what_it_lacks_and_who_has_it(desk: Desk) -> None:
    said: Any = desk.json("cards", "--biased")
    assert said["biased"] == ["owl"] and said["silent"] == 1 and said["devices"] == 12 and said["false_alarms"] == 0.05
    first = said["findings"][0]
    assert (first["device"], first["field"]) in (("owl", "tags.light"), ("owl", "hours")) and first["p"] < 0.001 and first["biased"]
    against: Any = desk.json("card", "owl", "--against", "fleet")
    assert first["psi"] == pytest.approx(next(one["psi"] for one in against["fields"] if one["field"] == first["field"]))
    lack = next(one for one in said["lacks"] if one["context"] == "light=day")
    assert lack["device"] == "owl" and lack["model"] == "owl/digits@4" and lack["share"] == 0 and lack["fleet_share"] > 0.5
    assert lack["own"] is None and len(lack["seen_by"]) == 3 and lack["seen_by"][0]["samples"] > 400
    text = desk.ok("cards", "--biased")
    assert "owl" in text and "light=day" in text and "at most 5% of fleets" in text and "nothing was scored" in text
    assert "pi-3" not in text.partition("What they hardly")[0] and all(len(line) <= 200 for line in text.splitlines())


def test_a_field_is_shown_of_all_devices_the_farthest_first(desk: Desk) -> None:
    said: Any = desk.json("cards", "--biased", "--field", "tags.weather")
    assert {one["field"] for one in said["findings"]} == {"tags.weather"} and len(said["findings"]) == 12 == said["tests"]
    assert [one["psi"] for one in said["findings"]] == sorted((one["psi"] for one in said["findings"]), reverse=True)
    text = desk.ok("cards", "--biased", "--field", "tags.weather", "--count", "3")
    assert "9 more" in text and "alike" in text


def test_scores_that_were_kept_say_how_a_model_does_where_it_never_was_and_whose_does_better(desk: Desk) -> None:
    store = open_registry(desk.folder / "fleet.db", synchronous="OFF")
    heads = {}
    for lineage in store.lineages.all():
        heads[lineage.device] = store.versions.of(lineage.id)[-1]
    base = heads["owl"].base
    scores: list[tuple[int | bytes, int]] = [(heads["owl"].id, 41), (heads["pi-1"].id, 70), (heads["pi-2"].id, 93), (base, 60)]
    for subject, right in scores:
        for context, n in (("", 200), ("light=day", 100)):
            store.evaluations.put([EvaluationRow(subject, PROBES, context, n, right, None, loss=1.0, broken=0, milliseconds=1.0, at=5)])
    store.close()
    said: Any = desk.json("cards", "--biased", "--field", "tags.light")
    lack = next(one for one in said["lacks"] if one["context"] == "light=day")
    assert (lack["own"]["score"], lack["base"]["score"], lack["best"]["score"]) == (0.41, 0.6, 0.93)
    assert lack["best"]["name"] == "pi-2/digits@4" and lack["base"]["name"] == "digits" and lack["own"]["probes"] == PROBES.hex()
    text = desk.ok("cards", "--biased", "--field", "tags.light")
    assert "0.41: owl" in text and "0.93: pi-2@4" in text and "nothing was scored" not in text
    assert "Scores are of 100 probe rows each" in text


def test_all_devices_are_listed_with_what_they_tell(desk: Desk) -> None:
    said: Any = desk.json("cards")
    assert len(said["devices"]) == 12 and said["devices"][0]["cards"] == 4
    assert "tags.light" in said["devices"][0]["fields"] and "12 devices, 48 cards, 9600 samples" in desk.ok("cards")


def test_what_cannot_be_asked_is_named(desk: Desk, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "labels" in str(desk.error("cards", "--biased", "--field", "tags.snow")["hint"])
    assert desk.error("cards", "--biased", "--model", "nobody")["error"] == "UnknownVersion"
    assert "--biased" in desk.run("cards", "--field", "labels")[2]
    lone = tmp_path / "lone"
    lone.mkdir()
    monkeypatch.chdir(lone)
    other = Desk(lone, desk._capsys)
    fleet(other, base, {"pi-1": Seen(), "pi-2": None})
    lone_list: Any = other.json("cards")  # which is no comparison
    assert [one["device"] for one in lone_list["devices"]] == ["pi-1"] and lone_list["silent"] == 1
    said = other.error("cards", "--biased")
    assert said["error"] == "BadArgument" and "1 of 2 devices" in str(said["message"]) and "privacy.card" in str(said["hint"])
