"""What a layer gave, kept: every bit, or 8 bits with the error that is said; hostile bytes are refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgecloud.probes import coding
from modelwire.errors import Malformed

RNG = np.random.default_rng(1)
KINDS = {
    "normal": RNG.standard_normal((400, 32)),
    "relu": np.maximum(RNG.standard_normal((400, 8, 4)), 0),
    "one": np.full((3, 2), -1.5),
    "few": RNG.integers(-3, 3, (100, 7)),
    "tails": RNG.standard_cauchy((300, 10)) ** 3,
    "empty": np.zeros((0, 3)),
    "large": np.array([3e38, -3e38] * 200 + [*RNG.random(400)]),
    "tiny": RNG.random(600) * 1e-40,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_that_is_said_is_that_of_what_is_read_back(kind: str) -> None:
    values = KINDS[kind].astype(np.float32)
    kept = coding.keep(values, coding.QUANTILES)
    read = coding.read(kept.data)
    assert read.shape == values.shape and read.dtype == np.float32
    error = float(np.sqrt(np.mean((read.astype(np.float64) - values.reshape(read.shape)) ** 2))) if values.size else 0.0
    assert kept.error == error
    assert error <= 0.02 * float(np.sqrt(np.mean(values.astype(np.float64) ** 2))) if values.size else True
    if kind == "relu":
        assert not read[values == 0].any()  # what a unit that is off gives stays nothing
    if kind in ("few", "one"):
        assert np.array_equal(read, values) and error == 0


@given(arrays.arrays(np.uint32, st.tuples(st.integers(0, 6), st.integers(1, 5))))
def test_every_bit_comes_back_in_32_bits_whatever_it_says(bits: np.ndarray) -> None:  # type: ignore[type-arg]
    values = bits.view(np.float32)
    kept = coding.keep(values, coding.EXACT)
    assert kept.error == 0 and np.array_equal(coding.read(kept.data).view(np.uint32), bits)
    if not np.isfinite(values).all():  # no quantile of what is no number
        assert np.array_equal(coding.read(coding.keep(values, coding.QUANTILES).data).view(np.uint32), bits)


def test_equal_values_of_one_shape_and_keeping_have_one_name() -> None:
    values = KINDS["normal"].astype(np.float32)
    name = coding.chunk_of(values, 8)
    assert coding.chunk_of(values.copy(), 8) == name
    others = {coding.chunk_of(values, 32), coding.chunk_of(values.reshape(200, 64), 8), coding.chunk_of(np.nextafter(values, 9), 8)}
    assert len(others) == 3 and name not in others


@pytest.mark.parametrize("bits", coding.BITS)
def test_bytes_cut_or_changed_anywhere_are_refused_or_other_values_of_bounded_size(bits: int) -> None:
    whole = coding.keep(KINDS["relu"][:20].astype(np.float32), bits).data
    for end in range(len(whole)):
        with pytest.raises(Malformed):
            coding.read(whole[:end])
    for place in range(len(whole)):
        bent = bytearray(whole)
        bent[place] ^= 0xFF
        with contextlib.suppress(Malformed):
            assert coding.read(bytes(bent)).size <= 20 * 32
