"""CBOR has one form: what was written reads back, and every other form is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire.errors import Malformed, TooLarge
from modelwire.wire import cbor

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=300) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.parametrize("value", [{"note": "\udcff"}, {"\udcff": 1}, {1: 2}])
def test_text_that_is_no_unicode_is_malformed(value: cbor.Value) -> None:
    with pytest.raises(Malformed):
        cbor.encode(value)


@given(values)
def test_cbor_reads_back_what_it_wrote(value: cbor.Value) -> None:
    try:
        data = cbor.encode(value)
    except Malformed as error:
        assert "deep" in str(error)
        return
    back = cbor.decode(data)
    assert back == value and type(back) is type(value)
    assert cbor.encode(back) == data


@settings(max_examples=500)
@given(st.binary(max_size=80))
def test_whatever_cbor_accepts_it_would_write_the_same_way(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except (Malformed, TooLarge):
        return
    assert cbor.encode(value) == data


@pytest.mark.parametrize(
    "data",
    ["1800", "190017", "5f4101ff", "a2616201616102", "a26161016161 02", "c001", "fb7ff8000000000000", "fb7ff0000000000000",
     "f93c00", "8181818181818100", "9bffffffffffffffff", "7b7fffffffffffffff", "", "0000", "a10001", "62ff00", "f7"],
)  # fmt: skip
def test_cbor_refuses_every_other_form(data: str) -> None:
    with pytest.raises((Malformed, TooLarge)):
        cbor.decode(bytes.fromhex(data))
