"""Planes go block by block, and bytes that are none are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire.errors import Malformed, NonFinite
from modelwire.update import planes
from tests.modelwire.kernels.test_planes import neighbours


@pytest.mark.parametrize("size", [1, planes.BLOCK - 1, planes.BLOCK, planes.BLOCK + 1, 2 * planes.BLOCK + 7])
def test_planes_go_block_by_block(size: int) -> None:
    rng = np.random.default_rng(size)
    parent = rng.integers(0, 1 << 16, size, np.uint16) & np.uint16(0x1FFF) | np.uint16(0x2000)
    fresh = neighbours(rng, parent, 0.3)
    fresh[-1] ^= 1
    data = planes.encode(fresh, parent, 0x7C00)
    assert planes.check(data, size, 2) == int((fresh != parent).sum())
    out = np.zeros_like(fresh)
    planes.join(data, parent, out, 0x7C00)
    assert out.tobytes() == fresh.tobytes()
    fresh[-1] = 0x7C00
    with pytest.raises(NonFinite) as caught:
        planes.encode(fresh, parent, 0x7C00)
    assert caught.value.facts["index"] == size - 1
    told = planes.encode(fresh, parent, 0)
    with pytest.raises(NonFinite) as caught:
        planes.join(told, parent, out, 0x7C00)
    assert caught.value.facts["index"] == size - 1


@given(st.binary(max_size=200), st.integers(1, 300), st.sampled_from([1, 2, 4]))
def test_bytes_that_are_no_planes_are_refused(data: bytes, n: int, width: int) -> None:
    try:
        count = planes.check(data, n, width)
        out: Any = np.zeros(n, f"<u{width}")
        planes.join(data, None, out, 0)
    except Malformed:
        return
    assert int((out != 0).sum()) == count
