"""Rows of features travel without losing a bit, in fewer bytes than they have, and a reader takes nothing that is not rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelwire import errors
from modelwire.output_head.rows import Rows, as_value, quantized, rows_of
from modelwire.wire import cbor

DATA = Path(__file__).parents[2] / "models" / "data"
FINITE_HALVES = st.one_of(st.integers(0, 0x7BFF), st.integers(0x8000, 0xFBFF))
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def encode_rows(rows: Rows) -> bytes:
    return cbor.encode(as_value(rows))


def parse_rows(data: bytes) -> Rows:
    return rows_of(cbor.decode(data, "rows"))


def same(a: Rows, b: Rows) -> bool:
    pairs = ((a.features, b.features), (a.labels, b.labels), (a.targets, b.targets))
    return a.scale == b.scale and all(
        x is y if x is None or y is None else x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs
    )


@given(st.data(), SHAPES)
def test_rows_read_back_to_the_bit(data: st.DataObject, shape: tuple[int, int]) -> None:
    halves = data.draw(st.booleans())
    fill = st.sampled_from([0, 0x8000, 0x3C00]) if halves else st.sampled_from([0, -128, 5])
    if halves:
        bits = data.draw(hnp.arrays(np.uint16, shape, elements=FINITE_HALVES, fill=fill))
        features: Any = bits.view(np.float16)
    else:
        features = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(-128, 127), fill=fill))
    kind = data.draw(st.sampled_from(["labels", "targets", "features"]))
    labels = data.draw(hnp.arrays(np.uint32, shape[0], elements=st.integers(0, 4095))) if kind == "labels" else None
    targets = data.draw(hnp.arrays(np.float32, (shape[0], 3), elements=st.floats(-9, 9, width=32))) if kind == "targets" else None
    rows = Rows(features, labels, targets, 1.0 if halves else 0.25)
    assert same(parse_rows(encode_rows(rows)), rows)


def digits(n: int) -> Rows:
    data = np.load(DATA / "digits.npz")
    return Rows(data["train_x"][:n].reshape(n, 64).astype(np.int8), labels=data["train_y"][:n].astype(np.uint32), scale=1 / 16)


@pytest.mark.parametrize("n", [16, 64, 256, 1200])
def test_rows_of_digits_take_less_than_two_fifths_of_their_bytes(n: int) -> None:
    rows = digits(n)
    assert len(encode_rows(rows)) < 0.4 * rows.features.nbytes + 60 + n / 2


def test_features_far_from_zero_are_coded_around_their_own_middle() -> None:
    rng = np.random.default_rng(0)
    middle = rng.integers(-100, 100, 200)
    rows = Rows((middle + rng.integers(-3, 4, (100, 200))).astype(np.int8))
    assert as_value(rows)[5] == 2  # type: ignore[index]
    assert len(encode_rows(rows)) < 0.45 * rows.features.nbytes


def test_quantised_rows_use_the_whole_range_and_stay_within_half_a_step() -> None:
    x = np.random.default_rng(0).standard_normal((30, 7)).astype(np.float32)
    rows = quantized(x)
    assert np.abs(rows.features).max() == 127
    assert np.abs(rows.values - x).max() <= 0.5001 * rows.scale
    assert quantized(np.zeros((2, 3), np.float32)).values.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_rows_can_be_left_out_and_no_others_change() -> None:
    rows = digits(10)
    left = rows.without([3, 0, 3])
    assert same(left, rows.take([1, 2, 4, 5, 6, 7, 8, 9]))
    for wrong in ([10], [-1], list(range(10))):
        with pytest.raises(errors.Malformed):
            rows.without(wrong)


def test_what_cannot_be_rows_cannot_be_made() -> None:
    ok = np.zeros((4, 3), np.int8)
    with pytest.raises(errors.ShapeMismatch):
        Rows(ok.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(errors.ShapeMismatch):
        Rows(ok[:0])
    with pytest.raises(errors.ShapeMismatch):
        Rows(ok, labels=np.zeros(3, np.uint32))
    with pytest.raises(errors.ShapeMismatch):
        Rows(ok, labels=np.zeros(4, np.uint32), targets=np.zeros((4, 1), np.float32))
    with pytest.raises(errors.ShapeMismatch):
        Rows(ok, targets=np.zeros(4, np.float32))
    with pytest.raises(errors.Malformed):
        Rows(ok, scale=0.0)
    with pytest.raises(errors.Malformed):
        Rows(ok.astype(np.float16), scale=0.5)
    with pytest.raises(errors.Malformed):
        encode_rows(Rows(np.full((2, 2), np.nan, np.float16)))


FIELDS = ["format", "dtype", "scale", "rows", "features", "layout", "count", "medians", "stream", "kind", "wanted"]


BAD, BIG = errors.Malformed, errors.TooLarge


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("format", 2, BAD), ("format", True, BAD), ("dtype", 1, BAD), ("dtype", 2, BAD),
        ("scale", 0.1, BAD), ("scale", 0.0, BAD), ("scale", -1.0, BAD), ("scale", 1e300, BAD),
        ("scale", 1, BAD), ("rows", 0, BAD), ("rows", -5, BAD), ("rows", 2**60, BIG),
        ("rows", 11, BAD), ("features", 0, BAD), ("features", 65537, BIG), ("layout", 3, BAD),
        ("count", -1, BAD), ("count", 0, BAD), ("count", 2**40, BAD),
        ("medians", 1, BAD), ("medians", -1, BAD), ("stream", b"", BAD), ("stream", "", BAD),
        ("kind", 2, BAD), ("kind", 1, BAD), ("wanted", None, BAD), ("wanted", [1, b"\0"], BAD),
        ("wanted", [-1, b""], BAD), ("wanted", [2**70, b""], BAD), ("wanted", [b"", 1], BAD),
    ],
)  # fmt: skip
def test_rows_with_a_wrong_field_are_refused(field: str, value: Any, error: Any) -> None:
    good: Any = as_value(digits(10))
    good[FIELDS.index(field)] = value
    with pytest.raises(error):
        rows_of(good)


def test_targets_that_are_no_numbers_or_too_few_are_refused() -> None:
    good: Any = as_value(Rows(np.ones((4, 3), np.int8), targets=np.ones((4, 2), np.float32)))
    for wanted in ([2, b"\0" * 31], [2, b"\xff" * 32], [0, b""], [4097, b""]):
        good[-1] = wanted
        with pytest.raises(errors.Malformed):
            rows_of(good)


def test_labels_beyond_any_head_are_refused() -> None:
    good: Any = as_value(digits(10))
    good[-1] = as_value(Rows(np.ones((10, 3), np.int8), labels=np.full(10, 4096, np.uint32)))[-1]  # type: ignore[index]
    with pytest.raises(errors.Malformed):
        rows_of(good)


@given(st.data())
def test_damaged_rows_are_refused_or_are_other_rows_but_never_anything_else(data: st.DataObject) -> None:
    good = bytearray(encode_rows(digits(6)))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        rows = parse_rows(bytes(good))
    except errors.WireError:
        return
    assert same(parse_rows(encode_rows(rows)), rows)


def test_what_is_no_list_is_no_rows() -> None:
    with pytest.raises(errors.Malformed):
        parse_rows(cbor.encode({"rows": 1}))
