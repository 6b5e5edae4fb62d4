"""The order of an epoch: the same from the same seed, and even over classes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.training.balance import REPEATS, SKEW, draws, order, repeated


@given(counts=st.lists(st.integers(1, 200), min_size=1, max_size=12), seed=st.integers(0, 2**63))
def test_an_epoch_has_as_many_draws_as_samples_and_repeats_none_too_often(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)) * 3, counts)
    drawn = order(labels, seed)
    assert len(drawn) == len(labels) and drawn.min() >= 0 and drawn.max() < len(labels)
    assert np.array_equal(drawn, order(labels, seed))
    if max(counts) <= SKEW * min(counts):
        assert sorted(drawn) == list(range(len(labels)))
    else:
        assert np.bincount(drawn).max() <= REPEATS
        per_class = [int((labels[drawn] == 3 * k).sum()) for k in range(len(counts))]
        assert per_class == draws(np.array(counts))
        full = [n for n, have in zip(per_class, counts, strict=True) if n < REPEATS * have]
        assert not full or max(full) - min(full) <= 1, "equally many of each that has enough"


def test_each_batch_has_of_all_classes() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [700, 60, 120, 120]))
    drawn = labels[order(labels, 1)]
    for at in range(0, 992, 32):
        assert np.bincount(drawn[at : at + 32], minlength=4).min() >= 6


def test_a_generator_moves_on_and_a_frequent_class_is_seen_whole_in_time() -> None:
    labels = np.repeat([0, 1], [400, 40])
    rng = np.random.default_rng(3)
    epochs = [order(labels, rng) for _ in range(8)]
    assert not np.array_equal(epochs[0], epochs[1])
    assert len(set(np.concatenate(epochs).tolist())) > 430


@given(counts=st.lists(st.integers(1, 200), min_size=1, max_size=12), room=st.integers(0, 2000))
def test_rows_are_repeated_whole_times_within_the_room(counts: list[int], room: int) -> None:
    labels = np.repeat(np.arange(len(counts), dtype=np.uint32) * 3, counts)
    times = np.bincount(repeated(labels, room), minlength=len(labels))
    assert times.min() >= 1 and times.max() <= REPEATS and times.sum() <= max(room, len(labels))
    each = [set(times[labels == 3 * c]) for c in range(len(counts))]
    assert all(len(t) == 1 for t in each), "all rows of a class alike"
    after = [n * t.pop() for n, t in zip(counts, each, strict=True)]
    assert max(after) == max(counts), "no class overtakes the most frequent one"
    if max(counts) <= SKEW * min(counts):
        assert after == counts
    elif room >= sum(min(REPEATS, max(counts) // n) * n for n in counts):
        assert after == [min(REPEATS, max(counts) // n) * n for n in counts]
