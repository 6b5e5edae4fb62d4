"""Parts are those that their transfer names: their lengths, their number, and room for their content."""

from __future__ import annotations

import hashlib

import pytest

from modelwire.errors import Malformed, TooLarge
from modelwire.wire import parts
from modelwire.wire.records import Transfer
from tests.modelwire.wire.test_records import WHO


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
