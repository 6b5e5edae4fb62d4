"""The ids of a recipe's rows have one encoding, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire.errors import Malformed
from modelwire.output_head.row_ids import ID_MAX, KEY, decode_ids, encode_ids, ids_of

RISING = st.lists(st.integers(0, ID_MAX)).map(sorted)


@given(RISING)
def test_ids_read_back_as_they_were(ids: list[int]) -> None:
    assert list(decode_ids(encode_ids(ids), len(ids))) == ids


@given(st.binary(max_size=40), st.integers(0, 20))
def test_whatever_is_read_is_written_the_same(data: bytes, rows: int) -> None:
    try:
        ids = decode_ids(data, rows)
    except Malformed:
        return
    assert len(ids) == rows and encode_ids(ids) == data


def test_ids_of_neighbours_take_a_byte_each_and_a_sample_may_have_two_rows() -> None:
    assert encode_ids([5, 6, 6, 135, 300]) == bytes([5, 1, 0, 0x81, 1, 0xA5, 1])
    assert len(encode_ids(range(1000, 2000))) == 1001


@pytest.mark.parametrize("ids", [[2, 1], [-1], [ID_MAX + 1]])
def test_ids_that_fall_or_are_out_of_range_are_not_written(ids: list[int]) -> None:
    with pytest.raises(Malformed):
        encode_ids(ids)


@pytest.mark.parametrize(
    ("data", "rows"),
    [(b"\x80", 1), (b"\x80\x00", 1), (b"\x05\x80\x00", 2), (b"\x01", 2), (b"\x01\x01", 1), (b"\xff" * 9, 1), (b"\x80" * 9 + b"\x01", 1),
     (b"\xff" * 8 + b"\x7f\x01", 2), (b"", 1), (b"\x01", 0), (bytes(1 << 20), 3)],
)  # fmt: skip
def test_other_bytes_are_refused(data: bytes, rows: int) -> None:
    with pytest.raises(Malformed):
        decode_ids(data, rows)


def test_an_extension_names_ids_or_none() -> None:
    assert ids_of({}, 3) is None
    assert ids_of({KEY: b"\x01\x01\x01"}, 3) == (1, 2, 3)
    for wrong in (7, None, "\x01", [1, 2, 3], b"\x01"):
        with pytest.raises(Malformed):
            ids_of({KEY: wrong}, 3)
