"""Exact intervals, weighted ones, and the paired test: known values, and that they hold as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.feasibility import intervals


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(8, 10, 0.4439, 0.9748), (0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (1, 1, 0.025, 1.0), (81, 263, 0.2527, 0.3676)],
)
def test_clopper_and_pearson_as_in_tables(right: int, n: int, low: float, high: float) -> None:
    assert intervals.clopper_pearson(right, n) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 400), st.data())
def test_the_interval_is_where_binomial_tails_reach_the_level(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    low, high = intervals.clopper_pearson(right, n)

    def tail(p: float, counts: range) -> float:
        return math.fsum(math.comb(n, k) * math.exp(k * math.log(p) + (n - k) * math.log1p(-p)) for k in counts)

    assert low <= right / n <= high
    if right:
        assert tail(low, range(right, n + 1)) == pytest.approx(0.025, rel=1e-6)
    if right < n:
        assert tail(high, range(right + 1)) == pytest.approx(0.025, rel=1e-6)


def test_equal_weights_are_no_weights_and_uneven_ones_tell_less() -> None:
    right = np.arange(40) % 4 > 0
    even, twice = intervals.of_share(right, np.ones(40)), intervals.of_share(right, np.full(40, 2.0))
    assert even == twice
    assert (even.low, even.high) == intervals.clopper_pearson(30, 40)
    uneven = intervals.of_share(right, np.where(np.arange(40) < 20, 3.0, 1.0))
    assert 0 < uneven.size <= 80**2 / (20 * 9 + 20)
    assert uneven.high - uneven.low > even.high - even.low


def test_no_rows_say_nothing() -> None:
    none = intervals.of_share(np.zeros(0, bool), np.zeros(0))
    assert math.isnan(none.value) and (none.low, none.high, none.rows) == (0.0, 1.0, 0)
    assert intervals.of_mean(np.zeros(1), np.ones(1)).high == math.inf
    for same in (0.0, 1e-30, 3e38):  # nothing varies, or so little or much that a power of it is no number
        found = intervals.of_mean(np.full(9, same), np.ones(9))
        assert found.value == found.low == found.high == pytest.approx(same)
    tiny = intervals.of_mean(np.array([0.0, 1e-140] * 9), np.ones(18))
    assert 0 < tiny.low < tiny.value < tiny.high < 1e-139


def test_weighted_intervals_hold_as_often_as_they_say() -> None:
    rng, held = np.random.default_rng(1), 0
    for _ in range(600):
        weights = rng.exponential(size=120)
        held += (found := intervals.of_share(rng.random(120) < 0.8, weights)).low <= 0.8 <= found.high
    assert held / 600 >= 0.94


@pytest.mark.parametrize("n", [15, 40, 200])
def test_the_interval_of_a_mean_holds_as_often_as_it_says_of_skewed_values_too(n: int) -> None:
    rng, held = np.random.default_rng(2), {"even": 0, "skewed": 0}
    for _ in range(800):
        for name, values, true in (("even", rng.normal(size=n), 0.0), ("skewed", rng.normal(size=n) ** 2, 1.0)):
            held[name] += (found := intervals.of_mean(values, np.ones(n))).low <= true <= found.high
    assert held["even"] / 800 >= 0.93 and held["skewed"] / 800 >= 0.92  # by Student's alone: 0.88 of 15 skewed ones


def test_weights_that_go_with_the_values_widen_the_interval_of_their_mean() -> None:
    rng, held = np.random.default_rng(4), 0
    for _ in range(200):
        far = rng.random(80) < 0.3
        found = intervals.of_mean(np.where(far, rng.normal(5, 2, 80), rng.normal(0, 0.2, 80)), np.where(far, 4.0, 1.0))
        held += found.low <= 4 * 0.3 * 5 / (4 * 0.3 + 0.7) <= found.high
    assert held / 200 >= 0.92


@pytest.mark.parametrize(("freedom", "bound"), [(1, 12.7062), (7, 2.36462), (29, 2.04523), (1e6, 1.95997)])
def test_students_quantile_as_in_tables(freedom: float, bound: float) -> None:
    assert intervals.student_quantile(0.95, freedom) == pytest.approx(bound, rel=1e-4)


def test_the_paired_test_calls_equals_better_no_more_often_than_it_says() -> None:
    rng, called = np.random.default_rng(3), 0
    for trial in range(200):
        a, b = ((rng.random(150) < 0.7).astype(float) for _ in range(2))
        called += intervals.better(a, b, np.ones(150), bytes([trial])) < 0.05
    assert called / 200 <= 0.09


def test_the_paired_test_is_the_sign_test_where_all_weigh_the_same() -> None:
    a, b = np.zeros(100), np.zeros(100)
    a[:9], b[9:11] = 1, 1
    exact = sum(math.comb(11, k) for k in range(9, 12)) / 2**11  # as McNemar's exact test, one-sided
    assert intervals.better(a, b, np.ones(100), b"seed") == pytest.approx(exact, abs=0.01)
    assert intervals.better(b, a, np.ones(100), b"seed") == 1.0
    assert intervals.better(a, a, np.ones(100), b"seed") == 1.0
