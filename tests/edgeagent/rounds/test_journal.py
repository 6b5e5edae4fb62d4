"""The journal of a round: always one whole half, and nothing in it is believed that does not fit."""

from __future__ import annotations

import errno
import json
import os
import random
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeagent.rounds import journal
from edgeagent.rounds.journal import Journal, RoundFacts
from edgeagent.system.clock import Clock
from edgeagent.training.course import Course, Kept

FACTS = RoundFacts("aa", "bb", "cc", 3, "all", "litert", "epochs=2", 2, 17, "dd", str(2**64 - 1), 0.5, None, 40, True)


class Counting:
    """A course of which each step is known by its number."""

    mode, whole, steps = "all", True, 40

    def __init__(self, done: int = 0) -> None:
        self.done = done

    def step(self) -> float:
        self.done += 1
        return 1.0

    def keep(self) -> Kept:
        return {
            "done": np.array([self.done], np.int64), "weight a": np.full((50, 40), self.done, np.float32),
            "weight none": np.zeros((0, 3), np.float32), "slot t": np.array(self.done, np.int32),
        }  # fmt: skip

    def restore(self, kept: Mapping[str, NDArray[Any]]) -> None:
        self.done = int(kept["done"][0])

    def trained(self) -> dict[str, Any]:
        return {}


def written(path: Path, steps: int) -> Course:
    """Return a course of which each step was written."""
    course: Course = Counting()
    kept = Journal(path, FACTS, clock=Clock())
    for _ in range(steps):
        course.step()
        kept.spent += 0.25
        kept.write(course)
    kept.close()
    assert not kept.trouble
    return course


def read_steps(path: Path) -> int | None:
    """Return after which step the journal lets a course go on; None when it does not."""
    found = journal.read(path)
    arrays = found.arrays(Counting().keep()) if found else None
    if found is None or arrays is None:
        return None
    kept, spent = arrays
    done = int(kept["done"][0])
    assert found.facts == FACTS and spent == 0.25 * done
    expected = Counting(done).keep()
    for name, a in kept.items():
        assert a.dtype == expected[name].dtype and a.shape == expected[name].shape and np.array_equal(a, expected[name])
    return done


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_what_was_written_last_is_read(tmp_path: Path, steps: int) -> None:
    written(tmp_path / "round", steps)
    assert read_steps(tmp_path / "round") == steps
    assert os.stat(tmp_path / "round").st_mode & 0o077 == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round"]


def test_a_write_cut_short_anywhere_leaves_the_step_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    for cut in (0, 1, 17, 31, 32, 40, 4000, 8000):
        path = tmp_path / f"round{cut}"
        course = written(path, 5)

        def short(handle: int, parts: Any, at: int, cut: int = cut) -> int:
            data = b"".join(bytes(p) for p in parts)
            return real(handle, [data[:cut]], at)

        kept = Journal(path, FACTS, clock=Clock())
        kept._file, kept._halves_from, kept._sequence = os.open(path, os.O_RDWR), 4096, 6
        kept._half = sum(a.nbytes for a in course.keep().values())
        course.step()
        arrays = dict(course.keep())
        monkeypatch.setattr(os, "pwritev", short)
        with pytest.raises(OSError):
            kept._write_half(kept._file, arrays, course.done)
        monkeypatch.setattr(os, "pwritev", real)
        kept.close()
        assert read_steps(path) == 5


