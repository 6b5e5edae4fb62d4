"""Parts are leaves of the tree that their transfer names: their lengths, their number, their place, and room for their content."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire.errors import DigestMismatch, Malformed, ModelWireError, TooLarge
from modelwire.wire import parts
from modelwire.wire.records import Transfer
from tests.modelwire.wire.examples import WHO

ROOM = 2000  # bytes of a message: parts of 1,024


def cut_up(whole: bytes, part: int = ROOM) -> parts.Outgoing:
    return parts.describe(whole, fleet="demo", device="pi-7", model="digits", at=1, part=part)


def test_a_part_of_another_length_than_its_transfer_says_is_refused() -> None:
    # Each part is proven alone: what a tree of other leaves proves must still be as long as the transfer says.
    whole = bytes(3000)
    good = cut_up(whole)
    larger = cut_up(whole, 4096)
    assert (good.transfer.part_size, larger.transfer.part_size) == (1024, 2048)
    lie = replace(larger.transfer, part_size=1024)
    piece = parts.parse(larger.cut(0))
    with pytest.raises(Malformed, match="2048 bytes instead of 1024"):
        parts.check(lie, piece)
    for data in (piece.data[:1024], b""):
        with pytest.raises(ModelWireError):
            parts.check(lie, replace(piece, data=data))


def test_a_bitmap_that_names_parts_beyond_the_last_is_refused() -> None:
    assert parts.missing(b"\x05", 3) == [1]
    for have in (b"\x0d", b"\x85", b"\x05\x00", b""):
        with pytest.raises(Malformed):
            parts.missing(have, 3)


@pytest.mark.parametrize("room", [-1, 0, 44, 1024, 1024 + 44 + 14 * 32 - 1])
def test_a_message_with_no_room_for_a_parts_content_is_refused(room: int) -> None:
    with pytest.raises(TooLarge):
        cut_up(bytes(100), room)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40_000), st.integers(1516, 9000), st.randoms())
def test_parts_join_in_any_order(size: int, part: int, rng: random.Random) -> None:
    whole = rng.randbytes(size)
    out = cut_up(whole, part)
    transfer, n = out.transfer, out.count
    assert parts.count(transfer) == n
    order = list(range(n))
    rng.shuffle(order)
    held: dict[int, bytes] = {}
    for i in order:
        assert i in parts.missing(parts.bitmap(set(held), n), n)
        message = out.cut(i)
        assert len(message) <= part
        piece = parts.parse(message)
        parts.check(transfer, piece)
        held[piece.index] = piece.data
    assert parts.missing(parts.bitmap(set(held), n), n) == []
    assert parts.join(transfer, held) == whole
    del held[order[0]]
    with pytest.raises(Malformed):
        parts.join(transfer, held)


def test_a_part_that_is_not_the_one_named_is_refused() -> None:
    out = cut_up(random.Random(1).randbytes(10_000))
    good = parts.parse(out.cut(0))
    parts.check(out.transfer, good)
    for bad in (
        replace(good, index=3), replace(good, path=good.path[:-1]), replace(good, path=(*good.path, bytes(32))), replace(good, path=()),
        replace(good, path=good.path[::-1]), replace(good, data=b"\1" + good.data[1:]),
    ):  # fmt: skip
        with pytest.raises(DigestMismatch):
            parts.check(out.transfer, bad)
    for bad in (replace(good, id=bytes(32)), replace(good, index=10)):
        with pytest.raises(Malformed):
            parts.check(out.transfer, bad)


def test_a_tree_and_a_size_that_disagree_prove_no_part() -> None:
    out = cut_up(random.Random(2).randbytes(9 * 1024))
    for size in (8 * 1024, 10 * 1024, 5 * 1024, 17 * 1024):
        lie = replace(out.transfer, size=size)
        taken = 0
        for i in range(out.count):
            try:
                parts.check(lie, parts.parse(out.cut(i)))
            except (DigestMismatch, Malformed):
                continue
            taken += 1
        assert taken < parts.count(lie), size  # it never becomes whole
    whole = {i: parts.parse(out.cut(i)).data for i in range(out.count)}
    with pytest.raises(DigestMismatch):
        parts.join(replace(out.transfer, id=bytes(32)), whole)


@pytest.mark.parametrize(
    ("size", "part_size", "what"),
    [(0, 1024, "update"), (1 << 40, 65_536, "base"), (65 << 20, 65_536, "update"), (601 << 20, 65_536, "bundle"), (100, 0, "update"),
     (100, 1 << 17, "update"), (100, 1000, "update"), (100, 512, "update"), (17 << 20, 1024, "update")],
)  # fmt: skip
def test_a_transfer_whose_numbers_lie_is_refused(size: int, part_size: int, what: str) -> None:
    with pytest.raises((Malformed, TooLarge)):
        parts.count(Transfer(*WHO, bytes(32), size, part_size, what, bytes(32), b""))


def test_a_model_file_of_the_limit_goes_in_parts() -> None:
    assert parts.count(Transfer(*WHO, bytes(32), 600 << 20, 65_536, "base", bytes(32), b"")) == 9600


def test_what_is_no_part_is_refused() -> None:
    good = cut_up(bytes(5000)).cut(1)
    path = [good[:6] + b"\x0f" + good[7:], good[:6] + b"\x0e" + good[7 : 44 + 14 * 32]]
    for bad in (good[:44], good[:43], b"", b"\x88" + good[1:], good[:4] + b"\2" + good[5:], *path):
        with pytest.raises(Malformed):
            parts.parse(bad)
    with pytest.raises(TooLarge):
        parts.parse(good + bytes(98_304))
