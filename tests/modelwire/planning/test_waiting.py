"""Waiting wins where a wake-up is dear until it is worth it, never on a link that is always on, and never beyond wait_most."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire.errors import BadArgument
from modelwire.planning import (
    PROFILES,
    Bar,
    Candidate,
    Choice,
    Conditions,
    Figure,
    Forecast,
    Prices,
    SendPlan,
    coalesced_bytes,
    decide,
    profile_of,
)
from tests.evidence.centre import planner as evidence

from . import drawn

DAYS = 86400.0


def at(
    link: str, updates: int, *, interval: float, size: float = 1000.0, prices: Prices | None = None, awake: bool = False,
    oldest: float | None = None, wait_most: float = 30 * DAYS, window: float | None = None, gap: float | None = None,
) -> SendPlan:  # fmt: skip
    """Plan with so many updates of `size` bytes waiting, on a net whose full update takes 200,000."""
    forms = [
        Candidate(Choice.DELTA, coalesced_bytes(size, 200_000, updates), 0.003, size, 200_000, recover_s=0.1),
        Candidate(Choice.SNAPSHOT, 160_000, recover_s=0.05),
    ]
    forecast = Forecast(
        Figure(interval), updates, (updates - 1) * interval if oldest is None else oldest, wait_most,
        None if window is None else Figure(window), None if gap is None else Figure(gap),
    )  # fmt: skip
    return decide(forms, Conditions(profile_of(link), awake=awake, forecast=forecast), prices or Prices())


def first_sent(link: str, most: int = 300, **facts: float) -> int:
    return next(n for n in range(1, most) if at(link, n, **facts).choice is not Choice.WAIT)  # type: ignore[arg-type]


@pytest.mark.slow("plans some 200 times", seconds=4)
@pytest.mark.parametrize("size", [400.0, 1000.0, 3000.0])
@pytest.mark.parametrize("interval", [600.0, 3600.0, 14_400.0])
def test_on_sleeping_lte_kilobytes_wait_until_the_wake_up_is_worth_it(size: float, interval: float) -> None:
    prices = Prices()
    per_second = prices.per_hour_waiting / 3600

    def an_update(n: int) -> float:  # the classic lot: the wake-up and what else an upload costs once, shared, and what waiting costs
        a_byte = prices.per_byte + prices.per_byte_month * 12 + prices.per_joule * 5.6e-6
        delta = coalesced_bytes(size, 200_000, n) * a_byte + n * prices.per_second * 0.1
        snapshot = 160_000 * a_byte + n * prices.per_second * 0.05
        once = prices.per_joule * 12.6 + min(delta, snapshot)
        return once / n + per_second * interval * (n - 1) / 2

    best = min(range(1, 300), key=an_update)
    sent = first_sent("lte-sleeping", size=size, interval=interval)
    assert best >= 5 and an_update(sent) <= 1.001 * an_update(best)
    for more in (sent + 1, sent + 5, 3 * sent):
        assert at("lte-sleeping", more, size=size, interval=interval).choice is not Choice.WAIT


@pytest.mark.slow("draws many conditions")
@given(drawn.conditions, st.lists(drawn.candidates, min_size=1, max_size=4), drawn.prices, st.sampled_from(["ethernet", "lte"]))
def test_on_a_link_that_is_always_on_nothing_that_fits_ever_waits(
    conditions: Conditions, candidates: list[Candidate], prices: Prices, link: str
) -> None:
    plan = decide(candidates, replace(conditions, link=profile_of(link)), prices)
    assert (plan.choice is Choice.WAIT) == all(row.barred is not Bar.NONE for row in plan.rows[:-1])


@pytest.mark.parametrize("link", sorted(PROFILES))
@pytest.mark.parametrize("interval", [60.0, DAYS])
def test_a_megabyte_goes_at_once_where_waiting_is_dear(link: str, interval: float) -> None:
    assert at(link, 1, interval=interval, size=1e5, prices=Prices(per_hour_waiting=10)).choice is not Choice.WAIT


@pytest.mark.slow("draws many conditions")
@settings(max_examples=60, deadline=None)
@given(drawn.conditions, st.lists(drawn.candidates, min_size=1, max_size=3), drawn.prices, st.floats(0, 1e18), st.floats(1, 2))
def test_nothing_that_fits_waits_longer_than_it_may(
    conditions: Conditions, candidates: list[Candidate], prices: Prices, most: float, times: float
) -> None:
    forecast = Forecast(Figure(60.0), oldest_s=min(1e18, most * times), wait_most_s=most)
    plan = decide(candidates, replace(conditions, forecast=forecast), prices)
    assert plan.choice is not Choice.WAIT or plan.form is None


def test_the_dearer_waiting_the_fewer_wait() -> None:
    sent = [first_sent("lte-sleeping", interval=3600, prices=Prices(per_hour_waiting=price)) for price in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)]
    assert sent == sorted(sent, reverse=True) and sent[0] > sent[-1] == 1


def test_where_waiting_costs_nothing_all_waits_for_as_long_as_it_may() -> None:
    free = Prices(per_hour_waiting=0)
    for n, oldest in ((1, 0.0), (40, 0.9 * DAYS), (100, 0.999 * DAYS)):
        assert at("lte-sleeping", n, interval=3600, oldest=oldest, wait_most=DAYS, prices=free).choice is Choice.WAIT
    assert at("lte-sleeping", 2, interval=3600, oldest=DAYS, wait_most=DAYS, prices=free).choice is Choice.DELTA


@pytest.mark.parametrize("updates", [1, 3, 20])
def test_neither_accuracy_nor_recovery_is_saved_by_waiting(updates: int) -> None:
    """Fewer versions lose no less of each round, and are asked for no less often: where no wake-up costs, nothing waits for that."""
    dear = Prices(per_accuracy=1e3, per_second=1e3)
    delta = Candidate(Choice.DELTA, 1000.0 * updates, 0.003, 1000.0, recover_s=1.0, accuracy_lost=0.1)
    there = Conditions(profile_of("wifi"), joules_per_wakeup=Figure(0.0), forecast=Forecast(Figure(3600), updates))
    plan = decide([delta], there, dear)
    assert plan.choice is Choice.DELTA and plan.rows[-1].total > plan.rows[0].total
    assert plan.rows[0].terms.accuracy == pytest.approx(100.0 * updates)


def test_a_radio_that_is_awake_is_used() -> None:
    assert at("lte-sleeping", 1, interval=3600).choice is Choice.WAIT
    assert at("lte-sleeping", 1, interval=3600, awake=True).choice is Choice.DELTA


def test_what_may_not_come_back_for_long_is_used_while_it_is_there() -> None:
    waits = first_sent("lte-sleeping", interval=3600)
    assert first_sent("lte-sleeping", interval=3600, window=600, gap=20 * DAYS) < waits
    assert first_sent("lte-sleeping", interval=3600, window=600, gap=1) >= waits - 1


def test_waiting_says_how_long_and_with_how_many() -> None:
    plan = at("lte-sleeping", 1, interval=3600)
    assert 8 * 3600 < plan.wait_s < 14 * 3600
    assert plan.reason.startswith("waits about 11 h, to go with 11.0 more: beyond what that time costs anyway it comes to 0.00020")
    assert at("lte-sleeping", 30, interval=3600).wait_s == 0


@given(st.floats(1, 1e6), st.floats(1, 1e6), st.integers(0, 200))
def test_coalesced_updates_overlap(alone: float, full: float, updates: int) -> None:
    size = coalesced_bytes(alone, full, updates)
    share = min(1.0, alone / full)
    assert size == pytest.approx(full * (1 - (1 - share) ** updates), rel=1e-6, abs=1e-6)
    assert size <= min(full, updates * alone) * (1 + 1e-9) and coalesced_bytes(alone, None, updates) == alone * updates
    if updates > 1 and alone < full:
        assert size < updates * alone


def test_a_number_of_updates_that_nobody_has_is_refused() -> None:
    for updates in (-1, 1 << 17):
        with pytest.raises(BadArgument):
            coalesced_bytes(1, 2, updates)


# The optimum that the evidence goes by, held against plainer ways to it; and the planner against it.


@pytest.mark.slow("solves long programmes", seconds=3)
def test_the_optimum_of_the_evidence_is_the_classic_lot_where_nothing_disturbs_it() -> None:
    compared = 0
    for seed in range(4):
        w = replace(evidence.world(seed), window=None, wait_slots=700, link="lte-sleeping")
        costs = evidence.cheapest(w)
        lots = [(costs[n - 1] + w.held * w.slots_an_interval * n * (n - 1) / 2) / (n * w.interval) for n in range(1, evidence.UPDATES + 1)]
        if int(np.argmin(lots)) < 40:
            compared += 1
            assert evidence.optimum(w, costs)[0] == pytest.approx(min(lots), rel=1e-6)
    assert compared


@pytest.mark.slow("sweeps over every state until nothing changes", seconds=10)
@pytest.mark.parametrize("seed", [3, 4, 10])
def test_the_optimum_of_the_evidence_is_that_of_value_iteration(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "UPDATES", 6)
    w = replace(evidence.world(seed), window=3000.0, gap=1500.0, interval=2000.0, slots_an_interval=4, wait_slots=5, link="lte-sleeping")
    costs = evidence.cheapest(w)
    p, ages = 1 / w.slots_an_interval, range(w.wait_slots + 1)
    states = [(0, 0, o) for o in (0, 1)] + [(n, a, o) for n in range(1, 7) for a in ages for o in (0, 1)]
    value = dict.fromkeys(states, 0.0)

    def onwards(n: int, a: int, o: int) -> float:
        turns = w.loss if o else w.finding
        total = 0.0
        for to, chance in ((o, 1 - turns), (1 - o, turns)):
            total += chance * (p * value[min(n + 1, 6), a if n else 0, to] + (1 - p) * value[n, a, to])
        return total

    for _ in range(1500):
        new = {}
        for n, a, o in states:
            sent = costs[n - 1] + onwards(0, 0, o) if n and o else math.inf
            kept = n * w.held + onwards(n, min(a + 1, w.wait_slots) if n else 0, o)
            new[n, a, o] = sent if o and n and (a == w.wait_slots or n == 6) else min(sent, kept)
        gain = new[0, 0, 1]  # of one slot: the value there was 0
        value = {state: v - gain for state, v in new.items()}
    assert evidence.optimum(w, costs)[0] * w.slot == pytest.approx(gain, rel=1e-6)


@pytest.mark.slow("goes over whole traces", seconds=12)
@pytest.mark.parametrize("seed", [54, 119, 57])  # among the widest gaps of the first 250
def test_the_planner_is_near_the_optimum_on_traces(seed: int) -> None:
    assert evidence.gap_of(seed).gap <= 0.05
