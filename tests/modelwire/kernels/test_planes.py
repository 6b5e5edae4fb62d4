"""Stored tensors: rounding to storage types, held to stored and back, and byte planes: all kernels and the twin give the same bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import lz4.block  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire import _reference as twin
from modelwire import errors
from modelwire._core import kernel

from .test_round import PATHS

INFINITY = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80, "int8": 0, "int32": 0}
UNSIGNED: dict[str, Any] = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16, "int8": np.uint8, "int32": np.uint32}
NUMBERS = {"float32": 1, "float16": 2, "bfloat16": 3, "int8": 4}
LENGTHS = st.one_of(st.integers(0, 40), st.sampled_from([511, 512, 513, 520, 1024, 1300]))
AWKWARD = np.array(
    [0, 0x80000000, 1, 0x80000001, 0x33000000, 0x33000001, 0x33FFFFFF, 0x38800000, 0x387FFFFF, 0x387FE000, 0x387FEFFF, 0x387FF000,
     0x477FE000, 0x477FEFFF, 0x477FF000, 0x7F7F0000, 0x7F7F7FFF, 0x7F7F8000, 0x7F7FFFFF, 0x42FE0000, 0xC2FE0000, 0x42FF0000, 0xC3000000],
    np.uint32,
).view(np.float32)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def as_it_was() -> Iterator[None]:
    before = kernel.kernel_name()
    yield
    kernel.choose(before)


def call(core: Any, name: str, arrays: tuple[Any, ...], out: Any, **facts: Any) -> Any:
    """Return what the call gives and the outputs' bytes, or the error alone."""
    copies = [None if a is None else a.copy() for a in arrays]
    try:
        result = getattr(core, name)(*copies, **facts)
    except errors.ModelWireError as error:
        return type(error), error.facts
    return result, [copies[i].tobytes() for i in out]


def agree(name: str, *arrays: Any, out: tuple[int, ...], **facts: Any) -> Any:
    expected = call(twin, name, arrays, out, **facts)
    for path in PATHS:
        kernel.choose(path)
        assert call(kernel, name, arrays, out, **facts) == expected, path
    return expected


