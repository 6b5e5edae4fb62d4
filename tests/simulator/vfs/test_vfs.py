"""The VFS `power` and the disk beside it: what was flushed is kept, the rest is lost or there in any combination, the last of it torn."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from edgecommon import files
from tests.simulator.crashes import Crash
from tests.simulator.vfs import Disk, DiskSteps, power_vfs

ROWS = 40
OLD, NEW = b"o" * 3000, b"n" * 3000


@contextmanager
def powered(folder: Path, seed: int = 1) -> Iterator[DiskSteps]:
    """Let what lies in `folder` lie on a disk whose power can be cut."""
    folder.mkdir(exist_ok=True)
    steps = DiskSteps(power_vfs(), Disk(folder))
    with power_vfs().watching(folder, seed), steps.installed():
        yield steps


def connect(path: Path, mode: str, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def make(path: Path, mode: str = "WAL") -> None:
    with closing(connect(path, mode, "FULL")) as c:
        c.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, data BLOB)")
        c.executemany("INSERT INTO t VALUES (?, ?)", [(n, OLD) for n in range(ROWS)])


def change(c: sqlite3.Connection) -> None:
    c.execute("BEGIN IMMEDIATE")
    c.execute("UPDATE t SET data = ?", (NEW,))
    c.execute("COMMIT")


def held(path: Path) -> set[bytes]:
    """Return what the rows hold; SQLite finds the file whole."""
    with closing(sqlite3.connect(path)) as c:
        assert c.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = [bytes(row[0]) for row in c.execute("SELECT data FROM t")]
    assert len(rows) == ROWS
    return set(rows)


@pytest.mark.parametrize(("mode", "synchronous"), [("WAL", "FULL"), ("DELETE", "EXTRA")])
def test_what_was_synced_survives_every_cut(tmp_path: Path, mode: str, synchronous: str) -> None:
    for seed in range(12):
        folder = tmp_path / str(seed)
        with powered(folder) as steps:
            make(folder / "db", mode)
            c = connect(folder / "db", mode, synchronous)
            change(c)
            with pytest.raises(Crash), steps.crash_at(1, power=True):  # whoever is without power closes nothing in peace
                steps.step("the end")
            c.close()
            steps.ended(folder, Random(seed))
            assert held(folder / "db") == {NEW}


def test_what_was_not_synced_is_lost_by_some_cuts(tmp_path: Path) -> None:
    found: list[set[bytes]] = []
    for seed in range(24):
        folder = tmp_path / str(seed)
        with powered(folder) as steps:
            make(folder / "db")
            c = connect(folder / "db", "WAL", "OFF")
            change(c)
            with pytest.raises(Crash), steps.crash_at(1, power=True):
                steps.step("the end")
            c.close()
            assert steps.ended(folder, Random(seed)) >= 0
            found.append(held(folder / "db"))
    assert {OLD} in found and {NEW} in found and all(len(one) == 1 for one in found), "a transaction counts as a whole"


@pytest.mark.slow("cuts two transactions at each of their writes", seconds=6)
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_transaction_that_is_cut_at_any_of_its_writes_is_there_as_a_whole_or_not_at_all(tmp_path: Path, mode: str) -> None:
    found, step = list[frozenset[bytes]](), 0
    with powered(tmp_path / "made"):
        make(tmp_path / "made" / "db", mode)
    while True:
        step += 1
        folder = tmp_path / str(step)
        shutil.copytree(tmp_path / "made", folder)
        with powered(folder, step) as steps:
            c = connect(folder / "db", mode, "FULL")
            ended = True
            with suppress(Crash), steps.crash_at(step, power=True):
                change(c)
                ended = False
            c.close()
            steps.ended(folder, Random(step))
            found.append(frozenset(held(folder / "db")))
        shutil.rmtree(folder)
        if not ended:
            break
    assert set(found) == {frozenset([OLD]), frozenset([NEW])} and found[0] == {OLD} and found[-1] == {NEW} and step > 20


def test_the_last_write_is_torn_at_a_sector(tmp_path: Path) -> None:
    torn = 0
    for seed in range(40):
        folder = tmp_path / str(seed)
        with powered(folder) as steps:
            make(folder / "db")
            before = (folder / "db").read_bytes()
            c = connect(folder / "db", "OFF", "OFF")
            change(c)
            after = (folder / "db").read_bytes()
            with pytest.raises(Crash), steps.crash_at(1, power=True):
                steps.step("the end")
            c.close()
            steps.ended(folder, Random(seed))
            left = (folder / "db").read_bytes()
        kinds = ""
        for at in range(4096, len(left), 512):  # the first page was written more than once
            sector, old, new = left[at : at + 512], before[at : at + 512], after[at : at + 512]
            assert sector in (old, new), "no sector is a mixture"
            kinds += "=" if old == new else "o" if sector == old else "n"
        torn += any("n" in kinds[at : at + 8] and "o" in kinds[at : at + 8] for at in range(0, len(kinds), 8))
    assert torn > 2, "there were pages of which a part is new"


def test_what_was_shared_in_memory_is_gone_and_what_others_have_is_not_touched(tmp_path: Path) -> None:
    with powered(tmp_path / "disk") as steps:
        other, watched = tmp_path / "other.db", tmp_path / "disk" / "db"
        make(other)
        make(watched)
        before = power_vfs().writes()
        with closing(connect(other, "WAL", "OFF")) as c:
            change(c)
        assert power_vfs().writes() == before
        c = connect(watched, "WAL", "OFF")
        change(c)
        assert watched.with_name("db-shm").exists()
        with pytest.raises(Crash), steps.crash_at(1, power=True):
            steps.step("the end")
        c.close()
        steps.ended(tmp_path / "disk", Random(5))
        assert not watched.with_name("db-shm").exists() and held(other) == {NEW}


def test_a_kill_leaves_all_that_was_written(tmp_path: Path) -> None:
    with powered(tmp_path / "disk") as steps:
        make(tmp_path / "disk" / "db")
        c = connect(tmp_path / "disk" / "db", "WAL", "OFF")
        change(c)
        with pytest.raises(Crash), steps.crash_at(1):
            steps.step("the end")
        c.close()
        assert steps.ended(tmp_path / "disk", Random(1)) == 0 and held(tmp_path / "disk" / "db") == {NEW}


def cut_everywhere(folder: Path, write: Callable[[Path], object], cuts: int = 6) -> set[bytes]:
    """Let a file be written over another, cut at every step with a few outcomes each, and once behind it; return what was left of it."""
    found, step, ended = set[bytes](), 0, True
    while ended:
        step += 1
        for seed in range(cuts):
            place = folder / f"{step}-{seed}"
            place.mkdir(parents=True)
            (place / "file").write_bytes(OLD)
            with powered(place) as steps:
                ended = True
                with suppress(Crash), steps.crash_at(step, power=True):
                    write(place / "file")
                    ended = False
                    steps.step("the end")
                    steps.step("or a later one")
                steps.ended(place, Random(seed))
            found.add((place / "file").read_bytes())
    return found


def test_a_file_that_is_written_as_ours_are_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    assert cut_everywhere(tmp_path, lambda path: files.write(path, NEW)) == {OLD, NEW}


def test_a_file_that_gets_its_name_before_it_is_flushed_may_be_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path) -> None:
        handle = os.open(path.with_name("new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(handle, NEW)
        os.replace(path.with_name("new"), path)
        files.flush_folder(path.parent)
        os.fsync(handle)
        os.close(handle)

    found = cut_everywhere(tmp_path, write)
    assert {OLD, NEW, b""} <= found and all(len(one) % 512 == 0 for one in found - {OLD, NEW}), "torn at a sector"


def test_names_are_sure_when_their_folder_is_flushed(tmp_path: Path) -> None:
    left = set()
    for seed in range(30):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "gone").write_bytes(OLD)
        with powered(folder) as steps:
            files.write(folder / "sure", NEW)
            files.point(folder / "link", "sure")
            (folder / "gone").unlink()
            os.mkdir(folder / "made")
            steps.cut(folder, Random(seed))
        assert (folder / "sure").read_bytes() == NEW and os.readlink(folder / "link") == "sure"
        left.add(((folder / "gone").exists(), (folder / "made").exists()))
    assert left == {(a, b) for a in (False, True) for b in (False, True)}, "each of the two may have come to the disk, or not"


def test_the_same_seed_leaves_the_same(tmp_path: Path) -> None:
    found = []
    for name in "ab":
        folder = tmp_path / name
        with powered(folder, 7) as steps:
            make(folder / "db")
            c = connect(folder / "db", "WAL", "OFF")
            change(c)
            with pytest.raises(Crash), steps.crash_at(1, power=True):
                steps.step("the end")
            c.close()
            steps.ended(folder, Random(3))
            found.append({p.name: p.read_bytes() for p in sorted(folder.iterdir())})
    assert found[0] == found[1]
