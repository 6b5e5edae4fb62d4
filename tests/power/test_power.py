"""What disks may hold after a power cut is what the flushes leave open, no more and no less; both sides go on from it."""

from __future__ import annotations

import os
import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.power.states import SIDES, crash, disk, missing, moments, until
from tests.power.trace import FLUSH, FUA, SECTOR, TRACE, Fact, Trace, Write, encode, entries, load

FEW = 4
SECTORS = 6
LACKING = missing() if not os.environ.get("REQUIRE_CROSS") else []  # there it fails
writes = st.lists(
    st.tuples(st.integers(0, SECTORS - 1), st.integers(0, 2), st.sampled_from((0, 0, 0, FLUSH, FUA))), max_size=20
).map(
    lambda rows: [
        Write(at * SECTOR, bytes([i + 1]) * SECTOR * min(size, SECTORS - at) if not flags & FLUSH else b"", flags, i + 1)
        for i, (at, size, flags) in enumerate(rows)
    ]
)  # fmt: skip


def may_hold(requests: list[Write], sector: int) -> set[int]:
    """Return what a sector may hold: what was durable last, or anything that was written to it since."""
    flushed = max((i for i, one in enumerate(requests) if one.flags & FLUSH), default=-1)
    out = {0}
    for i, one in enumerate(requests):
        if one.at <= sector * SECTOR < one.at + len(one.data):
            out = {i + 1} if i < flushed or one.flags & FUA else out | {i + 1}
    return out


@given(writes, st.integers(0, 1 << 32))
def test_each_sector_holds_what_was_durable_or_something_later(requests: list[Write], seed: int) -> None:
    image = disk(bytes(SECTORS * SECTOR), requests, Random(seed))
    for sector in range(SECTORS):
        held = set(image[sector * SECTOR : (sector + 1) * SECTOR])
        assert len(held) == 1 and held <= may_hold(requests, sector)


@given(writes)
def test_all_that_a_cut_may_leave_is_tried_by_some_seed(requests: list[Write]) -> None:
    images = [disk(bytes(SECTORS * SECTOR), requests, Random(seed)) for seed in range(60)]
    for sector in range(SECTORS):
        held = {image[sector * SECTOR] for image in images}
        last = may_hold(requests, sector)
        assert len(last) == 1 or len(held) > 1, (sector, last)


def test_a_lying_disk_may_lose_what_it_has_flushed() -> None:
    requests = [Write(0, b"\x01" * SECTOR, 0, 1), Write(0, b"", FLUSH, 2)]
    assert {disk(bytes(SECTOR), requests, Random(seed))[0] for seed in range(60)} == {1}
    assert {disk(bytes(SECTOR), requests, Random(seed), lies=2)[0] for seed in range(60)} == {0, 1}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.sampled_from((0, FLUSH, FUA))), max_size=9), st.data())
def test_a_log_is_read_to_its_last_whole_request(rows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    log, ends = struct.pack("<QQQI", 0x6A736677736872, 1, 0, SECTOR).ljust(SECTOR, b"\0"), []
    for at, count, flags in rows:
        log += struct.pack("<QQQQ", at, count, flags, 0).ljust(SECTOR, b"\0") + bytes([at]) * SECTOR * count
        ends.append(len(log))
    cut = data.draw(st.integers(SECTOR, len(log)))
    found = list(entries(log[:cut]))
    assert [one.end for one in found] == [end for end in ends if end <= cut]
    assert [(one.at // SECTOR, len(one.data) // SECTOR, one.flags) for one in found] == rows[: len(found)]
    assert until(list(entries(log)), cut) == found
    with pytest.raises(ValueError, match="no log of dm-log-writes"):
        list(entries(b"\1" + log[1:]))


def test_a_trace_is_read_as_it_was_written() -> None:
    trace = load()
    assert {len(base) for base in trace.bases.values()} == {24 << 20} and TRACE.stat().st_size < 3 << 20
    assert {fact.kind for fact in trace.facts} == {"update", "stored", "verified"} and trace.moments == sorted(trace.moments)
    for side, last in zip(SIDES, trace.moments[-1], strict=True):
        assert trace.writes[side][-1].end == last and any(one.flags & FLUSH for one in trace.writes[side])
    small = Trace(dict.fromkeys(SIDES, b"base"), dict.fromkeys(SIDES, b"log"), [(1, 2)], [Fact("stored", 3, bytes(32), 0)])
    assert len(encode(small)) > 0


@pytest.mark.slow("replays disks, lets e2fsck mend them, and has both sides meet", seconds=4)
@pytest.mark.skipif(bool(LACKING), reason=f"not on this machine: {', '.join(LACKING)} (Debian: e2fsprogs)")
@pytest.mark.parametrize("number", range(FEW))
def test_both_sides_open_agree_and_go_on_after_a_power_cut(number: int) -> None:
    trace = load()
    one = crash(trace, moments(trace, FEW)[number], number)
    assert not one.bad, "\n".join(one.bad)
    assert number == 0 or one.versions > 0


@pytest.mark.slow("replays disks, lets e2fsck mend them, and has both sides meet", seconds=4)
@pytest.mark.skipif(bool(LACKING), reason=f"not on this machine: {', '.join(LACKING)} (Debian: e2fsprogs)")
def test_what_a_lying_disk_loses_is_seen() -> None:
    """So the judge can fail: the same moments, with a disk that has lost what it had promised."""
    trace = load()
    assert any(one.bad or one.named for one in (crash(trace, moment, 3, lying=("centre",)) for moment in moments(trace, 3)[1:]))
