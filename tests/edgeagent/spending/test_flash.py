"""Bytes written to the disk: from the kernel where it counts them, else an own count that says so; by day, over restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.spending import flash
from edgeagent.spending.flash import EVERY, KEPT, KERNEL, OWN, ROW, FlashCount, of_process, written
from edgeagent.spending.tables import TABLES
from edgeagent.system.database import create_database
from edgecommon import files
from edgecommon.sqlite import Database

DAY = 86_400.0
NOW = 1_800_000_000.0


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return create_database(tmp_path / "x.db", TABLES, 1)


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
