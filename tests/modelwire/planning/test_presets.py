"""The presets equal the papers' formulas, written out here once more in exact arithmetic; and the cost model contains them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelwire.errors import BadArgument
from modelwire.planning import (
    Candidate,
    Choice,
    Conditions,
    Figure,
    Prices,
    decide,
    mistique_gamma,
    mistique_keeps,
    mistique_read_s,
    mistique_rerun_s,
    sigmod2020_utility,
)

positive = st.floats(1e-3, 1e6)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 1000), positive)
def test_gamma_is_seconds_saved_a_byte(rerun: float, read: float, queries: int, size: float) -> None:
    exact = (Fraction(rerun) - Fraction(read)) * queries / Fraction(size)
    assert mistique_gamma(rerun, read, queries, size) == pytest.approx(float(exact), rel=1e-9, abs=1e-9)


@given(positive, positive, positive, positive, st.lists(positive, max_size=6), positive)
def test_the_times_are_those_of_the_paper(load: float, n: float, size: float, rho: float, forward: list[float], batch: float) -> None:
    read = Fraction(n) * Fraction(size) / Fraction(rho)
    rerun = Fraction(load) + read + Fraction(n) / Fraction(batch) * sum(map(Fraction, forward))
    assert mistique_read_s(n, size, rho) == pytest.approx(float(read))
    assert mistique_rerun_s(load, n, size, rho, batch, forward) == pytest.approx(float(rerun))


@given(positive, positive, st.integers(0, 1000), positive, st.floats(1e-9, 1), st.integers(1, 120), st.floats(1e-9, 1))
def test_with_neither_bytes_nor_energy_nor_accuracy_priced_the_cost_model_is_mistique(
    rerun: float, read: float, queries: int, size: float, storing: float, months: int, recovering: float
) -> None:
    least = storing * months / recovering
    left, right = Fraction(rerun - read) * queries, Fraction(least) * Fraction(size)
    assume(abs(left - right) > Fraction(1, 10**6) * (abs(left) + abs(right)))  # on the very edge rounding decides
    kept = Candidate(Choice.SNAPSHOT, size, recover_s=read)
    remade = Candidate(Choice.DELTA, size, stored=0.0, recover_s=rerun)
    plan = decide(
        [kept, remade], Conditions(recoveries=Figure(queries), months=Figure(months)), Prices(0, 0, storing, recovering, 0, 0)
    )
    assume(plan.rows[0].total != plan.rows[1].total)
    assert (plan.choice is Choice.SNAPSHOT) == mistique_keeps(rerun, read, queries, size, least)


artifacts = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 100), positive, positive, positive), min_size=1, max_size=12)


@pytest.mark.slow("sums many fractions")
@settings(max_examples=200)
@given(artifacts, st.floats(0, 1))
def test_the_utility_is_that_of_the_paper(rows: list[tuple[float, int, float, float, float]], alpha: float) -> None:
    quality, often, made, loaded, size = (list(column) for column in zip(*rows, strict=True))
    per_byte = [Fraction(f) * Fraction(c) / Fraction(s) for f, c, s in zip(often, made, size, strict=True)]
    total_p, total_r = sum(map(Fraction, quality)), sum(per_byte)
    expected = []
    for p, r, c_r, c_l in zip(quality, per_byte, made, loaded, strict=True):
        share_p = Fraction(p) / total_p if total_p else 0
        share_r = r / total_r if total_r else 0
        expected.append(0.0 if c_l >= c_r else float(Fraction(alpha) * share_p + (1 - Fraction(alpha)) * share_r))
    found = sigmod2020_utility(quality, often, made, loaded, size, alpha)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.slow("decides a thousand times")
@given(artifacts)
def test_without_quality_the_utility_ranks_by_the_storage_price_up_to_which_the_cost_model_keeps(
    rows: list[tuple[float, int, float, float, float]]
) -> None:
    """Loading for nothing, as the ratio of the paper has it: what is kept at a price is what has the utility above a threshold."""
    _, often, made, _, size = (list(column) for column in zip(*rows, strict=True))
    utilities = sigmod2020_utility([0.0] * len(rows), often, made, [0.0] * len(rows), size, 0.0)
    price = sorted(f * c / s for f, c, s in zip(often, made, size, strict=True))[len(rows) // 2]
    assume(0 < price < 1e12)
    kept = []
    for f, c, s in zip(often, made, size, strict=True):
        plan = decide(
            [Candidate(Choice.SNAPSHOT, s), Candidate(Choice.DELTA, s, stored=0.0, recover_s=c)],
            Conditions(recoveries=Figure(f), months=Figure(1)), Prices(0, 0, price * (1 - 1e-9), 1, 0, 0),
        )  # fmt: skip
        kept.append(plan.choice is Choice.SNAPSHOT)
    chosen = [u for u, k in zip(utilities, kept, strict=True) if k]
    left = [u for u, k in zip(utilities, kept, strict=True) if not k]
    assert not chosen or not left or min(chosen) >= max(left) * (1 - 1e-6)


def test_what_takes_no_bytes_is_kept_when_it_saves_anything() -> None:
    assert mistique_gamma(2, 1, 1, 0) == float("inf") and mistique_gamma(1, 2, 1, 0) == -float("inf") and mistique_gamma(1, 1, 5, 0) == 0
    assert mistique_keeps(2, 1, 1, 0, 1e18)


def test_what_no_formula_holds_for_is_refused() -> None:
    for refused in (
        lambda: mistique_gamma(-1, 0, 0, 1), lambda: mistique_keeps(1, 0, 1, 1, float("nan")), lambda: mistique_read_s(1, 1, 0),
        lambda: mistique_rerun_s(1, 1, 1, 1, 0, []), lambda: sigmod2020_utility([1], [1], [1], [1], [0]),
        lambda: sigmod2020_utility([1], [1], [1], [1], []), lambda: sigmod2020_utility([1], [1], [1], [1], [1], 1.5),
        lambda: sigmod2020_utility([float("inf")], [1], [1], [1], [1]), lambda: sigmod2020_utility([1], [1e18], [1e18], [1], [1e-300]),
    ):  # fmt: skip
        with pytest.raises(BadArgument) as caught:
            refused()
        assert caught.value.next_step
