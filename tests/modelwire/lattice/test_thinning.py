"""What a delta would come to with fewer entries: near what such a delta takes, and never outside of what there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire.lattice.thinning import thinned
from modelwire.tensors import Dtype, Schema, TensorSpec
from modelwire.update.container import size_of
from modelwire.update.sections import Section

SHARES = (0.5, 0.25, 0.125)


def section(rng: np.random.Generator, count: int, *, size: int = 40_000) -> Section:
    index = np.sort(rng.choice(size, count, replace=False)).astype(np.uint32)
    value = np.where(rng.random(count) < 0.5, -1, 1) * np.maximum(1, rng.geometric(0.4, count))
    return Section(0, index, value.astype(np.int32), 1, -12)


def test_the_estimate_is_near_what_the_largest_moves_take() -> None:
    rng = np.random.default_rng(0)
    schema = Schema((TensorSpec("w", (200, 200), Dtype.FLOAT32),))
    whole = section(rng, 6000)
    fixed = size_of((), schema)
    estimates = thinned([whole], size=size_of([whole], schema), fixed=fixed, shares=SHARES)
    for share, one in zip(SHARES, estimates, strict=True):
        keep = np.sort(np.argsort(-np.abs(whole.value), kind="stable")[: one.entries])
        real = size_of([Section(0, whole.index[keep], whole.value[keep], 1, -12)], schema)
        assert one.entries == int(share * 6000) and abs(one.bytes - real) < 0.25 * real, (share, one.bytes, real)
    assert 1 > estimates[0].kept > estimates[1].kept > estimates[2].kept > 0


@given(count=st.integers(1, 4000), size=st.integers(0, 100_000), fixed=st.integers(0, 2000), share=st.floats(1e-6, 1))
@settings(max_examples=100, deadline=None)
def test_it_never_says_more_than_there_is(count: int, size: int, fixed: int, share: float) -> None:
    (one,) = thinned([section(np.random.default_rng(count), count)], size=size, fixed=fixed, shares=(share,))
    assert 1 <= one.entries <= count and 0 <= one.kept <= 1 and one.bytes >= fixed


@pytest.mark.parametrize("sections", [[], [Section(0, np.zeros(0, np.uint32), np.zeros(0, np.int32), 1, 0)]])
def test_of_nothing_there_is_nothing(sections: list[Section]) -> None:
    assert thinned(sections, size=100, fixed=10, shares=SHARES) == []
