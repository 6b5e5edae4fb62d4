"""An agent whose disk fills up, on a disk that really does: it waits, keeps its link, says so once, and loses nothing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeagent.link.transport import Arrived
from edgeagent.rounds import journal
from edgeagent.service.disk_wait import DiskWait, wait_at_start
from edgeagent.service.goal import Goal
from edgeagent.service.measuring import Measured, Measuring
from edgeagent.state.folder import LOCK
from edgeagent.system.clock import Clock
from edgeagent.system.notice import notice_of
from edgecommon import files
from modelwire.errors import DiskUnwritable
from modelwire.wire.more import troubles_in
from modelwire.wire.records import Hello, Wait, Welcome
from tests.disks import SmallDisk, small_disk
from tests.edgeagent.boards import centre, command, fill, rig
from tests.edgeagent.by_hand import one
from tests.edgeagent.centre import FakeClock


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "1m") as d:
        yield d


def here(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in r.getMessage() for r in caplog.records if r.levelno >= logging.INFO)


def test_an_agent_with_nothing_to_write_sees_that_its_disk_is_full(
    small: SmallDisk, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    c = centre(clock)
    with rig(small.path / "d", c, train__min_samples="1000") as r:
        c.after(90, small.fill)
        r.serve(300)
        said = [troubles_in(record.more) for _, record in c.up if isinstance(record, Hello)]
        assert "disk-full" not in said[0] and "disk-full" in said[-1]
        assert here(caplog, "trouble disk-full: ") == 1
        c.after(1, small.free)
        r.serve(4000)
        said = [troubles_in(record.more) for _, record in c.up if isinstance(record, Hello)]
        assert "disk-full" not in said[-1]


@pytest.mark.slow("lives through many rounds", seconds=4)
def test_rounds_go_on_when_there_is_room_and_no_number_is_used_twice(
    small: SmallDisk, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    c, seen = centre(clock), []
    with rig(small.path / "d", c, train__every="1m") as r:
        fill(r.device)

        def look() -> None:
            seen.append((r.lineage.head().version, r.agent._disk.waits, c.online, here(caplog, "waiting for room")))

        c.after(90, small.fill)
        for at in (89, 600, 900):
            c.after(at, look)
        c.after(901, small.free)
        r.serve(1200)
        (before, *_), (held, *waits), later = seen
        assert before == 2 and held <= before + 1, "what was begun may still have found its place"
        assert waits == [True, True, 1] and later == (held, True, True, 1), "it keeps its link, and says it once"
        assert not r.agent._disk.waits and r.lineage.head().version >= held + 4
        assert here(caplog, "there is room on the disk again") == 1
        assert sorted(c.held("pi-7", "tiny")) == list(range(1, r.lineage.head().version + 1))
        assert set(r.states().values()) == {"verified"}


def test_the_centre_is_told_of_a_full_disk_at_once(small: SmallDisk, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(small.path / "d", c, train__min_samples="1000") as r:

        def fill_up() -> None:
            small.fill()
            r.agent._disk.begin(DiskUnwritable(path=small.path, reason="", disk="", fix=""))

        c.after(90, fill_up)
        r.serve(200)
        said = [troubles_in(record.more) for _, record in c.up if isinstance(record, Hello)]
        assert "disk-full" not in said[0] and said[-1]["disk-full"] == "the disk takes nothing more: it is full, or over a quota"
        c.after(1, small.free)
        r.serve(4000)
        said = [troubles_in(record.more) for _, record in c.up if isinstance(record, Hello)]
        assert "disk-full" not in said[-1], "an hour later it is over"


def test_what_the_centre_says_meanwhile_is_taken_afterwards_in_its_order(small: SmallDisk, clock: FakeClock) -> None:
    c, acknowledged, held = centre(clock), list[str](), list[int]()
    plain = c.acknowledge

    def acknowledge(message: Arrived) -> None:
        acknowledged.append(message.topic)
        plain(message)

    with rig(small.path / "d", c, train__min_samples="1000") as r:
        r.serve(60)
        c.acknowledge = acknowledge  # type: ignore[method-assign]

        def fill_up() -> None:
            small.fill()
            r.agent._disk.begin(DiskUnwritable(path=small.path, reason="", disk="", fix=""))
            acknowledged.clear()  # the welcome's
            c.drop_down = lambda record: isinstance(record, Welcome)  # the answer to the hello that tells of it

        c.after(5, fill_up)
        c.after(6, lambda: c.push(Wait("home", "pi-7", "tiny", 0, 50, "first")))
        c.after(7, lambda: c.push(Wait("home", "pi-7", "tiny", 0, 3000, "second")))
        c.after(40, lambda: held.extend((len(acknowledged), len(r.agent._disk.held))))
        c.after(41, small.free)
        r.serve(90)
        assert held == [0, 2], "neither is acknowledged, so a kill would bring them again"
        assert len(acknowledged) == 2 and r.lineage.quiet().reason == "second"


@pytest.mark.slow("lives through ten minutes", seconds=2)
def test_a_command_that_finds_no_room_is_carried_out_once_there_is(small: SmallDisk, clock: FakeClock) -> None:
    c, seen = centre(clock), list[tuple[int, int]]()
    with rig(small.path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        version = r.lineage.head().version
        c.after(5, small.fill)
        c.after(6, lambda: c.push(command(r, 1)))
        c.after(300, lambda: seen.append((r.lineage.head().version, len(c.answers))))
        c.after(301, small.free)
        r.serve(600)
        assert seen == [(version, 0)], "nothing is answered that was not done"
        assert r.lineage.head().version == version + 1 and {a.ok for a in c.answers} == {True}


@pytest.mark.slow("lives through many rounds", seconds=4)
def test_a_link_that_is_lost_meanwhile_comes_back(small: SmallDisk, clock: FakeClock) -> None:
    c, hellos, waits = centre(clock), list[int](), list[bool]()

    def look() -> None:
        hellos.append(len(c.said("hello")))
        waits.append(r.agent._disk.waits)

    with rig(small.path / "d", c, train__every="1m") as r:
        fill(r.device)
        c.after(60, small.fill)
        c.after(300, look)
        c.after(310, c.cut)
        c.after(320, c.mend)
        c.after(400, look)
        c.after(401, small.free)
        r.serve(700)
        assert waits == [True, True] and hellos[1] > hellos[0], "it says hello with its disk full"
        assert not r.agent._disk.waits and set(r.states().values()) == {"verified"}


def test_who_only_publishes_does_not_wait_and_a_goal_with_a_time_ends_with_the_disk(small: SmallDisk, clock: FakeClock) -> None:
    with rig(small.path / "d", centre(clock)) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        one(r)
        small.fill()
        with pytest.raises(DiskUnwritable):
            r.run(Goal(publish=True, timeout=60))
    small.free()
    with rig(small.path / "d", centre(clock)) as r:
        r.agent.device.count_boot()
        small.fill()
        with pytest.raises(DiskUnwritable):
            r.run(Goal(rounds=50, timeout=30))


def test_a_round_whose_last_file_found_no_room_is_finished_from_its_journal(
    small: SmallDisk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "EVERY", 0.0)
    with rig(small.path / "d", centre(clock), train__epochs="3") as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        plain, full = files.write, [True]

        def write(path: Path, data: bytes, **more: object) -> None:
            if full[0] and path.name == "private":
                raise DiskUnwritable(path=path, reason="No space left on device", disk="", fix="", needed=1)
            plain(path, data, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(files, "write", write)
        with pytest.raises(DiskUnwritable):
            one(r)
        left = journal.read(r.lineage.journal)
        assert left is not None and left.done == left.facts.steps, "all its steps are kept"
        full[0] = False
        report = one(r)
        assert report.accepted and report.outcome.steps == left.facts.steps and r.lineage.head().version == 2


def test_the_agent_tells_those_who_ask_for_as_long_as_it_waits(small: SmallDisk) -> None:
    seconds = [0.0]
    wait = DiskWait(Clock(lambda: seconds[0], lambda: 1_800_000_000.0))
    small.fill()
    with wait.minded():
        files.write(small.path / "f", bytes(9000))
    said = notice_of(os.getpid())
    assert said is not None and said["since"] == 1_800_000_000 and said["hint"] == f"make room on {small.path}"
    assert "256 KiB needed" in said["message"], "so much is waited for"
    assert not wait.over()
    small.free()
    assert not wait.over(), "not looked at yet"
    seconds[0] += 60
    assert wait.over() and notice_of(os.getpid()) is None


def test_what_finds_no_room_where_a_try_found_some_is_tried_ever_more_seldom_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    seconds, tries = [0.0], []
    wait = DiskWait(Clock(lambda: seconds[0], lambda: 0.0))
    error = DiskUnwritable(path=tmp_path, reason="Disk quota exceeded", disk="", fix="")
    for _ in range(600):
        if wait.over():
            tries.append(seconds[0])
            wait.begin(error)
        seconds[0] += 1.0
    assert len(tries) < 50 and tries[-1] - tries[-2] <= 16
    assert here(caplog, "waiting for room") == 1
    while not wait.over():
        seconds[0] += 1.0
    seconds[0] += 61
    assert wait.over() and caplog.records[-1].getMessage().startswith("there is room")


def test_what_fails_over_and_over_meanwhile_does_not_put_the_next_look_off(small: SmallDisk) -> None:
    seconds = [0.0]
    wait = DiskWait(Clock(lambda: seconds[0], lambda: 0.0))
    small.fill()
    for second in range(200):
        seconds[0] = float(second)
        if second == 100:
            small.free()
        if wait.over() and second >= 100:
            break
        with wait.minded():  # such as an update that is offered
            raise DiskUnwritable(path=small.path / "f", reason="No space left on device", disk="", fix="")
    assert 100 <= second <= 116


def test_what_is_no_trouble_of_the_disk_ends_the_agent_as_before(clock: FakeClock) -> None:
    wait = DiskWait(Clock(clock.monotonic, clock.wall))
    with pytest.raises(PermissionError), wait.minded():
        raise PermissionError(13, "Permission denied")
    wait.patient = False
    with pytest.raises(DiskUnwritable), wait.minded():
        raise DiskUnwritable(path="f", reason="", disk="", fix="")
    assert not wait.waits


@pytest.mark.slow("waits a second for its next look")
@pytest.mark.parametrize("how", ["full", "ro"])
def test_an_agent_that_is_started_on_such_a_disk_waits_and_holds_its_folder(small: SmallDisk, how: str) -> None:
    lock, waited = small.path / LOCK, threading.Event()
    with files.locked(lock):
        pass
    small.fill() if how == "full" else small.remount("ro")
    error = DiskUnwritable(path=lock, reason="", disk="", fix="")

    def sleep(_: float) -> None:
        waited.set()

    thread = threading.Thread(target=wait_at_start, args=(error, lock, Clock(sleep=sleep)))
    thread.start()
    assert waited.wait(60) and files.holder(lock) is not None
    small.free() if how == "full" else small.remount("rw")
    thread.join(60)
    assert not thread.is_alive() and files.holder(lock) is None


def test_what_could_not_be_measured_for_want_of_room_is_measured_when_there_is(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        measuring = Measuring(tmp_path / "d" / "edgeagent.toml", "tiny", [], limit=0)
        measuring.wait()
        full = DiskUnwritable(path="x", reason="No space left on device", disk="", fix="")
        measuring.measured.append(Measured("all", None, full.message, full))
        allowance = r.agent._allowance
        allowance._measuring = measuring
        allowance._base = base = r.lineage.base_commit
        allowance._measured.add(("tiny", base))
        with pytest.raises(DiskUnwritable):
            allowance.measuring()
        assert not allowance.measuring() and ("tiny", base) not in allowance._measured, "it may be begun again"


@pytest.mark.slow("starts a process", seconds=4)
def test_a_child_that_finds_no_room_tells_the_agent_so(small: SmallDisk, clock: FakeClock) -> None:
    with rig(small.path / "d", centre(clock)) as r:
        fill(r.device)
    small.fill()
    child = Measuring(small.path / "d" / "edgeagent.toml", "tiny", ["all"], limit=0)
    child.wait()
    (one_mode,) = child.measured
    assert one_mode.full is not None and "No space left on device" in one_mode.trouble and one_mode.full.code == 83
