"""Bytes written to the disk: from the kernel where it counts them, else an own count that says so; by day, over restarts."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgeagent.service.befallen import befallen
from edgeagent.settings import reading
from edgeagent.spending import flash
from edgeagent.spending.flash import EVERY, KEPT, KERNEL, OWN, ROW, FlashCount, of_process, written
from edgeagent.spending.tables import TABLES
from edgeagent.state.looking import look_at
from edgeagent.system.database import create_database
from edgecommon import disk, files
from edgecommon.disk import WriteTally
from edgecommon.sqlite import Database
from tests.edgeagent.boards import centre, fill, rig
from tests.edgeagent.centre import FakeClock

DAY = 86_400.0
NOW = 1_800_000_000.0


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return create_database(tmp_path / "x.db", TABLES + "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;", 1)


def kernel(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "io").write_text(f"rchar: 1\nwchar: 2\nwrite_bytes: {count}\ncancelled_write_bytes: 0\n")
    return folder


def test_the_kernel_s_count_is_noted_by_day_and_estimated_for_one(tmp_path: Path, database: Database) -> None:
    process = kernel(tmp_path / "proc", 1000)
    count = FlashCount(database, lambda: 0, process=process)
    count.begin(0.0)
    kernel(process, 5_001_000)
    count.look(NOW, EVERY - 1)
    assert written(database).bytes == 0, "a note is a write itself"
    count.look(NOW, EVERY)
    known = written(database)
    assert (known.bytes, known.seconds, known.source) == (5_000_000, EVERY, KERNEL) and known.a_day == pytest.approx(20_000_000)
    kernel(process, 6_001_000)
    count.close(NOW + DAY, 2 * EVERY)
    assert written(database).bytes == 6_000_000 and written(database).days == 2


def test_where_no_kernel_counts_files_and_rows_are(tmp_path: Path, database: Database) -> None:
    rows = [10]
    count = FlashCount(database, lambda: rows[0], process=tmp_path / "none")
    count.begin(0.0)
    files.write(tmp_path / "file", bytes(70_000))
    rows[0] += 5
    count.close(NOW, 7200.0)
    assert written(database).bytes == 70_000 + 5 * ROW and written(database).source == OWN and "estimate" in flash.SAID[OWN]


@pytest.mark.parametrize("text", ["", "write_bytes", "write_bytes: x\n", "write_bytes: -3\n", "a: b: c\n"])
def test_whatever_a_kernel_says_it_is_a_count_or_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "io").write_text(text)
    assert of_process(tmp_path) in (None, 0)


def test_counts_of_two_sources_do_not_add_and_old_days_go(tmp_path: Path, database: Database) -> None:
    process = kernel(tmp_path / "proc", 0)
    count = FlashCount(database, lambda: 0, process=process)
    count.begin(0.0)
    for day in range(KEPT + 9):
        kernel(process, 1000 * (day + 1))
        count.look(NOW + day * DAY, (day + 1) * DAY)
    assert written(database).bytes == 1000 * KEPT and written(database).days == KEPT
    other = FlashCount(database, lambda: 1, process=tmp_path / "none")
    other.begin(0.0)
    other.close(NOW, 7200.0)
    assert written(database).source == OWN and written(database).days == 1


def test_a_kernel_that_says_nothing_for_a_moment_changes_no_count(tmp_path: Path, database: Database) -> None:
    """As where no more files may be opened."""
    process = kernel(tmp_path / "proc", 1000)
    count = FlashCount(database, lambda: 0, process=process)
    count.begin(0.0)
    (process / "io").unlink()
    count.look(NOW, EVERY)
    kernel(process, 3000)
    count.look(NOW, 2 * EVERY)
    assert written(database).bytes == 2000


def test_a_clock_that_is_set_takes_no_bytes_away(tmp_path: Path, database: Database) -> None:
    process = kernel(tmp_path / "proc", 0)
    count = FlashCount(database, lambda: 0, process=process)
    count.begin(0.0)
    for i, wall in enumerate((NOW, NOW - 3650 * DAY, NOW + 3650 * DAY, -1e30, 1e300)):
        kernel(process, 100 * (i + 1))
        count.look(wall, (i + 1) * 1000.0, at_once=True)
    assert written(database).bytes == 500 and written(database).seconds == 5000


# Of which parts it is.


def test_what_is_written_is_counted_for_the_part_that_writes_it(tmp_path: Path, database: Database) -> None:
    process = kernel(tmp_path / "proc", 0)
    count = FlashCount(database, lambda: 0, process=process)
    count.begin(0.0)
    kernel(process, 100)
    with disk.writing("models"):
        kernel(process, 1100)
        with disk.writing("samples"):
            kernel(process, 1300)
        kernel(process, 1400)
    kernel(process, 1450)
    count.look(NOW, EVERY)
    assert flash.noted(database).days == {1: {"other": 150, "models": 1100, "samples": 200}} and written(database).bytes == 1450
    with disk.writing("journal"):
        kernel(process, 2450)
    count.close(NOW, 2 * EVERY)
    assert flash.noted(database).days[1]["journal"] == 1000
    before = disk.begin_part("models")
    assert before == disk.OTHER, "nothing counts any more"


def test_rows_are_counted_for_their_file_alone_or_in_a_transaction_and_none_goes_astray(tmp_path: Path, database: Database) -> None:
    other = create_database(tmp_path / "y.db", "CREATE TABLE t (a);", 1)
    other.part, counted = "samples", [0]
    tally = WriteTally(lambda: counted[0])
    with disk.tallied(tally):
        other.connection.create_function("took", 1, lambda n: counted.__setitem__(0, counted[0] + n))
        other.insert("t", a=1)
        other.run("INSERT INTO t VALUES (took(5))")
        with other.transaction():
            other.run("UPDATE t SET a=took(2)")
            with pytest.raises(Exception, match="no such"):
                other.run("INSERT INTO none VALUES (1)")
        counted[0] += 7
        with pytest.raises(RuntimeError), other.transaction():
            counted[0] += 11
            raise RuntimeError
        assert tally.taken() == {"samples": 5 + 4 + 11, "other": 7} and not tally.taken().total()


def test_another_thread_s_writes_are_counted_and_move_no_part(tmp_path: Path) -> None:
    counted = [0]
    tally = WriteTally(lambda: counted[0])

    def write() -> None:
        with disk.writing("models"):
            counted[0] += 5

    with disk.tallied(tally), disk.writing("journal"):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert tally.taken()["journal"] == 5


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"days": [[1]], "process": 1, "count": 1}', '{"days": 1}', "[" * 5000])
def test_whatever_stands_there_of_parts_is_read_or_is_nothing(database: Database, text: str) -> None:
    database.insert("meta", key="written", value=text)
    assert flash.noted(database).days == {}


# A day's bytes.


def test_a_day_ends_with_the_clock_s_and_not_when_that_goes_back(tmp_path: Path, database: Database) -> None:
    process = kernel(tmp_path / "proc", 0)
    count = FlashCount(database, lambda: 0, process=process)
    count.begin(0.0)
    kernel(process, 1000)
    assert count.today(NOW) == 1000
    count.look(NOW, 10.0, at_once=True)
    kernel(process, 1500)
    assert count.today(NOW) == 1500 and flash.today(database, NOW).bytes == 1000
    assert count.today(NOW + DAY) == 500
    count.look(NOW - 3650 * DAY, 20.0, at_once=True)
    assert count.today(NOW - 3650 * DAY) == 1500, "1970 after a power cut gives no day away"
    count.look(NOW - 3650 * DAY, 20.0 + DAY, at_once=True)
    kernel(process, 1600)
    count.look(NOW - 3650 * DAY, 30.0 + DAY, at_once=True)
    assert count.today(NOW - 3650 * DAY) == 100, "nor is it waited for until a clock that was years ahead is right"
    count.close(NOW, 40.0 + DAY)


def test_a_later_start_goes_on_with_the_day(tmp_path: Path, database: Database) -> None:
    for expected in (1000, 2000):
        process = kernel(tmp_path / "proc", 0)
        count = FlashCount(database, lambda: 0, process=process)
        count.begin(0.0)
        kernel(process, 1000)
        assert count.today(NOW) == expected
        count.close(NOW, 60.0)
    assert flash.spent(2000, 2000) and not flash.spent(2001, 2000) and not flash.spent(0, 1 << 60)


# The agent.


def test_rounds_wait_when_the_day_s_bytes_are_spent_and_all_else_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    said, written_bytes = centre(clock), [0]
    monkeypatch.setattr(flash, "of_process", lambda process: written_bytes[0])
    with rig(tmp_path / "d", said, train__every="30m", budget__flash_bytes_a_day="1MiB") as r:
        fill(r.device)
        r.serve(60)
        first = r.lineage.head().version
        r.centre.after(10, lambda: written_bytes.__setitem__(0, 2 << 20))
        r.serve(5400)
        assert first >= 1 and r.lineage.head().version == first and len(said.said("hello")) >= 2
        wait = r.lineage.waiting()
        assert wait is None, "the agent has ended"
        r.centre.after(100, lambda: seen.append(r.lineage.waiting()))
        seen: list[object] = []
        r.serve(200)
        assert "flash-spent" in str(seen[0]) and "next day" in str(seen[0])
        loaded = reading.load(tmp_path / "d" / reading.FILE, environment={}, flags={})
        with look_at(loaded) as glance:
            assert [one.id for one in befallen(glance, clock.wall())] == ["flash-spent"]
            assert not befallen(glance, clock.wall() + DAY)
        clock.now += DAY
        r.serve(900)
        assert r.lineage.head().version > first
