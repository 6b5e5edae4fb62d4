"""Data cards merge exactly in any order, stay small, say what the data is like, and let nothing out that the settings keep."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire import errors
from modelwire.cards.card import Card, card_of, merge, parse_card, stability
from modelwire.cards.privacy import FIELDS, Privacy, _Draws, leaving
from modelwire.cards.sketch import BUCKETS, Channel, Sketch, merged, sketch_of
from modelwire.wire import cbor

CHANNEL = Channel("brightness")
WIDE = Channel("vibration", centre=0.25, scale=-3, bound=6)
VALUES = st.one_of(
    st.floats(-10, 10), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, 1e-9, -1e-300, 1e300, 0.25])
)
LISTS = st.lists(VALUES, max_size=60)


def sketch(values: Any, channel: Channel = CHANNEL, most: int = BUCKETS) -> Sketch:
    return sketch_of(channel, np.array(values, np.float64), most)


# Sketches


@given(st.lists(LISTS, min_size=1, max_size=6), st.sampled_from([CHANNEL, WIDE]), st.sampled_from([2, 5, BUCKETS]), st.randoms())
def test_sketches_merge_to_what_all_values_at_once_give_in_any_order(parts: Any, channel: Channel, most: int, random: Any) -> None:
    whole = sketch([x for part in parts for x in part], channel, most)
    left = [sketch(part, channel, most) for part in parts]
    while len(left) > 1:
        a, b = (left.pop(random.randrange(len(left))) for _ in range(2))
        left.append(merged(a, b, most))
    assert left[0] == whole
    assert len(whole.buckets) <= most


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=200))
def test_mean_and_variance_are_those_of_the_values(values: list[float]) -> None:
    s = sketch(values)
    assert s.mean == pytest.approx(np.mean(values), abs=2**-16)
    assert s.variance == pytest.approx(np.var(values), abs=1e-3 * (1 + np.abs(values).max()))


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.75, 0.95])
def test_quantiles_lie_within_a_bucket_of_the_true_ones(share: float) -> None:
    rng = np.random.default_rng(0)
    for values in (rng.standard_normal(3000), rng.exponential(3, 3000), rng.uniform(-5, 1, 3000), rng.standard_cauchy(3000)):
        s = sketch(values)
        width = 2.0 ** (s.level - 16)
        assert abs(s.quantile(share) - np.quantile(values, share)) <= width
        assert len(s.buckets) > BUCKETS / 2


def test_an_outlier_does_not_blur_the_rest() -> None:
    values = np.random.default_rng(0).standard_normal(3000)
    assert sketch([*values, 1e30, -1e5]).level <= sketch(values).level + 1


def test_a_channel_s_centre_and_scale_are_where_its_buckets_lie() -> None:
    pascal = np.random.default_rng(1).normal(101325, 2e-3, 2000)
    there, far = (sketch(pascal, Channel("pressure", centre, -9)) for centre in (101325.0, 0.0))
    assert len({there.quantile(q) for q in (0.1, 0.3, 0.5, 0.7, 0.9)}) >= 4
    assert there.mean == pytest.approx(pascal.mean(), abs=1e-7)
    assert there.variance == pytest.approx(pascal.var(), rel=1e-3)
    assert len(far.buckets) == 1  # cut to the bound of 2^20 scales


def test_numbers_that_are_none_are_counted_apart_and_the_bound_cuts_the_sums() -> None:
    s = sketch([1.0, math.nan, math.inf, -math.inf, 1e30], Channel("x", bound=3))
    assert (s.count, s.missing) == (2, 3)
    assert s.mean == 4.5  # (1 + 8) / 2
    empty = sketch([])
    assert math.isnan(empty.mean) and math.isnan(empty.variance) and math.isnan(empty.quantile(0.5))


def test_sketches_of_other_channels_do_not_merge() -> None:
    with pytest.raises(errors.Malformed):
        merged(sketch([1.0]), sketch([1.0], replace(CHANNEL, centre=1.0)))


@pytest.mark.parametrize("wrong", [{"centre": math.nan}, {"scale": 61}, {"bound": 41}, {"bound": -1}, {"name": "A B"}])
def test_a_channel_out_of_range_cannot_be_made(wrong: Any) -> None:
    with pytest.raises(errors.Malformed):
        Channel(**{"name": "x", **wrong})


# Cards


ENTRIES = ("accuracy/night", "accuracy/day", "Größe in °C", "a", "~" * 64)


@st.composite
def cards(draw: st.DrawFn) -> Card:
    n = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    channels = draw(st.sampled_from([(), (CHANNEL,), (WIDE, CHANNEL)]))
    tags = {"weather": rng.choice(["rain", "snow", "sun"], n).tolist(), "board": ["pi-4"]}
    return card_of(
        n,
        labels=rng.integers(0, 5, n) if draw(st.booleans()) else None,
        hours=rng.integers(0, 24, n) if draw(st.booleans()) else None,
        tags=tags if draw(st.booleans()) else None,
        channels=channels,
        values=rng.standard_normal((n, len(channels))) * 3 if channels else None,
        judged=draw(st.integers(0, 9)),
        loss_before=draw(st.floats(0, 9)),
        loss_after=draw(st.floats(0, 9)),
        entries=draw(st.dictionaries(st.sampled_from(ENTRIES), st.tuples(st.integers(0, 9), st.floats(-9, 9)))),
    )


@given(st.lists(cards(), min_size=2, max_size=5), st.randoms())
def test_merging_is_associative_and_commutative_to_the_byte(several: list[Card], random: Any) -> None:
    one = reduce(merge, several)
    other = [*several]
    random.shuffle(other)
    middle = len(other) // 2
    halves = [reduce(merge, half, Card()) for half in (other[:middle], other[middle:])]
    assert merge(*halves) == one
    assert merge(*halves).encode() == one.encode()


@given(cards())
def test_a_card_reads_back_as_it_was(card: Card) -> None:
    if not card.judged:
        card = replace(card, loss_before=0, loss_after=0)
    assert parse_card(card.encode()) == card


@pytest.mark.parametrize(
    "card",
    [
        Card(), Card(3, hours=(0,) * 24), Card(3, hours=(0,) * 23 + (3,)), Card(9, {0: 1, 4095: 8}), Card(9, {7: 0, 9: 9}),
        card_of(3, channels=[Channel("t", -0.0)], values=np.array([[1e-300], [-9.0], [1e9]])),
        card_of(3, channels=[Channel("t", -7.0, 1), Channel("u", 2.0**60), Channel("v", 0.1, -60, 40)], values=np.full((3, 3), 1e30)),
        card_of(1, channels=[Channel("t", bound=40)], values=np.array([[-1e30]])),
    ],
)  # fmt: skip
def test_cards_at_the_ends_of_what_they_hold_read_back(card: Card) -> None:
    assert parse_card(card.encode()) == card


def typical() -> Card:
    """Return a day of a camera: 500 samples, 10 classes, two tags, four channels."""
    rng = np.random.default_rng(3)
    n = 500
    hours = np.clip(rng.normal(14, 4, n), 0, 23).astype(int)
    tags = {"weather": rng.choice(["sun", "rain", "fog"], n).tolist(), "board": ["pi-4"], "runtime": ["litert 2.3.0"]}
    channels = [Channel(name) for name in ("blur", "brightness", "contrast", "motion")]
    values = rng.standard_normal((n, 4)) * [1, 0.2, 3, 0.1]
    return card_of(
        n, labels=rng.integers(0, 10, n), hours=hours, tags=tags, channels=channels, values=values,
        judged=80, loss_before=0.4, loss_after=0.3,
    )  # fmt: skip


def test_a_typical_card_is_a_few_hundred_bytes_also_when_a_thousand_were_merged() -> None:
    card = typical()
    assert len(card.encode()) < 350
    assert len(replace(card, sketches=()).encode()) < 150
    assert len(reduce(merge, [card] * 1000).encode()) < 550
    assert card.losses == pytest.approx((0.4, 0.3), abs=1e-5)


def test_a_card_counts_what_it_was_given() -> None:
    card = card_of(4, labels=np.array([1, 0, 1, 7]), hours=np.array([0, 23, 23, 5]), tags={"sky": ["a", "b", "a", "a"], "board": ["pi-5"]})
    assert card.labels == {0: 1, 1: 2, 7: 1}
    assert (card.hours[0], card.hours[5], card.hours[23], sum(card.hours)) == (1, 1, 2, 4)
    assert card.tags == {"sky": {"a": 3, "b": 1}, "board": {"pi-5": 1}}
    assert all(math.isnan(loss) for loss in card.losses)


@pytest.mark.parametrize(
    ("given_", "error"),
    [
        ({"labels": np.array([0, 1])}, errors.ShapeMismatch), ({"labels": np.array([0.0, 1, 2])}, errors.ShapeMismatch),
        ({"labels": np.array([0, -1, 2])}, errors.Malformed), ({"hours": np.array([0, 24, 2])}, errors.Malformed),
        ({"tags": {"sky": ["a", "b"]}}, errors.ShapeMismatch), ({"tags": {"Sky": ["a"]}}, errors.Malformed),
        ({"tags": {"sky": ["a\n"]}}, errors.Malformed), ({"tags": {"sky": ["x" * 41]}}, errors.Malformed),
        ({"channels": [CHANNEL]}, errors.ShapeMismatch), ({"values": np.zeros((3, 1))}, errors.ShapeMismatch),
        ({"channels": [CHANNEL] * 2, "values": np.zeros((3, 2))}, errors.Malformed), ({"loss_after": math.nan}, errors.Malformed),
        ({"judged": -1}, errors.Malformed), ({"entries": {"a": (-1, 0.5)}}, errors.Malformed),
        ({"entries": {"a": (1, math.nan)}}, errors.Malformed), ({"entries": {"a": (0, math.inf)}}, errors.Malformed),
        ({"entries": {"a": (1, 2.0**30)}}, errors.Malformed), ({"entries": {"a": (2**40, 2.0**20)}}, errors.Malformed),
        ({"entries": {"": (1, 0.5)}}, errors.Malformed), ({"entries": {"a\t": (1, 0.5)}}, errors.Malformed),
    ],
)  # fmt: skip
def test_what_does_not_fit_makes_no_card(given_: Any, error: Any) -> None:
    with pytest.raises(error):
        card_of(3, **given_)


def test_named_entries_are_means_that_merge_as_if_all_had_been_judged_at_once() -> None:
    card = card_of(9, entries={"accuracy/night": (4, 0.75), "accuracy/day": (5, -1.5), "none": (0, 0.0)})
    assert card.entries == {"accuracy/day": (5, -7864320), "accuracy/night": (4, 3 << 20), "none": (0, 0)}
    assert (card.entry("accuracy/night"), card.entry("accuracy/day")) == (0.75, -1.5) and math.isnan(card.entry("none"))
    other = card_of(1, entries={"accuracy/night": (12, 0.25), "new": (1, 3.0)})
    both = merge(card, other)
    assert both == merge(other, card)
    assert both.entries["accuracy/night"] == (16, 6 << 20) and both.entry("accuracy/night") == 0.375
    assert both.entries["accuracy/day"] == card.entries["accuracy/day"] and both.entries["new"] == other.entries["new"]
    assert parse_card(both.encode()) == both
    with pytest.raises(KeyError):
        both.entry("accuracy/noon")


def test_the_last_of_eight_fields_is_a_map_of_counts_and_sums() -> None:
    assert Card().encode() == bytes.fromhex("8803008080a08080a0")
    assert Card(entries={"b": (1, -2), "a": (3, 2**61)}).encode()[-19:] == bytes.fromhex("a26161" "82031b2000000000000000" "6162" "820121")
    ends = Card(entries={"x" * 64: (2**53 - 1, 2**62 - 1), "y": (0, 1 - 2**62)})
    assert parse_card(ends.encode()) == ends
    full = Card(entries={f"e{k:02}": (k, -k) for k in range(64)})
    assert parse_card(full.encode()) == full


def test_entries_that_no_reader_takes_do_not_leave() -> None:
    for entries in ({"a": (2**53, 0)}, {"a": (-1, 0)}, {"a": (1, 2**62)}, {"": (1, 1)}, {"a" * 65: (1, 1)}):
        with pytest.raises(errors.Malformed):
            Card(entries=entries).encode()
    large = Card(entries={"a": (1, 2**61)})
    with pytest.raises(errors.Malformed):
        merge(large, large).encode()


def test_no_named_entry_leaves_by_the_settings_of_privacy() -> None:
    card = card_of(9, entries={"accuracy/night": (4, 0.75)})
    assert leaving(card, Privacy(), seed=0) == replace(card, entries={})


def test_stability_is_zero_for_equal_shares_and_grows_with_the_difference() -> None:
    day, double, night = {8: 50, 12: 100, 16: 50}, {8: 100, 12: 200, 16: 100}, {20: 80, 23: 120}
    assert stability(day, day) == 0
    assert stability(day, double) < 0.001
    assert stability(day, {8: 60, 12: 90, 16: 50}) < 0.05
    assert stability(day, night) > 2
    assert stability(day, night) == pytest.approx(stability(night, day))
    assert math.isnan(stability(day, {}))


# What a reader refuses


PLACES = ("card", "samples", "labels", "hours", "tags", "channels", "loss", "entries", "more")


def spoilt(**changed: Any) -> bytes:
    value: Any = cbor.decode(typical().encode())
    for name, change in changed.items():
        at = PLACES.index(name)
        value[at : at + 1] = [] if change is None else [change(value[at]) if callable(change) else change]
    return cbor.encode(value)


def channel_with(place: int, value: Any) -> Any:
    return lambda channels: [[*channels[0][:place], value, *channels[0][place + 1 :]], *channels[1:]]


@pytest.mark.parametrize(
    "changed",
    [
        {"card": 1}, {"card": True}, {"card": None}, {"samples": None}, {"samples": -1}, {"samples": 1.0}, {"more": 1}, {"labels": [1]},
        {"labels": [1, 2, -1]}, {"labels": [1, -1, 2]}, {"labels": [1, 2, -1, -1, 2]}, {"labels": [5000, 1]}, {"labels": [-1, 1]},
        {"labels": [4095, 1, 1]}, {"labels": [0, 1, -(2**63), 1]}, {"labels": [0, 2**53]}, {"labels": [0, True]}, {"labels": {}},
        {"hours": [0, *[1] * 25]}, {"hours": [23, 1, 1]}, {"hours": [0, 1, 0]}, {"hours": [5, 0]}, {"hours": {}}, {"hours": [0, 1.0]},
        {"tags": []}, {"tags": {"A": {}}}, {"tags": {"a": 1}},
        {"tags": {"a": {"": 1}}}, {"tags": {"a": {"b": -1}}}, {"loss": [0, 0, 0]}, {"loss": [1, 2]}, {"loss": [1, 2, 3.0]},
        {"loss": [-1, 0, 0]}, {"loss": {}},
        {"loss": [1, 2**63 - 1, 0]}, {"channels": lambda c: [c[1], c[0]]}, {"channels": lambda c: [c[0], c[0]]}, {"channels": [1]},
        {"channels": lambda c: [c[0][:-1]]}, {"channels": lambda c: [[*c[0], 0, 0]]}, {"channels": lambda c: [[*c[0], 0, 0, 20]]},
        {"channels": lambda c: [[*c[0], 1.0, 0, 20]]}, {"channels": lambda c: [[*c[0], 1, 99, 20]]},
        {"channels": lambda c: [[*c[0], 1, 0, True]]},
        {"channels": channel_with(1, -1)}, {"channels": channel_with(2, True)}, {"channels": channel_with(3, "1")},
        {"channels": channel_with(3, b"\0")}, {"channels": channel_with(3, 2**62)}, {"channels": channel_with(3, 2**40)},
        {"channels": channel_with(4, -1)}, {"channels": channel_with(4, b"\x7f" * 25)},
        {"channels": channel_with(5, 58)}, {"channels": channel_with(6, [5, 1, -4])}, {"channels": channel_with(6, [2**50, 1])},
        {"channels": channel_with(0, "A B")},
        {"entries": None}, {"entries": []}, {"entries": 0}, {"entries": {"": [1, 2]}}, {"entries": {"a" * 65: [1, 2]}},
        {"entries": {"a\n": [1, 2]}}, {"entries": {"a": 1}}, {"entries": {"a": {}}}, {"entries": {"a": [1]}}, {"entries": {"a": [1, 2, 3]}},
        {"entries": {"a": [-1, 0]}}, {"entries": {"a": [2**53, 0]}}, {"entries": {"a": [1.0, 0]}}, {"entries": {"a": [True, 0]}},
        {"entries": {"a": [1, 2.0]}}, {"entries": {"a": [1, None]}}, {"entries": {"a": [1, 2**62]}}, {"entries": {"a": [1, -(2**62)]}},
    ],
)  # fmt: skip
def test_a_card_with_a_wrong_field_is_refused(changed: Any) -> None:
    with pytest.raises(errors.Malformed):
        parse_card(spoilt(**changed))


def test_cards_that_are_too_large_neither_leave_nor_are_read() -> None:
    with pytest.raises(errors.TooLarge):
        parse_card(bytes(9000))
    with pytest.raises(errors.TooLarge):
        card_of(65, tags={"place": [str(k) for k in range(65)]}).encode()
    with pytest.raises(errors.TooLarge):
        card_of(1, tags={f"t{k}": ["x"] for k in range(17)}).encode()
    with pytest.raises(errors.TooLarge):
        card_of(1, channels=[Channel(f"c{k}") for k in range(33)], values=np.zeros((1, 33))).encode()
    with pytest.raises(errors.TooLarge):
        card_of(1, entries={f"e{k}": (1, 0.5) for k in range(65)}).encode()
    with pytest.raises(errors.TooLarge):
        parse_card(spoilt(entries={f"e{k}": [1, 2] for k in range(65)}))


# Privacy


def test_only_the_fields_that_may_leave_do() -> None:
    card = typical()
    assert leaving(card, Privacy(), 0) == card
    kept = leaving(card, Privacy(leave=("labels", "tags.weather", "channels.blur")), 0)
    assert kept.labels == card.labels
    assert list(kept.tags) == ["weather"]
    assert [s.channel.name for s in kept.sketches] == ["blur"]
    assert (kept.hours, kept.judged, kept.loss_before, kept.loss_after) == ((), 0, 0, 0)
    assert leaving(card, Privacy(leave=()), 0) == Card(card.samples)


@given(cards(), st.integers(1, 10))
def test_no_cell_below_the_least_count_leaves(card: Card, least: int) -> None:
    kept = leaving(card, Privacy(least=least), 0)
    cells = [kept.samples, *kept.labels.values(), *kept.hours, *(n for values in kept.tags.values() for n in values.values()), kept.judged]
    cells += [n for s in kept.sketches for n in (s.count, s.missing, *s.buckets.values())]
    assert all(n == 0 or n >= least for n in cells)
    assert parse_card(kept.encode()) is not None


@given(cards(), st.floats(0.01, 10), st.integers(0, 2**64 - 1))
def test_a_card_with_noise_is_still_a_card_and_the_same_for_the_same_seed(card: Card, epsilon: float, seed: int) -> None:
    privacy = Privacy(epsilon=epsilon, least=2)
    kept = leaving(card, privacy, seed)
    assert leaving(card, privacy, seed) == kept
    if not kept.judged:
        kept = replace(kept, loss_before=0, loss_after=0)
    assert parse_card(kept.encode()) == kept


def test_noise_has_the_spread_that_epsilon_says() -> None:
    draws = _Draws(1)
    for epsilon, sensitivity in ((0.5, 1), (1.0, 1), (0.1, 4)):
        seen = np.array([draws.laplace(epsilon, sensitivity) for _ in range(20_000)])
        p = math.exp(-epsilon / sensitivity)
        assert abs(seen.mean()) < 5 * seen.std() / math.sqrt(len(seen))
        assert seen.var() == pytest.approx(2 * p / (1 - p) ** 2, rel=0.08)
        for k in (0, 1, 2):
            assert (seen == k).mean() == pytest.approx((1 - p) / (1 + p) * p**k, abs=0.012)


def test_noise_hides_one_sample_and_not_the_shape_of_many() -> None:
    card = card_of(5000, labels=np.repeat([0, 1], [4000, 1000]))
    noisy = leaving(card, Privacy(epsilon=1.0), 12)
    assert noisy.labels != card.labels
    assert stability(card.labels, noisy.labels) < 1e-4


@pytest.mark.parametrize("wrong", [{"leave": ("label",)}, {"leave": ("labels.0",)}, {"least": -1}, {"epsilon": 0.0}, {"epsilon": math.nan}])
def test_settings_that_say_nothing_sensible_are_refused(wrong: Any) -> None:
    with pytest.raises(errors.Malformed):
        Privacy(**wrong)
    assert set(FIELDS) == {"labels", "hours", "tags", "channels", "loss"}
