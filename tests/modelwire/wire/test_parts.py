"""Parts are those that their transfer names: their lengths, their number, and room for their content."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire.errors import DigestMismatch, Malformed, TooLarge
from modelwire.wire import parts
from modelwire.wire.records import Transfer
from tests.modelwire.wire.examples import WHO


def test_a_part_of_another_length_than_its_transfer_says_is_refused() -> None:
    # A transfer of four bytes in four parts of one byte, with the hashes of four parts of 90,000.
    large = bytes(90_000)
    hashes = hashlib.sha256(large).digest() * 4
    transfer = Transfer(*WHO, bytes(32), 4, 1, hashes)
    with pytest.raises(Malformed, match="90000 bytes"):
        parts.check(transfer, parts.Part(transfer.id, 0, large))
    short = Transfer(*WHO, bytes(32), 5, 3, hashlib.sha256(b"abc").digest() * 2)
    parts.check(short, parts.Part(short.id, 0, b"abc"))
    with pytest.raises(Malformed):
        parts.check(short, parts.Part(short.id, 1, b"abc"))


def test_a_bitmap_that_names_parts_beyond_the_last_is_refused() -> None:
    assert parts.missing(b"\x05", 3) == [1]
    for have in (b"\x0d", b"\x85", b"\x05\x00", b""):
        with pytest.raises(Malformed):
            parts.missing(have, 3)


@pytest.mark.parametrize("room", [-1, 0, 43, 44])
def test_a_message_with_no_room_for_a_parts_content_is_refused(room: int) -> None:
    with pytest.raises(TooLarge):
        parts.describe(bytes(100), fleet="demo", device="pi-7", model="digits", at=1, part=room)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(100, 900), st.randoms())
def test_parts_join_in_any_order(size: int, part: int, rng: random.Random) -> None:
    whole = rng.randbytes(size)
    transfer = parts.describe(whole, fleet="demo", device="pi-7", model="digits", at=1, part=part)
    n = parts.count(transfer)
    order = list(range(n))
    rng.shuffle(order)
    held: dict[int, bytes] = {}
    for i in order:
        assert i in parts.missing(parts.bitmap(set(held), n), n)
        message = parts.cut(whole, transfer, i)
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
    whole = bytes(1000)
    transfer = parts.describe(whole, fleet="demo", device="pi-7", model="digits", at=1, part=300)
    good = parts.parse(parts.cut(whole, transfer, 0))
    with pytest.raises(DigestMismatch):
        parts.check(transfer, parts.Part(good.id, 3, good.data))
    with pytest.raises(Malformed):
        parts.check(transfer, parts.Part(bytes(32), 0, good.data))
    with pytest.raises(Malformed):
        parts.check(transfer, parts.Part(good.id, 99, good.data))


@pytest.mark.parametrize(
    ("size", "part_size", "hashes"),
    [(0, 10, 0), (1 << 40, 10, 1), (100, 0, 1), (100, 1 << 30, 1), (100, 10, 9), (20000, 1, 20000)],
)
def test_a_transfer_whose_numbers_lie_is_refused(size: int, part_size: int, hashes: int) -> None:
    with pytest.raises((Malformed, TooLarge)):
        parts.count(Transfer(*WHO, bytes(32), size, part_size, bytes(32 * hashes)))