def floats(seed: int, n: int) -> Any:
    """Return finite float32 of all magnitudes, among them those where a storage type rounds, overflows or has a subnormal."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << 32, n, np.uint32)
    near = rng.integers(0, 1 << 32, n, np.uint32) & np.uint32(0x87FFFFFF) | np.uint32(0x38000000)  # what a float16 has
    x = np.where(rng.random(n) < 0.7, near, bits).astype(np.uint32).view(np.float32)
    x = np.where(np.isfinite(x), x, np.float32(0))
    some = rng.random(n) < 0.1
    return np.where(some, rng.choice(AWKWARD, n), x).astype(np.float32)


def stored(rng: Any, dtype: str, n: int) -> Any:
    """Return finite stored bits."""
    bits = rng.integers(0, 1 << 8 * np.dtype(UNSIGNED[dtype]).itemsize, n, np.uint64).astype(UNSIGNED[dtype])
    if INFINITY[dtype]:
        top = np.dtype(UNSIGNED[dtype]).itemsize * 8 - 1
        bits = np.where(bits & np.array((1 << top) - 1, bits.dtype) >= INFINITY[dtype], bits & np.array(1 << top, bits.dtype), bits)
    return bits.astype(UNSIGNED[dtype])


def neighbours(rng: Any, parent: Any, density: float) -> Any:
    """Return stored bits of which `density` differ from parent, most of them a little."""
    moved = parent + rng.integers(0, 200, len(parent)).astype(parent.dtype) - parent.dtype.type(100)
    return np.where(rng.random(len(parent)) < density, moved, parent).astype(parent.dtype)


@given(st.integers(0, 1 << 32), LENGTHS, st.sampled_from(sorted(NUMBERS)))
def test_sums_are_rounded_to_nearest_even_of_the_storage_type(seed: int, n: int, dtype: str) -> None:
    sums = floats(seed, n)
    if dtype == "int8":
        sums = np.rint(sums.clip(-130, 130))
    found = agree("round_stored", sums, np.zeros(n, np.float32), out=(1,), dtype=NUMBERS[dtype])
    if dtype == "float16" and found[0] is None:
        with np.errstate(all="ignore"):
            assert found[1][0] == sums.astype(np.float16).astype(np.float32).tobytes()


def test_what_a_float16_rounds_and_refuses() -> None:
    held = np.zeros(4, np.float32)
    kernel.round_stored(np.array([65519.99, 2**-25, 2**-25 * 1.01, 1 + 2**-11], np.float32), held, dtype=2)
    assert held.tolist() == [65504.0, 0.0, 2**-24, 1.0]
    with pytest.raises(errors.NonFinite):
        kernel.round_stored(np.array([65520], np.float32), held[:1], dtype=2)
    with pytest.raises(errors.RangeOverflow):
        kernel.round_stored(np.array([-128], np.float32), held[:1], dtype=4)


@given(st.integers(0, 1 << 32), LENGTHS, st.sampled_from(["float16", "bfloat16", "int8"]), st.booleans())
def test_held_goes_to_stored_and_back_or_is_refused(seed: int, n: int, dtype: str, spoiled: bool) -> None:
    rng = np.random.default_rng(seed)
    bits = stored(rng, dtype, n)
    back = agree("from_storage", bits, np.zeros(n, np.float32), out=(1,), dtype=NUMBERS[dtype])
    held = np.frombuffer(back[1][0], np.float32).copy()
    if spoiled and n:
        held[rng.integers(n)] = rng.choice(np.array([0.1, np.inf, np.nan, 3e38, 1e-30, 200, -0.0], np.float32))
    again = agree("to_storage", held, np.zeros_like(bits), out=(1,), dtype=NUMBERS[dtype])
    if not spoiled:
        assert again == (None, [bits.tobytes()])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_number_of_a_16_bit_type_comes_back(dtype: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    bits = bits[bits & 0x7FFF < INFINITY[dtype]]
    held = np.zeros(len(bits), np.float32)
    kernel.from_storage(bits, held, dtype=NUMBERS[dtype])
    if dtype == "float16":
        assert held.tobytes() == bits.view(np.float16).astype(np.float32).tobytes()
    again = np.zeros_like(bits)
    kernel.to_storage(held, again, dtype=NUMBERS[dtype])
    assert again.tobytes() == bits.tobytes()
    for infinite in (INFINITY[dtype], INFINITY[dtype] | 0x8000, INFINITY[dtype] + 1):
        with pytest.raises(errors.NonFinite):
            kernel.from_storage(np.array([infinite], np.uint16), np.zeros(1, np.float32), dtype=NUMBERS[dtype])


@given(st.integers(0, 1 << 32), LENGTHS, st.sampled_from(sorted(INFINITY)), st.sampled_from([0.0, 0.01, 0.5, 1.0]), st.booleans())
def test_planes_and_parent_give_back_what_was_split(seed: int, n: int, dtype: str, density: float, alone: bool) -> None:
    rng = np.random.default_rng(seed)
    parent = stored(rng, dtype, n)
    fresh = neighbours(rng, parent, density)
    width, end = fresh.itemsize, INFINITY[dtype]
    before = None if alone else parent
    changed, planes = np.zeros((n + 7) // 8, np.uint8), np.zeros(width * n, np.uint8)
    seen = agree("split_planes", fresh, before, changed, planes, out=(2,), infinity=end)
    if isinstance(seen[0], type):  # a neighbour of the largest number is none
        assert seen[0] is errors.NonFinite
        return
    count = kernel.split_planes(fresh, before, changed, planes, infinity=end)
    twin_changed, twin_planes = np.zeros_like(changed), np.zeros_like(planes)
    assert twin.split_planes(fresh, before, twin_changed, twin_planes, infinity=end) == count
    rows = planes.reshape(width, n)[:, :count]
    assert np.array_equal(rows, twin_planes.reshape(width, n)[:, :count])
    told = np.unpackbits(changed, bitorder="little", count=n).astype(bool)
    assert np.array_equal(told, fresh != (np.zeros_like(fresh) if alone else parent))
    packed = np.ascontiguousarray(rows).reshape(-1)
    joined = agree("join_planes", changed, packed, before, np.zeros(n, fresh.dtype), out=(3,), count=count, infinity=end)
    assert joined == (None, [fresh.tobytes()])
    if not alone:
        in_place = parent.copy()
        kernel.join_planes(changed, packed, in_place, in_place, count=count, infinity=end)
        assert in_place.tobytes() == fresh.tobytes()


@given(st.integers(0, 1 << 32), LENGTHS, st.sampled_from(sorted(INFINITY)))
def test_planes_of_anything_are_joined_alike_or_refused_alike(seed: int, n: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    parent = stored(rng, dtype, n)
    bits = rng.random((n + 7) // 8 * 8) < rng.choice([0.02, 0.5, 1.0])
    bits[n:] = rng.random() < 0.1
    count = int(bits.sum()) + int(rng.random() < 0.1)
    count = min(count, n)
    planes = rng.integers(0, rng.choice([2, 256]), parent.itemsize * max(count, 1), np.uint8)
    agree(
        "join_planes", np.packbits(bits, bitorder="little"), planes, parent, np.zeros_like(parent), out=(3,), count=count,
        infinity=INFINITY[dtype],
    )  # fmt: skip


@given(st.integers(0, 1 << 32), LENGTHS, st.sampled_from(sorted(INFINITY)))
def test_ordered_differences_add_and_order_like_the_numbers(seed: int, n: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    a, b, c = (stored(rng, dtype, n) for _ in range(3))
    end = INFINITY[dtype]

    def difference(x: Any, y: Any) -> Any:
        seen = agree("ordered_differences", x, y, np.zeros(n, np.int32), out=(2,), infinity=end)
        return np.frombuffer(seen[1][0], np.uint32)

    assert np.array_equal(difference(b, a) + difference(c, b), difference(c, a))
    if dtype == "float32" and n:
        number = np.sort(a.view(np.float32))
        steps = difference(number.view(np.uint32), np.repeat(number.view(np.uint32)[:1], n)).astype(np.int64)
        rises = np.diff(number) > 0  # and the two zeros, which are alike as numbers, in any order
        assert (np.diff(steps)[rises] > 0).all()


def test_a_number_that_is_none_is_named_and_infinities_of_another_type_are_refused() -> None:
    fresh = np.zeros(1000, np.float32)
    fresh[700] = np.nan
    changed, planes = np.zeros(125, np.uint8), np.zeros(4000, np.uint8)
    for core in (kernel, twin):
        with pytest.raises(errors.NonFinite) as caught:
            core.split_planes(fresh.view(np.uint32), None, changed, planes, infinity=0x7F800000)
        assert caught.value.facts["index"] == 700
        for infinity in (0x7C00, 1, -1):
            with pytest.raises(errors.KernelError):
                core.split_planes(fresh.view(np.uint32), None, changed, planes, infinity=infinity)
        with pytest.raises(errors.KernelError):
            core.split_planes(fresh.view(np.uint32), None, changed, planes[:-1], infinity=0)
        with pytest.raises(errors.KernelError):
            core.join_planes(changed, planes[:-1], None, fresh.view(np.uint32), count=0, infinity=0)
        with pytest.raises(errors.KernelError):
            core.join_planes(changed, planes, None, fresh.view(np.uint32), count=1001, infinity=0)
        with pytest.raises(errors.KernelError):
            core.to_storage(fresh, np.zeros(1000, np.uint16), dtype=1)
        with pytest.raises(errors.KernelError):
            core.from_storage(np.zeros(4, np.uint16), np.zeros(4, np.float32), dtype=4)


def lz4_agrees(block: bytes) -> bool:
    """Return whether a packed plane is taken by all kernels and the twin alike."""
    return isinstance(agree("check_lz4", np.frombuffer(block, np.uint8), out=())[1], list)


@given(st.binary(max_size=400), st.integers(0, 30))
def test_what_lz4_writes_is_taken_and_ends_where_it_ends(content: bytes, repeats: int) -> None:
    block = lz4.block.compress(content * repeats + content, store_size=False)
    assert lz4_agrees(block)
    if len(block) > 1:
        assert not lz4_agrees(block[:-1])


@given(st.binary(max_size=60))
def test_any_bytes_at_all_get_one_verdict_as_lz4(block: bytes) -> None:
    if not lz4_agrees(block):
        return
    with contextlib.suppress(lz4.block.LZ4BlockError):  # it refuses more
        lz4.block.decompress(block, uncompressed_size=20_000)


@pytest.mark.parametrize(("offset", "taken"), [(0, False), (1, True), (256, True)])
def test_a_match_with_offset_0_is_refused(offset: int, taken: bool) -> None:
    block = bytes([0x1F, 7]) + offset.to_bytes(2, "little") + bytes([30, 0x50]) + bytes([7] * 5)
    assert lz4_agrees(block) is taken
    with_long_literals = bytes([0xF0, 255, 3]) + bytes(15 + 255 + 3) + offset.to_bytes(2, "little") + bytes([0x50]) + bytes([7] * 5)
    assert lz4_agrees(with_long_literals) is taken
