"""A round's journal in memory: the disk is written seldom, a kill loses nothing of it, a power cut what came since the last copy."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from edgeagent.board.sensors import Sensors
from edgeagent.rounds import in_memory, journal
from edgeagent.rounds.journal import Journal, to_disk
from edgeagent.system.clock import Clock
from tests.edgeagent.centre import FakeClock

from .test_journal import FACTS, Counting, read_steps, rewritten


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a folder of this test's stand for the memory, and another for the disk: on this machine both may be a tmpfs."""
    folder = tmp_path / "memory"
    folder.mkdir()
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(in_memory, "place_of", lambda path: folder / path.name)
    return folder


def meminfo(folder: Path, mib: int) -> Sensors:
    (folder / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {mib * 1024} kB\n")
    return Sensors(proc=folder)


def begun(tmp_path: Path, clock: FakeClock, *, mib: int = 400) -> Journal:
    return Journal(
        tmp_path / "disk" / "round", FACTS, clock=Clock(clock.monotonic, clock.wall), sensors=meminfo(tmp_path, mib)
    )  # fmt: skip


def take(kept: Journal, course: Counting, steps: int, clock: FakeClock, seconds: float = 0.25) -> None:
    for _ in range(steps):
        course.step()
        clock.now += seconds
        kept.after_step(course, 0.25)  # type: ignore[arg-type]


def test_a_kill_finds_the_last_step_in_memory_and_the_disk_was_written_the_facts_alone(tmp_path: Path, memory: Path) -> None:
    clock, path = FakeClock(), tmp_path / "disk" / "round"
    take(begun(tmp_path, clock), Counting(), 9, clock)
    assert read_steps(path) == 9 and path.exists()
    assert path.stat().st_blocks * 512 <= 8192 < (memory / "round").stat().st_blocks * 512
    assert journal._read(path) is None, "it has no step"


def test_the_disk_gets_a_copy_as_often_as_its_size_allows(tmp_path: Path, memory: Path) -> None:
    clock, path, course = FakeClock(), tmp_path / "disk" / "round", Counting()
    kept = begun(tmp_path, clock)
    take(kept, course, 4, clock)
    take(kept, course, 1, clock, in_memory.SOONEST)
    take(kept, course, 3, clock)
    (memory / "round").unlink()  # the power goes
    assert read_steps(path) == 5
    assert in_memory.pause(100) == in_memory.SOONEST and in_memory.pause(1 << 40) == in_memory.LATEST
    assert in_memory.pause(8_000_000) == pytest.approx(8_000_000 / in_memory.PACE)


def test_an_end_of_the_agent_leaves_the_last_step_on_the_disk(tmp_path: Path, memory: Path) -> None:
    clock, path = FakeClock(), tmp_path / "disk" / "round"
    kept = begun(tmp_path, clock)
    take(kept, Counting(), 7, clock)
    kept.close()
    to_disk(path)
    before = path.stat().st_mtime_ns
    to_disk(path)
    assert path.stat().st_mtime_ns == before, "a copy that is there is not made again"
    (memory / "round").unlink()
    assert read_steps(path) == 7


def test_what_a_power_cut_left_is_taken_up_and_goes_on_in_memory(tmp_path: Path, memory: Path) -> None:
    clock, path = FakeClock(), tmp_path / "disk" / "round"
    kept = begun(tmp_path, clock)
    take(kept, Counting(), 7, clock)
    kept.close()
    to_disk(path)
    (memory / "round").unlink()
    course, kept = Counting(7), begun(tmp_path, clock)
    kept.spent = 0.25 * 7
    assert read_steps(path) == 7
    take(kept, course, 3, clock)
    assert read_steps(path) == 10
    kept.drop()
    assert not path.exists() and not list(memory.iterdir())


@pytest.mark.parametrize("how", ["open to others", "a link", "two names", "another round's", "cut short", "damaged"])
def test_nothing_in_memory_is_believed_that_is_not_this_round_s(tmp_path: Path, memory: Path, how: str) -> None:
    clock, path, place = FakeClock(), tmp_path / "disk" / "round", memory / "round"
    kept = begun(tmp_path, clock)
    take(kept, Counting(), 7, clock)
    kept.close()
    to_disk(path)
    take(Journal(place, FACTS, clock=Clock(clock.monotonic), spent=2.0), Counting(8), 1, clock)
    assert read_steps(path) == 9
    if how == "open to others":
        place.chmod(0o644)
    elif how == "a link":
        place.rename(memory / "other")
        place.symlink_to(memory / "other")
    elif how == "two names":
        os.link(place, memory / "other")
    elif how == "another round's":
        place.write_bytes(rewritten(place.read_bytes(), lambda said: said["begun"].update(round=2)))
    elif how == "cut short":
        os.truncate(place, 5000)
    else:
        place.write_bytes(bytes(np.random.default_rng(1).bytes(place.stat().st_size)))
    assert read_steps(path) == 7


def test_where_memory_is_short_the_journal_stands_on_the_disk(tmp_path: Path, memory: Path) -> None:
    clock, path = FakeClock(), tmp_path / "disk" / "round"
    take(begun(tmp_path, clock, mib=0), Counting(), 5, clock)
    assert not list(memory.iterdir()) and journal._read(path) is not None and read_steps(path) == 5


def test_another_s_file_in_the_way_sends_the_journal_to_the_disk(tmp_path: Path, memory: Path) -> None:
    """As in /dev/shm, where everyone may make a file: a folder stands for what can't be removed."""
    (memory / "round").mkdir()
    clock, path = FakeClock(), tmp_path / "disk" / "round"
    take(begun(tmp_path, clock), Counting(), 5, clock)
    assert read_steps(path) == 5 and journal._read(path) is not None


def test_a_state_folder_on_a_tmpfs_has_no_second_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory, "FOLDER", Path("/proc"))
    assert in_memory.place_of(tmp_path / "round") is None
    monkeypatch.undo()
    assert in_memory.place_of(in_memory.FOLDER / "round") is None and in_memory.place_of(tmp_path / "none" / "round") is None


@pytest.mark.parametrize("mode", [0o666, 0o600])
def test_nothing_is_written_into_a_file_that_another_may_look_into(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Its facts can be guessed, so a stranger may lay one there that looks like this round's."""
    clock, path, place = FakeClock(), tmp_path / "disk" / "round", memory / "round"
    kept = begun(tmp_path, clock)
    take(kept, Counting(), 1, clock)
    kept.close()
    path.unlink()
    place.chmod(mode)
    before = place.read_bytes()
    if mode == 0o600:  # the stranger's own
        monkeypatch.setattr(in_memory, "is_ours", lambda place, path: False)
    handle = os.open(place, os.O_RDONLY)
    take(begun(tmp_path, clock), Counting(1), 5, clock)
    assert os.pread(handle, 1 << 20, 0) == before and journal._read(path) is not None
    os.close(handle)


def test_no_unit_of_ours_takes_the_journal_away_between_two_starts() -> None:
    """systemd would empty /dev/shm of a user's files each time that the service ends, after a kill, too."""
    root = Path(__file__).parents[3]
    texts = [*(root / "docs").rglob("*.md"), *(p for top in ("hw", "edgeagent", "cloud") for p in (root / top).rglob("*") if p.is_file())]
    bad = [
        str(path.relative_to(root))
        for path in texts
        if re.search(r"^(RemoveIPC|PrivateIPC)=(yes|true|on|1)\b", path.read_bytes().decode(errors="replace"), re.M)
    ]
    assert bad == []
