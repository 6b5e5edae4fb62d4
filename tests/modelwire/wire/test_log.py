"""The links of the centre's log: each binds all before it."""

from __future__ import annotations

import hashlib
import struct

import pytest

from modelwire.errors import BadSignature, Malformed
from modelwire.wire.log import Link, next_link, parse_link
from tests.keys import COMMAND, FLEET_ID, RECEIPT


def test_a_link_is_what_the_page_says() -> None:
    link, before = None, bytes(32)
    for number, entry in enumerate((b"one", b"", b"three"), start=1):
        link = next_link(link, entry)
        before = hashlib.sha256(b"\x06" + struct.pack("<Q", number) + before + hashlib.sha256(entry).digest()).digest()
        assert link == Link(number, before) == parse_link(link.encode())


def test_one_entry_changed_left_out_or_moved_gives_another_end() -> None:
    def end(*entries: bytes) -> Link | None:
        link = None
        for entry in entries:
            link = next_link(link, entry)
        return link

    ends = [end(b"a", b"b", b"c"), end(b"a", b"x", b"c"), end(b"a", b"c"), end(b"b", b"a", b"c"), end(b"a", b"b", b"c", b"")]
    assert len({e.digest for e in ends if e}) == len(ends)


def test_a_link_is_signed_by_the_receipt_key_in_a_domain_of_its_own() -> None:
    link = next_link(None, b"x")
    signature = link.sign(RECEIPT, FLEET_ID)
    link.verify(RECEIPT.public, FLEET_ID, signature)
    moved = Link(2, link.digest)
    for public, fleet, other in ((COMMAND.public, FLEET_ID, link), (RECEIPT.public, bytes(16), link), (RECEIPT.public, FLEET_ID, moved)):
        with pytest.raises(BadSignature):
            other.verify(public, fleet, signature)


def test_what_is_no_link_is_refused() -> None:
    for bad in (b"", bytes(39), bytes(41), bytes(40), b"\xff" * 40):
        with pytest.raises(Malformed):
            parse_link(bad)
