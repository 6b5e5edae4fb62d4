"""The promise as people write it, and the two-way rule against every version's nearest state, counted one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.keeping.promise import Measure, chosen, parse_promise, require_possible
from edgecloud.registry import SqliteStore
from edgecloud.versions.route import Rates
from modelwire.errors import BadArgument


@pytest.mark.parametrize(("text", "said"), [("2 states", "2 states"), ("1 state", "1 state"), ("1.5states", "1.5 states"),
                                            ("200 ms", "200 ms"), ("2s", "2 s"), (" 0.25 s", "250 ms"), ("1 min", "60 s")])  # fmt: skip
def test_a_promise_is_read_as_it_is_said(text: str, said: str) -> None:
    assert str(parse_promise(text)) == said and parse_promise(said) == parse_promise(text)


@pytest.mark.parametrize(
    "text", ["", "2", "states", "-1 states", "0 ms", "1e9 states", "nan ms", "inf s", "2 states please", "9999 min", "2 stat\0es"]
)
def test_what_is_no_promise_is_refused(text: str) -> None:
    with pytest.raises(BadArgument) as caught:
        parse_promise(text)
    assert caught.value.next_step


def test_less_than_one_state_is_not_possible_and_says_what_is() -> None:
    with pytest.raises(BadArgument, match="one state at least") as caught:
        parse_promise("0.5 states")
    assert "1 state" in caught.value.next_step


def test_a_time_too_short_to_prove_one_state_names_the_least(store: SqliteStore) -> None:
    slow = Rates(weight=1.0, state=2.0)
    with pytest.raises(BadArgument, match="to read and prove one state of digits takes") as caught:
        require_possible(store, parse_promise("1 ms"), slow)
    least = caught.value.next_step.split('"')[1]
    require_possible(store, parse_promise(least), slow)  # what it says is possible


@st.composite
def paths(draw: st.DrawFn) -> tuple[list[float], list[bool], list[bool], float]:
    n = draw(st.integers(1, 60))
    work = draw(st.lists(st.floats(0.001, 3), min_size=n, max_size=n))
    kinds = draw(st.lists(st.sampled_from("dddddrs"), min_size=n, max_size=n))
    return work, [k != "d" for k in kinds], [k == "s" for k in kinds], draw(st.sampled_from([0.0, 0.3, 1.0, 2.5]))


def depths(work: list[float], fixed: list[bool], states: set[int]) -> list[float]:
    """Return each place's work from its nearest state, walked in both directions; before the path lies one, and snapshots are some."""
    n = len(work)
    out = []
    for i in range(n):
        best, total = float("inf"), 0.0
        for j in range(i, -2, -1):  # forward, from place j
            if j == -1 or j in states:
                best = total
                break
            total += work[j]
        total = 0.0
        for j in range(i, n):  # back, from place j
            if j in states:
                best = min(best, total)
                break
            if j + 1 == n or fixed[j + 1]:
                break
            total += work[j + 1]
        out.append(best)
    return out


@given(paths())
def test_no_version_is_further_than_promised_from_a_state(path: tuple[list[float], list[bool], list[bool], float]) -> None:
    work, fixed, starts, theta = path
    kept = set(chosen(work, fixed, starts, theta))
    states = kept | {i for i, one in enumerate(starts) if one} | {len(work) - 1}
    assert not kept & {len(work) - 1} and sorted(kept) == chosen(work, fixed, starts, theta)
    for i, depth in enumerate(depths(work, fixed, states)):
        # An update that is longer than theta ends at a state on both sides; of a long one that inverts the nearer end counts.
        assert depth <= theta * (1 + 1e-6), (i, sorted(kept))


@given(st.integers(1, 400), st.floats(0.005, 0.2))
def test_storage_of_the_two_way_rule_is_at_most_one_and_a_half_times_the_updates(n: int, d: float) -> None:
    kept = chosen([d] * n, [False] * n, [False] * n, 1.0)
    assert len(kept) <= n * d / (2 - d)


def test_a_promise_in_states_counts_bytes_and_one_in_time_counts_seconds() -> None:
    rates = Rates(weight=1e-6, state=0.0, state_byte=1e-6, update=0.01, update_byte=1e-6, multiply=1e-9)
    states, seconds = (Measure(parse_promise(p), rates, 1000, 1000) for p in ("3 states", "10 ms"))
    assert states.theta == 2 and states.work(500) == 0.5 and states.work(500, 1_000_000) == 1.5  # a replay of 1 ms is as 1,000 bytes
    assert seconds.state_seconds == pytest.approx(0.002) and seconds.theta == pytest.approx(4)
    assert seconds.work(1000) == pytest.approx(0.011 / 0.002)