def test_no_damage_is_believed(tmp_path: Path) -> None:
    """Every byte that is another one leaves a whole half's step, or nothing."""
    path = tmp_path / "round"
    written(path, 6)
    whole = path.read_bytes()
    rng = random.Random(1)
    places = [*range(900), *(rng.randrange(len(whole)) for _ in range(600))]
    seen = set()
    for at in places:
        bad = bytearray(whole)
        bad[at] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        seen.add(read_steps(path))
    assert seen == {None, 5, 6}
    for size in [*range(0, 200, 7), 4096, len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert read_steps(path) is None
    path.write_bytes(whole + b"\0")
    assert read_steps(path) is None


def rewritten(whole: bytes, change: Any) -> bytes:
    """Return a journal whose facts were changed, with all sums right."""
    length = int.from_bytes(whole[8:12], "little")
    said = json.loads(whole[24 : 24 + length])
    change(said)
    facts = json.dumps(said).encode()
    head = whole[:8] + len(facts).to_bytes(4, "little") + zlib.crc32(facts).to_bytes(4, "little") + whole[16:24]
    return (head + facts).ljust(-(-(24 + len(facts)) // 4096) * 4096, b"\0") + whole[4096:]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.clear(), lambda s: s["begun"].pop("seed"), lambda s: s["begun"].update(seed="x"),
        lambda s: s["begun"].update(round="3"),
        lambda s: s["begun"].update(seed=str(1 << 64)), lambda s: s["begun"].update(whole=1), lambda s: s["begun"].update(epochs=0),
        lambda s: s["begun"].update(loss="NaN"), lambda s: s["begun"].update(loss=float("nan")), lambda s: s.update(layout=5),
        lambda s: s["layout"].pop(), lambda s: s["layout"][1].__setitem__(2, [-50, -40]), lambda s: s["layout"][1].__setitem__(1, "O"),
        lambda s: s["layout"][1].__setitem__(2, [1 << 60, 1 << 60]),
    ],
)  # fmt: skip
def test_facts_that_are_none_are_not_read(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "round"
    written(path, 3)
    path.write_bytes(rewritten(path.read_bytes(), lambda said: None))
    assert read_steps(path) == 3, "the change alone is at fault"
    path.write_bytes(rewritten(path.read_bytes(), change))
    assert read_steps(path) is None


def test_arrays_of_another_course_and_numbers_that_are_none_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "round"
    written(path, 3)
    found = journal.read(path)
    assert found is not None
    other = Counting().keep()
    other["weight a"] = other["weight a"].reshape(40, 50)
    assert found.arrays(other) is None and found.arrays({}) is None

    class Ruined(Counting):
        def keep(self) -> Kept:
            return {**super().keep(), "weight a": np.full((50, 40), np.inf, np.float32)}

    path.unlink()
    kept = Journal(path, FACTS, clock=Clock())
    kept.write(Ruined(1))
    kept.close()
    assert read_steps(path) is None


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    written(tmp_path / "elsewhere", 3)
    (tmp_path / "round").symlink_to(tmp_path / "elsewhere")
    assert journal.read(tmp_path / "round") is None


def test_a_full_disk_ends_the_writing_and_not_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    course, kept = Counting(), Journal(tmp_path / "round", FACTS, clock=Clock())
    for _ in range(3):
        course.step()
        kept.write(course)
    assert kept.trouble == "No space left on device" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("whole", "broken"), [(5, 0), (5, 6), (4, 5)])
def test_a_round_that_was_taken_up_goes_on_in_its_file_and_no_moment_is_without_a_whole_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int, broken: int
) -> None:
    path = tmp_path / "round"
    written(path, max(whole, broken))
    if broken:  # the kill came in the middle of its write
        data = bytearray(path.read_bytes())
        data[4096 + (broken % 2) * (len(data) - 4096) // 2 + 40] ^= 1
        path.write_bytes(data)
    assert read_steps(path) == whole
    seen: list[int | None] = []

    def watched(real: Any) -> Any:
        def look(*args: Any, **named: Any) -> Any:
            reads = args[0] == path and not args[1] & os.O_RDWR
            seen.extend([] if reads else [read_steps(path)])
            done = real(*args, **named)
            seen.extend([] if reads else [read_steps(path)])
            return done

        return look

    for name in ("pwritev", "replace", "posix_fallocate", "open"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    course, kept = Counting(whole), Journal(path, FACTS, clock=Clock(), spent=0.25 * whole)
    for _ in range(3):
        course.step()
        kept.spent += 0.25
        kept.write(course)
    kept.close()
    monkeypatch.undo()
    assert not kept.trouble and read_steps(path) == whole + 3
    assert None not in seen and seen == sorted(seen, key=lambda s: s or 0), "a kill at any of these moments costs one write"


def test_a_disk_that_is_full_when_a_round_is_taken_up_leaves_what_it_stands_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    written(tmp_path / "round", 5)
    monkeypatch.setattr(os, "posix_fallocate", full)
    course, kept = Counting(5), Journal(tmp_path / "round", FACTS, clock=Clock(), spent=1.25)
    course.step()
    kept.spent += 0.25
    kept.write(course)
    assert not kept.trouble and read_steps(tmp_path / "round") == 6, "its room was there already"
    monkeypatch.setattr(os, "pwritev", full)
    course.step()
    kept.write(course)
    assert kept.trouble and read_steps(tmp_path / "round") == 6


def test_short_steps_are_written_every_20_ms_and_a_trial_leaves_nothing(tmp_path: Path) -> None:
    now = [100.0]
    clock = Clock(lambda: now[0])
    course, kept = Counting(), Journal(tmp_path / "round", FACTS, clock=clock)
    steps = []
    for _ in range(30):
        course.step()
        now[0] += 0.003
        kept.after_step(course, 0.003)
        steps.append(kept._written)
    assert steps[5] == 0 and sorted(set(steps)) == [0, 7, 14, 21, 28]
    assert kept.spent == pytest.approx(0.09)
    kept.drop()
    trial = Journal(None, replace(FACTS, mode="head"), clock=clock)
    trial.write(course)
    trial.drop()
    assert list(tmp_path.iterdir()) == []
