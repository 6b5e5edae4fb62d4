"""Who sees a skewed world: planted biases come first, chance alone names nobody, and what can't be judged is said."""

from __future__ import annotations

from dataclasses import replace
from math import comb, isnan

import numpy as np
import pytest

from edgecloud.bias.chances import above_by_chance, beta_below, widening
from edgecloud.bias.skew import FALSE_ALARMS, judged
from modelwire.cards.card import merge
from modelwire.cards.privacy import Privacy
from modelwire.cards.shift import shifts
from tests.edgecloud.bias.fleets import Seen, alarmed, judge, told

PLAIN = Seen(alike=0.05)
NIGHT = replace(PLAIN, light={"day": 0.02, "dusk": 0.03, "night": 0.95})
RAIN = replace(PLAIN, weather={"clear": 0.04, "fog": 0.02, "rain": 0.94})
FEW_CLASSES = replace(PLAIN, labels={0: 4, 1: 4, 2: 4, 3: 1, 4: 1, 5: 1, 6: 1})
BRIGHT = replace(PLAIN, levels={3: 0.1, 4: 0.3, 5: 0.4, 6: 0.2})


@pytest.mark.parametrize("x, n, y, m", [(5, 20, 10, 400), (1, 60, 0, 5000), (90, 100, 800, 1000), (3, 3, 2, 9), (40, 200, 20, 2000)])
def test_with_whole_numbers_the_chance_is_that_of_fishers_exact_test(x: int, n: int, y: int, m: int) -> None:
    both = x + y
    exact = sum(comb(n, k) * comb(m, both - k) for k in range(x, min(n, both) + 1)) / comb(n + m, both)
    assert float(above_by_chance(x, n, y, m)) == pytest.approx(exact, rel=1e-3)


def test_days_that_wander_make_rare_things_pile_up_more_often() -> None:
    alone, clumped = (float(above_by_chance(8, 20, 1000, 10000, clumped=c)) for c in (False, True))
    drawn = np.random.default_rng(1).beta(1.9, 17.1, 400_000)  # a share of a tenth, whose variance is that of 20 samples
    assert alone < clumped and clumped == pytest.approx((drawn >= 0.4).mean(), rel=0.1)


def test_the_incomplete_beta_function_and_students_quantile_have_their_values() -> None:
    assert float(beta_below(0.3, 2.0, 5.0)) == pytest.approx(0.579825, abs=1e-9)  # 1 - P(at most 1 of 6), each with chance 0.3
    assert widening(0.025, 10) == pytest.approx((2.228139 / 1.959964) ** 2, rel=1e-5)
    assert widening(1e-4, 1e6) == pytest.approx(1, abs=1e-4) and widening(1e-4, 39.0) == pytest.approx(widening(1e-4, 40.0), rel=0.02)


def test_each_planted_bias_is_named_in_its_field_and_nobody_else_is() -> None:
    planted = {"tags.light": NIGHT, "tags.weather": RAIN, "labels": FEW_CLASSES, "channels.brightness": BRIGHT}
    found = judge(3, [PLAIN] * 16 + [one for one in planted.values() for _ in range(2)])
    for rank, field in enumerate(planted):
        named = {one.device for one in found.biased if one.field == field}
        assert named == {f"car-{16 + 2 * rank + n:03}" for n in range(2)}, field
        assert {one.device for one in found.findings if one.field == field and one.beyond} == named
    night = next(one for one in found.biased if one.field == "tags.light")
    assert night.event == "night" and night.share > 0.85 and night.fleet_share < 0.45 and "day" in night.lacks and night.p < 0.001
    assert night.words == "another population" and any(one.field == "hours" for one in found.biased if one.device == night.device)
    classes = next(one for one in found.biased if one.field == "labels")
    assert classes.lacks and set(classes.lacks) <= {"7", "8", "9"}
    assert {one.device for one in found.biased} == {f"car-{n:03}" for n in range(16, 24)}


def test_the_measure_is_that_of_card_against_fleet() -> None:
    cards = {one.device: one for one in told(4, [NIGHT, *[PLAIN] * 5])[0]}
    drawn = np.random.default_rng(4)
    by_device = [one.told(drawn) for one in [NIGHT, *[PLAIN] * 5]]
    mine, theirs = by_device[0][0], by_device[1][0]
    for card in by_device[0][1:]:
        mine = merge(mine, card)
    for card in [*by_device[1][1:], *(card for of in by_device[2:] for card in of)]:
        theirs = merge(theirs, card)
    expected = {shift.field: shift.psi for shift in shifts(mine, theirs)}
    found = judge(4, [NIGHT, *[PLAIN] * 5])
    assert len(cards) == 6 and expected.keys() == {one.field for one in found.findings}
    for one in found.findings:
        if one.device == "car-000":
            assert one.psi == pytest.approx(expected[one.field], rel=1e-9)


