"""Strided slices are read as numpy reads them, and put back where they came from."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.graft.writing.strides import Masks, taken

Item = int | slice | None | type(Ellipsis)


@st.composite
def slices(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Item, ...]]:
    """A shape, and what numpy takes of it by numbers, slices, new axes and at most one ellipsis."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    items: list[Item] = []
    named = draw(st.integers(0, len(shape)))
    behind = draw(st.none() | st.integers(0, named))  # how many of the named axes are counted from the last
    for i in range(named):
        n = shape[i] if behind is None or i < named - behind else shape[len(shape) - named + i]
        bounds = st.none() | st.integers(-n - 2, n + 2)
        items.append(draw(st.integers(-n, n - 1) | st.builds(slice, bounds, bounds, st.sampled_from([1, 2, 3, -1, -2]))))
    if behind is not None:
        items.insert(named - behind, ...)
    for _ in range(draw(st.integers(0, 2))):
        items.insert(draw(st.integers(0, len(items))), None)
    return shape, tuple(items)


def as_masks(items: tuple[Item, ...]) -> tuple[list[int], list[int], list[int], Masks]:
    begin, end, stride = [0] * len(items), [1] * len(items), [1] * len(items)
    bits = dict.fromkeys(("begin", "end", "ellipsis", "new", "shrink"), 0)
    for i, item in enumerate(items):
        if item is None:
            bits["new"] |= 1 << i
        elif item is ...:
            bits["ellipsis"] |= 1 << i
        elif isinstance(item, int):
            begin[i], end[i] = item, item + 1
            bits["shrink"] |= 1 << i
        else:
            begin[i], end[i], stride[i] = item.start or 0, item.stop or 0, item.step
            bits["begin"] |= (item.start is None) << i
            bits["end"] |= (item.stop is None) << i
    return begin, end, stride, Masks(**bits)


@given(slices())
def test_a_slice_takes_what_numpy_takes(case: tuple[tuple[int, ...], tuple[Item, ...]]) -> None:
    shape, items = case
    begin, end, stride, masks = as_masks(items)
    x = np.arange(np.prod(shape)).reshape(shape)
    expected = x[items]
    what = taken(shape, begin, end, stride, masks)
    assert what.shape == expected.shape
    places = [b + s * np.arange(n) for b, s, n in zip(what.begin, what.stride, what.count, strict=True)]
    assert x[np.ix_(*places)].reshape(what.shape).tolist() == expected.tolist()
    assert [what.shape[p] if p is not None else 1 for p in what.place] == list(what.count)


@given(slices())
def test_ends_may_be_counted_from_their_begins(case: tuple[tuple[int, ...], tuple[Item, ...]]) -> None:
    shape, items = case
    begin, end, stride, masks = as_masks(items)
    # Beginning inside, for a begin that is cut to its axis means another end.
    begin = [0 if not 0 <= b < min(shape) else b for b in begin]
    relative = [e - b for b, e in zip(begin, end, strict=True)]
    assert taken(shape, begin, relative, stride, masks, offset=True) == taken(shape, begin, end, stride, masks)


def test_a_batch_takes_the_place_of_one_sample() -> None:
    one = taken((1, 5, 4), [0, 0, 1], [1, 5, 2], [1, 2, 1], Masks(shrink=4))
    assert one.shape == (1, 3)
    assert one.whole(0, 16).shape == (16, 3) and one.whole(0, 16).count == (16, 3, 1)


@pytest.mark.parametrize(
    ("begin", "end", "stride", "masks", "said"),
    [
        ([0], [1], [0], Masks(), "the strides [0]"),
        ([0, 0], [1], [1], Masks(), "2 begins, 1 ends"),
        ([0, 0, 0], [1, 1, 1], [1, 1, 1], Masks(), "more axes than the 2"),
        ([9], [10], [1], Masks(shrink=1), "beyond its tensor"),
    ],
)
def test_what_fits_no_tensor_is_refused(begin: list[int], end: list[int], stride: list[int], masks: Masks, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        taken((3, 4), begin, end, stride, masks)
