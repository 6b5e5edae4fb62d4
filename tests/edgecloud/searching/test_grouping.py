"""Groups are found without being told how many, none are found where there are none, and the answer hangs on the distances alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgecloud.searching.grouping import Squares, groups, points, tree
from modelwire.errors import BadArgument
from tests.planted import rand_index


def squares(x: np.ndarray) -> Squares:
    length = (x**2).sum(1)
    out = np.maximum(length[:, None] + length - 2 * x @ x.T, 0)
    np.fill_diagonal(out, 0)
    return np.asarray((out + out.T) / 2)


def clouds(sizes: list[int], apart: float, *, spread: float = 0.0, seed: int = 0) -> tuple[Squares, np.ndarray]:
    """Return clouds of noise in 400 dimensions, their middles `apart` in units of the noise. spread: variance along one axis, a share."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.standard_normal((len(of), 400)) / 20 * np.sqrt(1 - spread)
    x[:, -1] += np.sqrt(spread) * rng.standard_normal(len(of))
    x[np.arange(len(of)), of] += apart / np.sqrt(2)
    return squares(x), of


@pytest.mark.parametrize("seed", range(4))
def test_groups_of_many_sizes_are_found_without_their_number(seed: int) -> None:
    apart, of = clouds([25, 12, 8, 5], 1.5, seed=seed)
    assert rand_index(groups(apart), of) == 1.0


def test_a_round_cloud_is_one_group_and_a_long_one_nearly_always() -> None:
    """A tenth of the variance along one axis is what cameras come to that hang a little askew."""
    parted = {spread: sum(groups(clouds([40], 0, spread=spread, seed=seed)[0]).max() > 0 for seed in range(10)) for spread in (0.0, 0.1)}
    assert parted[0.0] == 0 and parted[0.1] <= 1


def test_one_alone_stays_alone_and_one_of_a_group_does_not() -> None:
    apart, of = clouds([30, 1, 12], 2.0)
    assert rand_index(groups(apart), of) == 1.0


def test_a_number_that_is_told_is_kept_as_far_as_there_are_points() -> None:
    apart, of = clouds([10, 10, 10], 1.5)
    assert rand_index(groups(apart, 3), of) == 1.0
    assert [len(set(groups(apart, count))) for count in (1, 2, 30)] == [1, 2, 30]
    with pytest.raises(BadArgument, match="30 devices can't be parted into 31 cohorts"):
        groups(apart, 31)


def test_the_order_of_the_points_changes_nothing_but_the_numbers() -> None:
    apart, of = clouds([9, 14, 6], 1.5)
    order = np.random.default_rng(3).permutation(len(of))
    assert rand_index(groups(apart)[order], groups(apart[np.ix_(order, order)])) == 1.0
    assert np.bincount(groups(apart)).tolist() == [14, 9, 6]


def test_odd_distances_give_an_answer() -> None:
    assert groups(np.zeros((0, 0))).tolist() == [] and groups(np.zeros((1, 1))).tolist() == [0]
    assert groups(np.zeros((8, 8))).tolist() == [0] * 8  # all the same
    twins = np.kron(1 - np.eye(2), np.ones((5, 5))) * 4.0
    assert groups(twins).tolist() == [0] * 5 + [1] * 5


def test_the_tree_is_that_of_average_linkage() -> None:
    """Against the definition, worked out anew at every step."""
    apart = squares(np.random.default_rng(7).standard_normal((14, 5)))
    parts = [[i] for i in range(14)]
    for branch in tree(apart):
        height, a, b = min((apart[np.ix_(a, b)].mean(), a, b) for i, a in enumerate(parts) for b in parts[:i])
        assert branch.height == pytest.approx(height) and points(branch) == sorted(a + b)
        assert branch.within == pytest.approx(apart[np.ix_(a + b, a + b)].sum() / 2)
        parts = [part for part in parts if part not in (a, b)] + [sorted(a + b)]
