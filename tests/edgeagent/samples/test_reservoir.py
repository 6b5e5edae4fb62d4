"""A full spool keeps a fair sample of each class and context, of every age alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.samples.reservoir import rank_of
from edgeagent.samples.spool import is_held_out
from tests.edgeagent.samples.spools import kept_ids, small


@pytest.mark.slow("appends thousands of samples")
def test_what_stays_of_a_long_stream_is_of_every_age_alike(tmp_path: Path) -> None:
    s = small(tmp_path, max_samples=400)
    x = np.zeros((500, 4), np.float32)
    for _ in range(20):  # 10 000 samples, each 500 followed by a round
        s.extend("m", x, [1] * 500)
        s.cards.begin("m", s.last_id("m"))
    ids = np.array(kept_ids(s))
    assert len(ids) == 400
    old = ids[ids <= 9500]  # the last 500 came in one go: up to half of a full cell may be newest ones, whatever their rank
    bins = np.bincount((old - 1) // 950, minlength=10)
    chi_squared = float(((bins - len(old) / 10) ** 2 / (len(old) / 10)).sum())
    assert chi_squared < 21.7, f"{bins}: one fair sample in a hundred is further off, with 9 degrees of freedom"
    held = np.array([is_held_out(int(i), 0.2) for i in old])
    assert abs(held.mean() - 0.2) < 0.08, "both sides are thinned alike"


@pytest.mark.slow("appends thousands of samples")
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_the_lowest_ranks_of_all_that_came_are_there_however_they_came(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    s = small(tmp_path_factory.mktemp("s"), max_samples=40)
    came = 0
    for n in rng.integers(1, 60, 12):
        came += len(s.extend("m", np.zeros((n, 4)), [0] * int(n)))
        if rng.random() < 0.5:
            s.cards.begin("m", s.last_id("m"))
    lowest = sorted(range(1, came + 1), key=rank_of)[:20]  # the other half may be taken by samples that no round has seen
    assert set(lowest) <= set(kept_ids(s))
    s.close()


def test_each_class_and_context_has_an_equal_share_of_a_skewed_stream(tmp_path: Path) -> None:
    s = small(tmp_path, max_samples=120)
    rng = np.random.default_rng(3)
    for _ in range(30):
        labels = rng.choice(3, 100, p=[0.9, 0.08, 0.02])
        contexts = [{"weather": "rain" if rng.random() < 0.1 else "sun"} for _ in labels]
        s.extend("m", np.zeros((100, 4)), labels, contexts=contexts)
    cells = {(c.cls, c.context["weather"]): c.samples for c in s.cells("m")}
    rare = cells.pop((2, "rain"))  # 2 in 1000: fewer have come than its share
    assert len(cells) == 5 and rare < 20 and max(cells.values()) - min(cells.values()) <= 1
    assert sum(cells.values()) + rare == 120


@pytest.mark.slow("appends thousands of samples")
def test_a_flood_of_one_class_keeps_the_others_and_half_of_itself_from_before(tmp_path: Path) -> None:
    s = small(tmp_path, max_samples=90)
    before = s.extend("m", np.zeros((90, 4)), [i % 3 for i in range(90)])
    s.cards.begin("m", s.last_id("m"))
    flood = s.extend("m", np.zeros((5000, 4)), [0] * 5000)
    assert {c.cls: c.samples for c in s.classes("m")} == {0: 30, 1: 30, 2: 30}
    kept = set(kept_ids(s))
    assert {i for n, i in enumerate(before) if n % 3} <= kept, "the other classes lost nothing"
    assert set(flood[-15:]) <= kept, "half of the share is the newest that no round has seen"
    lowest = sorted([*before[::3], *flood[:-15]], key=rank_of)[:15]
    assert kept >= set(lowest), "the other half is the fair sample of all that came"


def test_with_more_contexts_than_room_the_classes_are_still_even_and_the_newest_are_there(tmp_path: Path) -> None:
    s = small(tmp_path, max_samples=60)
    for n in range(300):
        ids = s.extend("m", np.zeros((1, 4)), [0 if n % 10 else 1 + n % 2], contexts={"run": f"r{n}"})
    s.extend("m", np.zeros((60, 4)), [2] * 60, contexts=[{"run": f"s{n}"} for n in range(60)])
    assert {c.cls: c.samples for c in s.classes("m")} == {0: 20, 1: 20, 2: 20}
    assert all(c.samples == 1 for c in s.cells("m"))
    assert ids[0] in kept_ids(s), "the newest of its class"


def test_larger_bounds_fill_with_what_comes_and_smaller_ones_hold_at_once(tmp_path: Path) -> None:
    s = small(tmp_path, max_samples=50)
    s.extend("m", np.zeros((500, 4)), [0] * 500)
    s.register("m", (4,), (3,), max_samples=80, max_bytes=1 << 20)
    assert s.count("m") == 50
    s.extend("m", np.zeros((100, 4)), [0] * 100)
    assert s.count("m") == 80
    s.register("m", (4,), (3,), max_samples=1000, max_bytes=16 * 10)
    assert s.count("m") == 10 and sum(c.bytes for c in s.classes("m")) == 160


def test_ranks_are_spread_evenly() -> None:
    ranks = np.array([rank_of(i) for i in range(1, 20001)], dtype=np.float64) / 2.0**63
    assert abs(np.histogram(ranks, 10)[0] - 2000).max() < 180
