"""The planted fleet is what it says: worlds that the base does not know, devices that learn theirs, cards that show each bias."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecloud.versions import cards as stored_cards
from modelwire.cards.card import Card, merge
from modelwire.cards.shift import shifts
from tests.planted import BIASES, WORLDS, Plan, cards, fleet, probes, seen

SMALL = Plan(seed=5, per_world=2, rounds=2, steps=10)


def test_each_device_lands_in_the_registry_with_what_it_trained_and_its_card(tmp_path: Path) -> None:
    planted, made, counted = fleet(tmp_path, SMALL), cards(SMALL), cards(SMALL, channels=False)
    with closing(planted.open()) as store:
        lineages = store.lineages.all()
        assert {lineage.device for lineage in lineages} == set(planted.worlds) and len(lineages) == 2 * len(WORLDS)
        for lineage in lineages:
            assert [v.status.value for v in store.versions.of(lineage.id)] == ["verified"] * SMALL.rounds
            sent = [card for _, card in stored_cards.each(store, lineage)]
            assert sent == made[lineage.device]
            assert [replace(card, sketches=()) for card in sent if card] == counted[lineage.device]


def test_a_kept_fleet_is_copied_so_that_one_test_spoils_nothing_for_the_next(tmp_path: Path) -> None:
    first, second = fleet(tmp_path / "a", SMALL), fleet(tmp_path / "b", SMALL)
    first.path.write_bytes(b"")
    with closing(second.open()) as store:
        assert len(store.lineages.all()) == 12


def test_a_planted_bias_shows_in_the_cards_of_its_world_alone() -> None:
    plan = Plan(seed=1, per_world=3)
    own: dict[str, Card] = {device: _merged(of) for device, of in cards(plan).items()}
    for world in BIASES:
        here = _merged([own[device] for device, of in plan.devices.items() if of == world])
        rest = _merged([own[device] for device, of in plan.devices.items() if of == "plain"])
        far = {shift.field for shift in shifts(here, rest) if shift.psi > 0.1 and not shift.field.startswith("channels")}
        assert far == {field for field in WORLDS[world].biases if not field.startswith("channels")}, world


def test_a_fleet_without_bias_has_the_same_devices_and_no_skew() -> None:
    plan = Plan(seed=1, per_world=2, biased=())
    assert plan.devices == Plan(seed=1, per_world=2).devices
    whole = [_merged(of) for of in cards(plan).values()]
    everyone = _merged(whole)
    assert all(shift.psi < 0.1 for one in whole for shift in shifts(one, everyone) if shift.field.startswith("tags"))


def test_probes_carry_the_tags_of_their_world_and_are_the_same_each_time() -> None:
    rows = probes("night", 300)
    assert rows.x.shape == (300, 64) and rows.x.dtype == np.float32 and (rows.tags["light"] == "night").mean() > 0.85
    assert np.array_equal(rows.x, probes("night", 300).x) and not np.array_equal(rows.x, probes("night", 300, seed=1).x)
    assert probes("night", 300).x.mean() < probes("plain", 300).x.mean()


def test_days_differ_when_they_are_streaky() -> None:
    def spread(streaky: float) -> float:
        days = [seen(WORLDS["plain"], np.random.default_rng(day), 300, streaky=streaky) for day in range(20)]
        return float(np.std([(rows.tags["light"] == "night").mean() for rows in days]))

    assert spread(0.2) > 2 * spread(0.0)


def _merged(cards: list[Card]) -> Card:
    out = cards[0]
    for card in cards[1:]:
        out = merge(out, card)
    return out
