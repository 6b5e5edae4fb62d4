"""A disk that takes nothing more is named, on real file systems that are full, have no room for a file, or are read-only."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecommon import disk, files
from edgecommon.sqlite import Database, Fault
from modelwire.errors import BadArgument, ConfigError, DiskUnwritable
from tests.disks import SmallDisk, failing_disk, small_disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "1m") as d:
        yield d


def unnamed(fault: Fault, path: Path, error: Exception) -> Exception:
    return AssertionError(f"{fault} of {path}: {error}")


def test_a_full_disk_names_the_file_the_file_system_and_what_is_free_and_needed(small: SmallDisk) -> None:
    small.fill(leave=8192)
    with pytest.raises(DiskUnwritable) as e:
        files.write(small.path / "model", bytes(100_000))
    assert e.value.message == (
        f"{small.path}/model: No space left on device; {small.path} (tmpfs) has 8 KiB free of 1 MiB, 97.7 KiB needed"
    )
    assert e.value.next_step == f"make room on {small.path}" and e.value.code == 83
    assert not isinstance(e.value, (ConfigError, BadArgument))
    assert sorted(p.name for p in small.path.iterdir()) == ["filler"], "the half that was written is gone"
    small.free()
    files.write(small.path / "model", bytes(100_000))
    assert disk.refusal(small.path / "model") is None


def test_a_file_system_without_room_for_one_more_file_says_that(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m,nr_inodes=3") as small:
        (small.path / "one").touch()
        (small.path / "two").touch()
        with pytest.raises(DiskUnwritable, match=r"No room for one more file.*room for no more files"):
            files.write(small.path / "three", b"bytes")


def test_a_read_only_file_system_is_told_from_a_folder_that_may_not_be_written(small: SmallDisk) -> None:
    files.write(small.path / "link.to", b"old")
    small.remount("ro")
    for write in (
        lambda: files.write(small.path / "f", b"new"),
        lambda: files.write_named(small.path / "f", b"new"),
        lambda: files.point(small.path / "served", "link.to"),
        lambda: files.share(small.path / "link.to", small.path / "other"),
        lambda: files.locked(small.path / "lock").__enter__(),
    ):
        with pytest.raises(DiskUnwritable, match=r"Read-only file system; .* is read-only") as e:
            write()
        assert e.value.next_step == f"see why with dmesg, then: mount -o remount,rw {small.path}"
    found = disk.refusal(small.path)
    assert found is not None and found.facts["reason"] == "Read-only file system"


def test_a_lock_that_is_there_is_held_on_a_read_only_disk_and_the_kernel_knows_by_whom(small: SmallDisk) -> None:
    with files.locked(small.path / "lock"):
        pass
    small.remount("ro")
    with files.locked(small.path / "lock"):
        assert (small.path / "lock").read_bytes() == b""
        assert files.holder(small.path / "lock") == os.getpid()
    assert files.holder(small.path / "lock") is None


def test_a_database_on_a_full_disk_is_whole_afterwards(small: SmallDisk) -> None:
    database = Database(small.path / "x.db", unnamed, mode="rwc")
    database.run("CREATE TABLE t (b BLOB)")
    database.insert("t", b=b"first")
    small.fill(leave=4096)
    with pytest.raises(DiskUnwritable, match=r"x\.db: No space left on device"), database.transaction():
        for _ in range(100):
            database.insert("t", b=bytes(3000))
    database.check()
    assert [row["b"] for row in database.all("SELECT b FROM t")] == [b"first"]
    small.free()
    database.insert("t", b=b"second")
    database.close()


def test_a_database_on_a_disk_too_full_to_open_it_says_so(small: SmallDisk) -> None:
    database = Database(small.path / "x.db", unnamed, mode="rwc")
    database.run("CREATE TABLE t (b BLOB)")
    database.close()
    small.fill()
    with pytest.raises(DiskUnwritable, match="No space left on device"):
        Database(small.path / "x.db", unnamed).all("SELECT * FROM t")
    with pytest.raises(DiskUnwritable, match="No space left on device"):
        Database(small.path / "new.db", unnamed, mode="rwc").run("CREATE TABLE t (b BLOB)")


def test_a_database_on_a_read_only_disk_is_not_called_one_that_may_not_be_written(small: SmallDisk) -> None:
    Database(small.path / "x.db", unnamed, mode="rwc").close()
    small.remount("ro")
    with pytest.raises(DiskUnwritable, match=r"x\.db: Read-only file system"):
        Database(small.path / "x.db", unnamed).run("CREATE TABLE t (a)")


@pytest.mark.parametrize(
    ("code", "named"),
    [("SQLITE_IOERR_WRITE", True), ("SQLITE_IOERR_FSYNC", True), ("SQLITE_IOERR_SHMSIZE", True), ("SQLITE_IOERR_SHORT_READ", False)],
)
def test_a_disk_that_fails_is_told_from_a_file_that_came_short(tmp_path: Path, code: str, named: bool) -> None:
    number = {"SQLITE_IOERR_WRITE": 778, "SQLITE_IOERR_FSYNC": 1034, "SQLITE_IOERR_SHMSIZE": 4874, "SQLITE_IOERR_SHORT_READ": 522}[code]
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = number  # type: ignore[attr-defined]  # as SQLite says it, from Python 3.11 on
    database = Database(tmp_path / "x.db", unnamed, mode="rwc")
    with pytest.raises(DiskUnwritable if named else AssertionError) as e, database.named():
        raise error
    if isinstance(e.value, DiskUnwritable):
        assert e.value.facts["reason"] == "Input/output error" and "unplugged" in e.value.next_step
    else:
        assert str(Fault.DAMAGED) in str(e.value)
    database.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_each_word_of_the_disk_becomes_the_one_error_and_no_other_does(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskUnwritable) as e, disk.named(tmp_path / "f", 10):
        raise OSError(number, os.strerror(number), "elsewhere")
    assert (e.value.facts["path"], e.value.facts["reason"]) == (tmp_path / "f", os.strerror(number)) and e.value.next_step
    with pytest.raises(PermissionError), disk.named(tmp_path / "f"):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert disk.unwritable(FileNotFoundError(errno.ENOENT, "No such file")) is None


def test_looking_whether_there_is_room_leaves_nothing_and_asks_for_as_much_as_is_wanted(small: SmallDisk) -> None:
    small.fill(leave=300_000)
    assert disk.refusal(small.path, 200_000) is None
    assert disk.refusal(small.path, 400_000) is not None
    assert [p.name for p in small.path.iterdir()] == ["filler"] and small.room > 290_000
    assert disk.refusal(small.path / "not" / "there") is None, "that is another error"


@pytest.mark.slow("makes a file system")
def test_a_disk_that_the_kernel_gave_up_is_read_only_for_what_is_open_too(tmp_path: Path) -> None:
    with failing_disk(tmp_path / "disk", "8M") as failing:
        database = Database(failing.path / "x.db", unnamed, mode="rwc")
        database.run("CREATE TABLE t (b BLOB)")
        with files.locked(failing.path / "lock"):
            failing.give_up()
        with pytest.raises(DiskUnwritable, match="Read-only file system"):
            files.write(failing.path / "f", b"bytes")
        with pytest.raises(DiskUnwritable, match=r"Read-only file system|Input/output error"):
            database.insert("t", b=b"x")
        assert disk.refusal(failing.path) is not None
        with files.locked(failing.path / "lock"):
            assert files.holder(failing.path / "lock") == os.getpid()
        database.close()