@pytest.mark.parametrize("alike, cards", [(0.0, 4), (0.1, 4), (0.4, 6), (0.1, 1)])
def test_chance_alone_names_devices_no_more_often_than_is_said(alike: float, cards: int) -> None:
    """Where days differ and a device tells of one alone, nothing says that days differ: such a fleet is left out here, and said."""
    same = replace(PLAIN, alike=alike if cards > 1 else 0.0, cards=cards, samples=60)
    fleets = 12
    most = next(k for k in range(fleets) if sum(comb(fleets, n) * FALSE_ALARMS**n * 0.95 ** (fleets - n) for n in range(k + 1)) > 0.99)
    assert alarmed(fleets, lambda seed: [same] * 30) <= most


def test_devices_that_tell_little_are_not_named_for_it_and_strong_bias_is_still_seen() -> None:
    few = replace(NIGHT, cards=1, samples=3)
    found = judge(5, [*[PLAIN] * 20, few])
    assert not found.biased
    more = replace(NIGHT, cards=3, samples=60)
    assert {one.device for one in judge(5, [*[PLAIN] * 20, more]).biased} == {"car-020"}


def test_small_cells_that_privacy_keeps_back_are_no_bias() -> None:
    """Cards of 20 samples hide all but the most frequent cells; those of 400 hide none."""
    quiet, loud = replace(PLAIN, samples=20, cards=12, privacy=Privacy(least=5)), replace(PLAIN, samples=400)
    found = judge(6, [*[quiet] * 10, *[loud] * 10])
    assert not found.biased
    apart = max(one.psi for one in found.findings if one.device == "car-000")
    assert apart > 0.25, "as told they look like another population"


def test_noise_on_counts_is_no_bias_and_hides_no_night() -> None:
    noisy = replace(PLAIN, samples=60, privacy=Privacy(epsilon=0.5, least=0))
    assert not judge(7, [*[noisy] * 8, *[replace(PLAIN, samples=60)] * 16]).biased
    night = replace(NIGHT, samples=300, privacy=Privacy(epsilon=2.0, least=5))
    assert "car-024" in {one.device for one in judge(7, [*[noisy] * 8, *[PLAIN] * 16, night]).biased}


def test_of_a_fleet_of_which_half_sees_the_night_nobody_is_the_odd_one_and_that_is_said() -> None:
    found = judge(8, [PLAIN, NIGHT] * 12)
    assert not [one for one in found.biased if one.field in ("tags.light", "hours")]
    assert found.common["tags.light"] > 20


def test_of_two_devices_each_is_unlike_the_other() -> None:
    found = judge(9, [replace(PLAIN, cards=6), replace(NIGHT, cards=6)])
    assert {one.device for one in found.biased if one.field == "tags.light"} == {"car-000", "car-001"}
    assert not judge(9, [replace(PLAIN, cards=6)] * 2).biased


def test_a_device_that_tells_of_a_million_times_as_many_samples_is_not_the_fleet() -> None:
    loud = replace(NIGHT, samples=200_000_000)
    found = judge(13, [*[PLAIN] * 20, loud])
    assert {one.device for one in found.biased} == {"car-020"}


def test_a_tag_that_each_device_has_one_value_of_is_a_trait() -> None:
    by_region = [replace(PLAIN, weather={"clear": 1.0}), replace(PLAIN, weather={"rain": 1.0})]
    found = judge(10, by_region * 6)
    assert found.traits == ("tags.weather",) and not found.biased
    assert all(isnan(one.p) and not one.beyond for one in found.findings if one.field == "tags.weather")


def test_what_all_devices_lack_is_no_bias_and_one_that_alone_tells_of_a_field_is_held_against_nobody() -> None:
    dark = replace(PLAIN, light={"night": 1.0})
    found = judge(11, [dark] * 10)
    assert not found.biased and all(one.psi == 0 for one in found.findings if one.field == "tags.light")
    some, axes = told(11, [PLAIN] * 4)
    some[2].fields["tags.snow"] = some[2].fields["tags.light"]
    assert judged(some, axes).alone == ("tags.snow",)


def test_the_order_of_the_devices_changes_nothing() -> None:
    some, axes = told(12, [PLAIN] * 10 + [NIGHT, RAIN])
    one, other = judged(some, axes), judged(some[::-1], axes)
    assert [(f.device, f.field) for f in one.biased] == [(f.device, f.field) for f in other.biased]
