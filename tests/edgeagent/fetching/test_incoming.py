"""What is on its way, on disk: right after a kill at any write, and never trusted before it is looked at."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.fetching.incoming import ACCOUNT, FILE, LEAVES, Incoming, discard
from edgeagent.fetching.tasks import LEAF
from modelwire import merkle
from modelwire.errors import DigestMismatch, DiskUnwritable

from .files import Wanted

WANTED = Wanted()
TASK = WANTED.task("http://files/m.tflite")


class Killed(BaseException):
    """The process is gone at this write."""


def piece(index: int) -> bytes:
    return WANTED.data[index * LEAF : (index + 1) * LEAF]


def opened(folder: Path) -> Incoming:
    incoming = Incoming(folder, TASK)
    while not incoming.look():
        pass
    return incoming


def fetch(incoming: Incoming, leaves: bool) -> None:
    """Do what a download does with a part."""
    if leaves and not incoming.proven:
        incoming.take_leaves(WANTED.leaves)
    while (index := incoming.next_missing()) is not None:
        incoming.charge(LEAF)
        incoming.keep(index, piece(index))
    while (said := incoming.prove()) is None:
        pass
    assert said


def dying(monkeypatch: pytest.MonkeyPatch, at: int, half: bool) -> Callable[[], int]:
    """Let the process end at a write: `half` of it is done. Returns what counts the writes."""
    count = [0]
    real = os.pwrite

    def write(handle: int, data: bytes, offset: int) -> int:
        count[0] += 1
        if count[0] == at:
            if half and len(data) > 1:
                real(handle, memoryview(data)[: len(data) // 2], offset)
            raise Killed
        return real(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    return lambda: count[0]


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_a_kill_at_every_write_costs_one_part_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: bool, half: bool) -> None:
    for at in range(1, 100):
        folder = tmp_path / str(at)
        with monkeypatch.context() as patch:
            count = dying(patch, at, half)
            kept = spent = 0
            try:
                incoming = Incoming(folder, TASK)
                incoming.look()
                while not incoming.held or incoming.next_missing() is not None:
                    if leaves and not incoming.proven:
                        incoming.take_leaves(WANTED.leaves)
                    incoming.charge(LEAF)
                    spent += LEAF
                    incoming.keep(incoming.next_missing() or 0, piece(incoming.next_missing() or 0))
                    kept += 1
            except Killed:
                pass
            done = count() < at
        again = opened(folder)
        assert kept <= len(again.held) <= kept + 1 and again.held == set(range(len(again.held)))
        assert again.spent >= spent - LEAF * half or half, "counted before it left"
        fetch(again, leaves)
        assert (folder / FILE).read_bytes() == WANTED.data
        again.close()
        if done:
            assert at > 10
            return
    pytest.fail("it has no end")


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_the_disk_has_made_of_it_no_wrong_part_is_held(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        incoming = opened(folder)
        leaves = data.draw(st.booleans())
        if leaves:
            incoming.take_leaves(WANTED.leaves)
        for index in data.draw(st.sets(st.integers(0, incoming.count - 1))):
            incoming.keep(index, piece(index))
        incoming.close()
        for file in data.draw(st.sets(st.sampled_from([FILE, LEAVES, ACCOUNT]))):
            held = bytearray((folder / file).read_bytes())
            if data.draw(st.booleans()) and held:
                held[data.draw(st.integers(0, len(held) - 1))] ^= data.draw(st.integers(1, 255))
            else:
                del held[data.draw(st.integers(0, len(held))) :]
            (folder / file).write_bytes(held)
        again = opened(folder)
        for index in again.held:
            start, stop = again.span(index)
            assert (folder / FILE).read_bytes()[start:stop] == WANTED.data[start:stop] or not again.proven
        fetch_all(again)
        again.close()


def fetch_all(incoming: Incoming) -> None:
    """Fetch what is missing; where the whole is another file then, all of it."""
    for _ in range(2):
        while (index := incoming.next_missing()) is not None:
            incoming.keep(index, piece(index))
        while (said := incoming.prove()) is None:
            pass
        if said:
            assert incoming.file.read_bytes() == WANTED.data
            return
        incoming.drop()
    pytest.fail("the whole is not the file")


def test_leaves_of_another_file_are_refused_and_a_wrong_part_is_not_kept(tmp_path: Path) -> None:
    incoming = opened(tmp_path)
    for wrong in (b"", WANTED.leaves[:-32], bytes(len(WANTED.leaves)), WANTED.leaves + bytes(32)):
        with pytest.raises(DigestMismatch):
            incoming.take_leaves(wrong)
    incoming.take_leaves(WANTED.leaves)
    for index, data in ((0, piece(1)), (0, piece(0)[:-1]), (0, piece(0) + b"x"), (incoming.count - 1, piece(0))):
        with pytest.raises(DigestMismatch):
            incoming.keep(index, data)
    assert not incoming.held


def test_leaves_that_come_late_drop_the_parts_that_they_do_not_prove(tmp_path: Path) -> None:
    incoming = opened(tmp_path)
    incoming.keep(0, bytes(LEAF))
    incoming.keep(1, piece(1))
    incoming.take_leaves(WANTED.leaves)
    assert incoming.held == {1} and incoming.next_missing() == 0


def test_another_cut_drops_what_was_here_and_the_same_one_does_not(tmp_path: Path) -> None:
    incoming = opened(tmp_path)
    incoming.keep(0, piece(0))
    incoming.cut(LEAF, TASK.tree)
    assert incoming.held == {0}
    half = merkle.merkle(merkle.leaves(WANTED.data, LEAF // 2))
    incoming.cut(LEAF // 2, half)
    assert incoming.held == set() and incoming.count == 11
    incoming.keep(3, WANTED.data[3 * LEAF // 2 : 4 * LEAF // 2])
    incoming.close()
    again = opened(tmp_path)
    assert (again.part, again.tree, again.held) == (LEAF // 2, half, {3})


def test_what_is_here_of_another_file_goes(tmp_path: Path) -> None:
    incoming = opened(tmp_path)
    incoming.keep(0, piece(0))
    incoming.fails(code="gone")
    incoming.close()
    other = Incoming(tmp_path, Wanted(7 * LEAF).task())
    assert (other.look(), other.held, other.failed, other.code) == (True, set(), 0, "")


def test_counts_are_on_the_disk(tmp_path: Path) -> None:
    incoming = opened(tmp_path)
    incoming.charge(1000)
    incoming.charge(-1)
    incoming.fails(strike=2)
    incoming.close()
    again = opened(tmp_path)
    assert (again.spent, again.failed, again.struck(2), again.struck(1), again.code) == (999, 1, True, False, "")
    again.ends("file")
    assert opened(tmp_path).code == "file"


def test_a_full_disk_is_said_by_name_and_the_part_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = opened(tmp_path)

    def full(handle: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskUnwritable):
        patch.setattr(os, "pwrite", full)
        incoming.keep(0, piece(0))
    assert 0 not in incoming.held
    incoming.keep(0, piece(0))
    assert incoming.held == {0}


def test_discarding_leaves_nothing_and_may_be_done_twice(tmp_path: Path) -> None:
    opened(tmp_path).keep(0, piece(0))
    discard(tmp_path)
    discard(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_for_hours_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        for _ in range(5):
            with pytest.raises(DiskUnwritable):
                Incoming(tmp_path, TASK)
    assert len(os.listdir("/proc/self/fd")) == before
    opened(tmp_path).close()
    assert len(os.listdir("/proc/self/fd")) == before
