"""Figures say where they come from; running means follow what is measured and take nothing else."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire.errors import BadArgument
from modelwire.planning import Average, Figure, Origin, Rate

NO_NUMBERS = [-1, -1e-300, math.nan, math.inf, -math.inf, 1e19, True, "1", None]


def test_a_figure_says_where_it_comes_from() -> None:
    assert Figure(3.0, Origin.MEASURED, "41 receipts").source == "measured: 41 receipts"
    assert Figure(3.0).source == "default"


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_of_0_or_more_is_refused_everywhere(value: float) -> None:
    for refused in (
        lambda: Figure(value), lambda: Average(value), lambda: Average().with_value(value), lambda: Rate().with_run(value, 1),
        lambda: Rate().with_run(1, value), lambda: Rate(value, 1, 1),
    ):  # fmt: skip
        with pytest.raises(BadArgument) as caught:
            refused()
        assert caught.value.next_step


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=60))
def test_an_average_stays_between_the_least_and_the_most_that_was_measured(values: list[float]) -> None:
    average = Average()
    for value in values:
        average = average.with_value(value)
    assert average.count == len(values)
    assert min(values) * (1 - 1e-12) <= average.value <= max(values) * (1 + 1e-12)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_the_first_five_measurements_count_alike(values: list[int]) -> None:
    average = Average()
    for value in values:
        average = average.with_value(value)
    assert average.value == pytest.approx(float(Fraction(sum(values), len(values))))


def test_an_average_follows_a_change_within_some_twenty_measurements() -> None:
    average = Average(10.0, 1000)
    for _ in range(20):
        average = average.with_value(100.0)
    assert 98 < average.value <= 100


def test_a_rate_goes_by_the_time_that_runs_took_and_not_by_their_number() -> None:
    rate = Rate()
    for _ in range(2):
        rate = rate.with_run(1_000, 1.0)  # short messages, all delay
        rate = rate.with_run(1_000_000, 10.0)
    assert rate.value == pytest.approx(2_002_000 / 22)


def test_a_run_of_no_length_tells_nothing() -> None:
    assert Rate().with_run(1e6, 0.0) == Rate()
    assert Rate().value == 0.0


def test_what_was_never_measured_is_what_is_known_otherwise() -> None:
    otherwise = Figure(5.0, Origin.PROFILE, "wifi")
    assert Rate().figure("receipts", otherwise) is otherwise
    assert Average().figure("rounds", None) is None
    measured = Rate().with_run(10, 2).figure("receipts", otherwise)
    assert measured is not None and measured.value == 5.0 and measured.source == "measured: 1 receipts"


@given(st.lists(st.tuples(st.floats(0, 1e18), st.floats(0, 1e18)), max_size=20))
def test_a_rate_is_always_a_figure(runs: list[tuple[float, float]]) -> None:
    rate = Rate()
    for amount, seconds in runs:
        rate = rate.with_run(amount, seconds)
    assert 0 <= Figure(rate.value).value <= 1e18
