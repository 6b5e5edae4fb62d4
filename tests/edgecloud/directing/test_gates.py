"""The gates: equal variants are not halted, worse ones do not get past the canaries, and no device decides alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.rollouts import gates, pairing
from edgecloud.rollouts.gates import GateName, PhaseCounts, Ruling
from edgecloud.rollouts.pairing import DeviceScore
from modelwire.deploying.plans import WHOLE, RolloutGates
from modelwire.deploying.reports import ROWS_MAX, Code
from modelwire.deploying.states import State

from .fleets import GATES, counted, phase, ruled

COUNTS = st.integers(0, 400)


def test_no_equal_variant_is_halted_however_often_one_looks() -> None:
    rng = np.random.default_rng(17)
    found = counted(phase(rng, 0.0) for _ in range(2000))
    assert found[Ruling.HALT] == 0
    assert found[Ruling.PASS] > 1400, "most of them go on"


@pytest.mark.slow("ten thousand phases, some ten seconds")
def test_none_of_ten_thousand_equal_variants_is_halted() -> None:
    rng = np.random.default_rng(1)
    assert counted(phase(rng, 0.0) for _ in range(10_000))[Ruling.HALT] == 0


def test_a_variant_that_loses_five_points_does_not_get_past_the_canaries() -> None:
    rng = np.random.default_rng(5)
    found = counted(phase(rng, 0.05) for _ in range(1500))
    assert found[Ruling.PASS] <= 1, "held up in 99.9 %"
    assert found[Ruling.HALT] > 1200, "most are known to be worse, and halted"


def test_one_that_loses_eight_points_is_nearly_always_halted() -> None:
    rng = np.random.default_rng(8)
    found = counted(phase(rng, 0.08, devices=5) for _ in range(300))
    assert found[Ruling.HALT] >= 295 and found[Ruling.PASS] == 0


def test_devices_that_differ_weaken_what_rows_alone_would_prove(monkeypatch: pytest.MonkeyPatch) -> None:
    found = counted(phase(np.random.default_rng([3, n]), 0.0, devices=10, spread=0.04) for n in range(400))
    monkeypatch.setattr(pairing, "_spread", lambda *_: 1.0)
    by_rows = counted(phase(np.random.default_rng([3, n]), 0.0, devices=10, spread=0.04) for n in range(400))
    assert found[Ruling.HALT] < by_rows[Ruling.HALT] <= 30


@pytest.mark.parametrize("size", [5, 10])
@pytest.mark.parametrize("rows", [60, 400, ROWS_MAX])
def test_one_device_that_lies_neither_halts_nor_passes_a_phase(size: int, rows: int) -> None:
    rng = np.random.default_rng(11)
    for _ in range(60):
        equal, worse = phase(rng, 0.0, devices=size), phase(rng, 0.06, devices=size)
        all_bad, all_well = DeviceScore("liar", rows, 0, rows), DeviceScore("liar", rows, rows, 0)
        assert ruled([all_bad, *equal[1:]]) is not Ruling.HALT
        assert ruled([*equal[1:], all_bad]) is not Ruling.HALT
        assert ruled([all_well, *worse[1:]]) is not Ruling.PASS


def test_a_device_that_says_all_is_well_hides_no_fall_that_the_others_see() -> None:
    rng = np.random.default_rng(12)
    liar = DeviceScore("liar", 400, 400, 0)
    assert counted([*phase(rng, 0.10, devices=10)[1:], liar] for _ in range(100))[Ruling.HALT] >= 90


def test_one_device_that_says_all_is_lost_puts_no_small_fall_beyond_the_margin() -> None:
    small = [DeviceScore(f"d{i}", 4000, 80, 120) for i in range(9)]  # surely one point, which the plan lets it lose
    assert gates.quality([*small, DeviceScore("liar", 4000, 0, 4000)], 10, GATES, ended=False).ruling is Ruling.WAIT
    assert gates.quality(small, 9, RolloutGates(margin=50), ended=False).ruling is Ruling.HALT


def test_one_device_that_says_all_is_well_does_not_keep_an_equal_variant_from_passing() -> None:
    equal = [DeviceScore(f"d{i}", 2000, 20, 20) for i in range(9)]
    assert gates.quality([*equal, DeviceScore("liar", 2000, 2000, 0)], 10, GATES, ended=True).ruling is Ruling.PASS


def test_a_phase_of_five_is_passed_by_no_less_than_three_devices() -> None:
    scores = [DeviceScore("a", 4000, 0, 0), DeviceScore("b", 4000, 0, 0)]
    assert gates.quality(scores, 5, GATES, ended=True).ruling is Ruling.PAUSE
    assert gates.quality(scores, 2, GATES, ended=True).ruling is Ruling.PASS
    assert gates.quality([*scores, DeviceScore("c", 10, 0, 0)], 5, GATES, ended=True).ruling is Ruling.PASS


def test_too_few_rows_pause_and_say_how_many_more_would_tell() -> None:
    found = gates.quality([DeviceScore("a", 60, 3, 3), DeviceScore("b", 60, 2, 2)], 2, GATES, ended=True)
    assert (found.gate, found.ruling) == (GateName.QUALITY, Ruling.PAUSE)
    more = int(found.reason.partition("about ")[2].split()[0])
    half = more // 2 + 1  # each: of one device's rows no more than twice the median's count
    told = [DeviceScore(name, 60 + half, n, n) for name, n in (("a", 3 + half // 24), ("b", 2 + half // 24))]
    again = gates.quality(told, 2, GATES, ended=True)
    assert again.ruling is Ruling.PASS, "as many more, that are as these are, do tell"


def test_without_a_row_it_is_paused_unless_the_plan_judges_nothing() -> None:
    assert gates.quality([], 5, GATES, ended=True).ruling is Ruling.PAUSE
    assert gates.quality([DeviceScore("a", 0)], 5, GATES, ended=False).ruling is Ruling.WAIT
    assert gates.quality([], 5, RolloutGates(margin=WHOLE), ended=True).ruling is Ruling.PASS


@given(COUNTS, COUNTS)
def test_the_evidence_is_the_mixture_of_all_likelihood_ratios(better: int, worse: int) -> None:
    shares = 0.5 + (np.arange(20_000) + 0.5) / 40_000
    exact = np.log(np.mean(np.exp(np.float64(0) + worse * np.log(2 * shares) + better * np.log(2 * (1 - shares)))))
    found = pairing.log_evidence(better, worse)
    assert found == 0.0 if worse <= better else math.isclose(found, exact, rel_tol=1e-4, abs_tol=1e-3)


def test_by_chance_alone_the_evidence_reaches_twenty_in_no_more_than_one_of_twenty() -> None:
    """A hundred thousand looks in all, at thresholds where a mistake would show: after each single row of 100."""
    rng = np.random.default_rng(20)
    worse = np.cumsum(rng.integers(0, 2, (1000, 100)), axis=1)
    rows = np.arange(1, 101)
    reached = sum(
        any(pairing.log_evidence(int(n - w), int(w)) >= math.log(20) for n, w in zip(rows, one, strict=True) if w > n - w) for one in worse
    )
    assert reached <= 50


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, ROWS_MAX), st.floats(0, 1), st.floats(0, 1)), max_size=12), st.integers(0, 100_000), st.booleans())
def test_whatever_devices_say_there_is_a_ruling_with_a_reason(said: list[tuple[int, float, float]], size: int, ended: bool) -> None:
    scores = [DeviceScore(f"d{i}", n, b := int(n * x), int((n - b) * y)) for i, (n, x, y) in enumerate(said)]
    found = gates.quality(scores, max(size, len(scores)), GATES, ended=ended)
    assert found.reason and math.isfinite(found.paired.low) and math.isfinite(found.paired.log_evidence)
    assert ended or found.ruling in (Ruling.WAIT, Ruling.HALT)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False)), max_size=9))
def test_whatever_losses_devices_say_there_is_a_ruling(said: list[tuple[float, float]]) -> None:
    scores = [DeviceScore(f"d{i}", 100, accuracy=False, before=b, after=a) for i, (b, a) in enumerate(said)]
    found = gates.quality(scores, 9, GATES, ended=True)
    assert found.reason and math.isfinite(found.paired.low) and math.isfinite(found.paired.change)


def losses(rng: np.random.Generator, change: float, devices: int) -> list[DeviceScore]:
    """Return devices whose mean loss changes by a share of itself, each by its own."""
    before = rng.uniform(0.1, 3.0, devices)
    after = before * (1 + change + rng.normal(0, 0.01, devices))
    return [DeviceScore(f"d{i}", 100, accuracy=False, before=b, after=a) for i, (b, a) in enumerate(zip(before, after, strict=True))]


def test_losses_are_judged_by_devices_relative_to_the_loss_before() -> None:
    rng = np.random.default_rng(9)
    equal = counted(losses(rng, 0.0, 10) for _ in range(300))
    worse = counted(losses(rng, 0.10, 10) for _ in range(300))
    assert equal[Ruling.HALT] == 0 and equal[Ruling.PASS] > 250
    assert worse[Ruling.HALT] > 250 and worse[Ruling.PASS] == 0
    liar = DeviceScore("liar", 100, accuracy=False, before=1.0, after=1e30)
    assert counted([liar, *losses(rng, 0.10, 10)[1:]] for _ in range(20))[Ruling.HALT] == 20, "nor hides it what the others see"
    assert counted([*losses(rng, 0.0, 10)[1:], liar] for _ in range(100))[Ruling.HALT] == 0


def test_errors_halt_by_percent_and_never_below_the_minimum() -> None:
    def ruling(assigned: int, served: int, failed: int, code: str = Code.CRASH) -> Ruling:
        counts = PhaseCounts(assigned, {State.SOAKING: served, State.REVERTED: failed}, {code: failed})
        return gates.errors(counts, RolloutGates(error=1000, error_least=3)).ruling

    assert ruling(50, 0, 2) is Ruling.PASS, "two are too few to tell"
    assert ruling(50, 0, 3) is Ruling.HALT
    assert ruling(50, 27, 3) is Ruling.PASS, "3 of 30 are 10 %, which may"
    assert ruling(50, 26, 3) is Ruling.HALT
    assert ruling(2, 1, 1) is Ruling.HALT, "of two canaries one is enough"
    assert ruling(50, 0, 30, Code.VETO) is Ruling.PASS, "a host that says no is no failure"


def test_refused_and_late_devices_are_no_failures() -> None:
    counts = PhaseCounts(50, {State.REFUSED: 20, State.TIMED_OUT: 5, State.CONFIRMED: 20, State.FETCHING: 5})
    assert gates.errors(counts, GATES).ruling is Ruling.PASS
    assert counts.tried == 20 and counts.never == 25


def test_success_waits_pauses_and_passes() -> None:
    def ruling(states: dict[State, int], *, waited: int = 0, confirmed: bool = False, assigned: int = 10) -> tuple[GateName, Ruling]:
        codes = {Code.WORSE: states.get(State.REVERTED, 0)}
        found = gates.success(PhaseCounts(assigned, states, codes), RolloutGates(patience=60), confirmed=confirmed, waited=waited)
        return found.gate, found.ruling

    assert ruling({State.SOAKING: 8}) == (GateName.SUCCESS, Ruling.WAIT)
    assert ruling({State.SOAKING: 8}, waited=61) == (GateName.PATIENCE, Ruling.PAUSE)
    assert ruling({State.SOAKING: 9}) == (GateName.SUCCESS, Ruling.PASS)
    assert ruling({State.SOAKING: 9}, confirmed=True) == (GateName.SUCCESS, Ruling.WAIT)
    assert ruling({State.CONFIRMED: 4, State.REFUSED: 5}, confirmed=True) == (GateName.SUCCESS, Ruling.WAIT)
    assert ruling({State.CONFIRMED: 5, State.REFUSED: 5}, confirmed=True) == (GateName.SUCCESS, Ruling.PASS)
    assert ruling({State.CONFIRMED: 4, State.REFUSED: 6}) == (GateName.SUCCESS, Ruling.PAUSE), "most refuse: no test"
    assert ruling({State.CONFIRMED: 8, State.REVERTED: 2}) == (GateName.SUCCESS, Ruling.PAUSE), "90 % can't be reached any more"
    assert ruling({}, assigned=0) == (GateName.SUCCESS, Ruling.PAUSE)
