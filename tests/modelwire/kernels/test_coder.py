"""The range coder: the twin's bytes, nothing lost, nothing that a re-encoding would not give back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelwire import _reference as twin
from modelwire import errors
from modelwire._core import kernel
from modelwire._reference import coder

SIDES = st.one_of(st.integers(1, 9), st.sampled_from([31, 32, 33, 64, 100, 257]))
VALUES = st.one_of(
    st.integers(-2, 2),
    st.integers(-40, 40),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([-(2**31), 2**31 - 1, 4, 5, -4, -5, 2**22, -(2**22)]),
).filter(bool)


@st.composite
def sections(draw: st.DrawFn) -> Any:
    """Rows, columns, index and value: from empty to dense, even or clustered."""
    rows, columns = draw(SIDES), draw(SIDES)
    size = rows * columns
    if draw(st.booleans()):
        index = draw(st.lists(st.integers(0, size - 1), max_size=8, unique=True))
    else:
        rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        by_row, by_column = rng.random((rows, 1)) ** 3, rng.random((1, columns)) ** 3
        share = draw(st.sampled_from([0.02, 0.3, 5.0, 1e9]))
        index = np.flatnonzero(rng.random((rows, columns)) < by_row * by_column * share).tolist()
    if draw(st.booleans()):
        value = np.array(draw(st.lists(VALUES, min_size=len(index), max_size=len(index))) if len(index) < 200 else [1] * len(index))
    else:
        spread = draw(st.sampled_from([1, 3, 50, 2**20]))
        value = np.random.default_rng(spread).integers(1, spread + 1, len(index))
        value *= np.random.default_rng(rows).choice([-1, 1], len(index))
    return rows, columns, np.array(sorted(index), np.uint32), value.astype(np.int32)


DAMAGED = {"what": "coded sections", "reason": "no encoder writes these bytes"}


def shapes(of: Any) -> list[tuple[int, int, int]]:
    return [(rows, columns, len(index)) for rows, columns, index, _ in of]


def lists(decoded: Any) -> Any:
    return [(index.tolist(), value.tolist()) for index, value in decoded]


@pytest.mark.slow("codes some hundred long arrays in C and in numpy")
@settings(deadline=None)
@given(st.lists(sections(), max_size=4))
def test_what_is_coded_comes_back_and_both_twins_write_the_same_bytes(given_sections: Any) -> None:
    coded = kernel.encode_sections(given_sections)
    assert coded == twin.encode_sections(given_sections)
    expected = [(index.tolist(), value.tolist()) for _, _, index, value in given_sections]
    for core in (kernel, twin):
        decoded = core.decode_sections(coded, shapes(given_sections))
        assert lists(decoded) == expected
        assert all(index.dtype == np.uint32 and value.dtype == np.int32 for index, value in decoded)


def outcome(core: Any, data: bytes, wanted: Any) -> Any:
    try:
        return lists(core.decode_sections(data, wanted))
    except errors.Malformed as error:
        return error.facts


@settings(deadline=None)
@given(st.lists(sections(), max_size=3), st.data())
def test_mutated_streams_end_alike_and_only_what_an_encoder_writes_is_read(given_sections: Any, data: st.DataObject) -> None:
    coded = bytearray(kernel.encode_sections(given_sections))
    wanted = shapes(given_sections)
    match data.draw(st.sampled_from(["flip", "cut", "grow", "noise", "count", "shape"])):
        case "flip":
            assume(coded)
            coded[data.draw(st.integers(0, len(coded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del coded[data.draw(st.integers(0, len(coded))) :]
        case "grow":
            coded += data.draw(st.binary(min_size=1, max_size=6))
        case "noise":
            coded = bytearray(data.draw(st.binary(max_size=60)))
        case "count":
            assume(wanted)
            rows, columns, _ = wanted[-1]
            wanted[-1] = (rows, columns, data.draw(st.integers(0, rows * columns)))
        case "shape":
            assume(wanted)
            rows, columns, count = wanted[0]
            wanted[0] = (columns, rows + 1, count)
    seen = outcome(kernel, bytes(coded), wanted)
    assert seen == outcome(twin, bytes(coded), wanted)
    if isinstance(seen, list):
        again = [
            (rows, columns, np.array(index, np.uint32), np.array(value, np.int32))
            for (rows, columns, _), (index, value) in zip(wanted, seen, strict=True)
        ]
        assert kernel.encode_sections(again) == bytes(coded)


@settings(deadline=None, max_examples=30)
@given(st.lists(sections(), min_size=1, max_size=3))
def test_every_shorter_or_longer_stream_is_refused_or_says_something_else(given_sections: Any) -> None:
    coded = kernel.encode_sections(given_sections)
    wanted = shapes(given_sections)
    for length in range(max(0, len(coded) - 6), len(coded)):
        assert outcome(kernel, coded[:length], wanted) != outcome(kernel, coded, wanted)
    for tail in (b"\0", b"\0\0\0\0\0"):
        with pytest.raises(errors.Malformed):
            kernel.decode_sections(coded + tail, wanted)
    # Any other tail may be the stream of other values (a short stream is the beginning of longer ones), never of the same.
    assert outcome(kernel, coded + b"\1", wanted) != outcome(kernel, coded, wanted)


@pytest.mark.parametrize("core", [kernel, twin], ids=["compiled", "twin"])
def test_sections_that_do_not_fit_their_shape_are_refused(core: Any) -> None:
    one = np.ones(1, np.int32)

    def index(*entries: int) -> Any:
        return np.array(entries, np.uint32)

    for rows, columns, entries, error in [
        (2, 3, index(6), errors.IndexOutOfRange),
        (2, 3, index(3, 3), errors.IndexOutOfRange),
        (2, 3, index(3, 2), errors.IndexOutOfRange),
        (0, 3, index(0), errors.Malformed),
        (-1, 3, index(), errors.Malformed),
        (2**17, 2**17, index(), errors.Malformed),
        (2, 1, index(0, 1, 2), errors.Malformed),
    ]:
        with pytest.raises(error):
            core.encode_sections([(2, 2, index(1), one), (rows, columns, entries, np.ones(len(entries), np.int32))])
    with pytest.raises(errors.IndexOutOfRange) as refused:
        core.encode_sections([(2, 2, index(1), one), (2, 3, index(6), one)])
    assert refused.value.facts == {"tensor": 1, "index": 6, "size": 6}
    with pytest.raises(errors.Malformed):
        core.encode_sections([(2, 2, index(1), np.zeros(1, np.int32))])
    for shape in [(2, 2, 5), (2, 2, -1), (0, 5, 1), (-2, -2, 1), (2**17, 2**17, 1), (2**40, 1, 0)]:
        with pytest.raises(errors.Malformed):
            core.decode_sections(b"", [shape])


@pytest.mark.parametrize("core", [kernel, twin], ids=["compiled", "twin"])
def test_nothing_takes_no_bytes(core: Any) -> None:
    empty = (np.zeros(0, np.uint32), np.zeros(0, np.int32))
    assert core.encode_sections([]) == b""
    assert core.encode_sections([(7, 5, *empty), (0, 0, *empty), (3, 0, *empty)]) == b""
    assert lists(core.decode_sections(b"", [(7, 5, 0), (0, 9, 0)])) == [([], []), ([], [])]
    for data in (b"\0", b"\xff\xff\xff\xff"):
        with pytest.raises(errors.Malformed):
            core.decode_sections(data, [(7, 5, 0)])


@pytest.mark.parametrize("core", [kernel, twin], ids=["compiled", "twin"])
def test_a_full_section_of_ones_codes_no_index_at_all(core: Any) -> None:
    """Every flag is forced; what is left is signs and magnitudes, which soon cost next to nothing."""
    index, value = np.arange(4096, dtype=np.uint32), np.ones(4096, np.int32)
    assert len(core.encode_sections([(64, 64, index, value)])) < 16


def test_a_magnitude_that_is_no_int32_is_refused() -> None:
    for negative, magnitude, fits in ((0, 2**31 - 1, True), (0, 2**31, False), (1, 2**31, True), (1, 2**31 + 1, False)):
        out, model = coder._Writer(), coder._Model()
        out.code(model.sign[0][0], negative)
        for p in model.more:
            out.code(p, 1)
        coder._golomb(out, model, magnitude - coder.ESCAPE)
        data = out.finish()
        seen = outcome(kernel, data, [(1, 1, 1)])
        assert seen == outcome(twin, data, [(1, 1, 1)])
        assert seen == ([([0], [-magnitude if negative else magnitude])] if fits else DAMAGED)


def test_the_number_that_halving_an_odd_range_leaves_over_is_refused() -> None:
    """No writer uses it; the reader sees it at the raw bit itself."""

    class Odd(coder._Writer):
        def raw(self, bits: int, count: int) -> int:
            for place in reversed(range(count)):
                if self.width % 2 and not hasattr(self, "spoilt"):
                    self.spoilt = (bytes(self.bytes), self.low + self.width - 1)
                super().raw(bits >> place & 1, 1)
            return bits & ((1 << count) - 1)

    out = Odd()
    coder._walk(out, coder._Model(), 1, 8, 8, {i: 10**9 + i for i in range(8)})
    settled, number = out.spoilt
    number += int.from_bytes(settled, "big") << 32
    data = number.to_bytes(len(settled) + 4, "big") + b"\1" * 4
    for core in (kernel, twin):
        assert outcome(core, data, [(1, 8, 8)]) == DAMAGED


def test_a_huge_tensor_with_a_lying_count_is_refused_quickly() -> None:
    """Each block flag takes some of the stream's information, so a short stream can't pay for a long walk."""
    with pytest.raises(errors.Malformed):
        kernel.decode_sections(b"\x01\x02\x03", [(40_000, 3_000, 1_000)])


def test_clustered_deltas_cost_less_than_their_positions_at_random() -> None:
    rng = np.random.default_rng(3)
    rows, columns = 256, 128
    dense = rng.random((rows, columns)) < rng.random((rows, 1)) ** 6 * rng.random((1, columns)) ** 6 * 0.5
    index = np.flatnonzero(dense).astype(np.uint32)
    p = len(index) / dense.size
    at_random = dense.size * -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8 + len(index) / 8
    value = rng.choice([-1, 1], len(index)).astype(np.int32)
    assert len(kernel.encode_sections([(rows, columns, index, value)])) < 0.9 * at_random


def test_the_output_grows_when_values_are_larger_than_the_first_guess() -> None:
    value = np.random.default_rng(5).integers(-(2**31), 2**31 - 1, 5000).astype(np.int32)
    value[value == 0] = 1
    index = np.arange(5000, dtype=np.uint32)
    coded = kernel.encode_sections([(1, 5000, index, value)])
    assert len(coded) > 3 * 5000 + 256
    assert lists(kernel.decode_sections(coded, [(1, 5000, 5000)])) == [(index.tolist(), value.tolist())]
