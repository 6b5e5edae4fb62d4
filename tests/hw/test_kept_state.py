"""A system that was on trial and left: the agent of the one before it goes on from its own state, and the centre loses nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgeagent.samples.spool import Spool
from edgeagent.samples.spool_tables import RELEASE as SPOOL_RELEASE
from edgeagent.state.agent_tables import RELEASE
from hw.image.onboard import kept_state
from hw.image.onboard.kept_state import KeptState
from tests.system import troubles
from tests.system.troubles import Board, Case


def start(board: Path, slot: str, *, trial: bool) -> int:
    """Start a board whose folder of the agent is `home` as far as this goes: return the exit code."""
    run = board / "run"
    run.mkdir(exist_ok=True)
    (run / "slot").write_text(f"{slot}\n")
    (run / "trial").unlink(missing_ok=True)
    if trial:
        (run / "trial").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_state, "RUN", run)
        patch.setattr(kept_state, "FOLDER", board / "board")
        return kept_state.main()


def migrated(database: Path, release: int) -> None:
    """Leave a database as a later release of the agent would: another number, and tables that this one does not know."""
    with closing(sqlite3.connect(database)) as opened:
        opened.execute("CREATE TABLE later (x)")
        opened.execute(f"PRAGMA user_version={release}")
        opened.commit()


def trial(board: Board, rounds: int, *databases: tuple[str, int]) -> None:
    """Let a system of slot B be tried, train, and be left for slot A."""
    assert start(board.folder, "B", trial=True) == 0
    if rounds:
        board.serve(100, bursts=[1] * rounds)
    for name, release in databases:
        migrated(board.state / name, release)
    if databases:
        error = board.refused_start()
        assert error is not None and error.facts["trouble"] == "newer-release", "this is what a board that fell back would be left with"
    assert start(board.folder, "B", trial=True) == 0, "the second try keeps the copy of the first"
    assert start(board.folder, "A", trial=False) == 0
    assert not (board.home / "state.before-trial").exists() and not (board.home / "state.part").exists()


NEWER = ("edgeagent.db", RELEASE + 1)
NEWER_SPOOL = ("samples/samples.db", SPOOL_RELEASE + 1)


@pytest.mark.slow("a board, a centre and a dozen rounds each", seconds=20)
@pytest.mark.parametrize(
    ("befall", "named"),
    [
        (lambda b: trial(b, 0, NEWER), ""), (lambda b: trial(b, 1, NEWER), "database-older"),
        (lambda b: trial(b, 3, NEWER), "database-older"), (lambda b: trial(b, 2, NEWER, NEWER_SPOOL), "database-older"),
        (lambda b: trial(b, 2), ""),
    ],
    ids=["it trained nothing", "it trained once", "it trained", "its samples are newer, too", "it changed no tables"],
)  # fmt: skip
def test_the_older_agent_goes_on_after_a_trial_that_was_left(tmp_path: Path, befall: Callable[[Board], None], named: str) -> None:
    made = troubles.measure(tmp_path, Case(named, befall))
    assert made.named == ({named} if named else set())
    assert made.sound and made.alone, made


def small(folder: Path) -> Path:
    """Return the state of a board of two databases, a model, and what else lies there."""
    state = folder / "board/state"
    (state / "models/m/a").mkdir(parents=True)
    (state / "samples").mkdir()
    (state / "samples").chmod(0o2770)
    (folder / "board/edgeagent.toml").write_text('[device]\nname = "x"\n')
    for name in ("edgeagent.db", "samples/samples.db"):
        with closing(sqlite3.connect(state / name)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE row (x)")
            database.execute("INSERT INTO row VALUES (1)")
            database.execute("PRAGMA user_version=5")
            database.commit()
    (state / "models/m/a/model.tflite").write_bytes(b"before")
    (state / "models/m/sent").write_bytes(b"one")
    (state / "models/m/served").symlink_to("a")
    (state / "lock").write_text("7")
    return state


def rows(database: Path) -> list[int]:
    with closing(sqlite3.connect(database)) as opened:
        return [row[0] for row in opened.execute("SELECT x FROM row")]


def tried(state: Path) -> None:
    """Do to a state what a newer agent on trial does."""
    (state / "models/m/a/model.tflite").write_bytes(b"after")
    (state / "models/m/sent").write_bytes(b"one two")
    with closing(sqlite3.connect(state / "samples/samples.db")) as database:
        database.execute("INSERT INTO row VALUES (2)")
        database.commit()
    migrated(state / "edgeagent.db", 6)


def test_what_is_taken_back_is_what_was_there_with_what_left_and_what_was_sampled_meanwhile(tmp_path: Path) -> None:
    state = small(tmp_path)
    assert start(tmp_path, "B", trial=True) == 0
    tried(state)
    assert start(tmp_path, "A", trial=False) == 0
    assert (state / "models/m/a/model.tflite").read_bytes() == b"before"
    assert (state / "models/m/sent").read_bytes() == b"one two"
    assert os.readlink(state / "models/m/served") == "a"
    assert rows(state / "edgeagent.db") == [1] and rows(state / "samples/samples.db") == [1, 2]
    assert (state / "samples").stat().st_mode & 0o7777 == 0o2770
    assert kept_state.release(state / "edgeagent.db") == 5
    assert (state.with_name("state.newer") / "models/m/a/model.tflite").read_bytes() == b"after", "it is put aside"
    assert start(tmp_path, "A", trial=False) == 0 and start(tmp_path, "B", trial=True) == 0
    assert not state.with_name("state.newer").exists(), "until the next trial"


def test_the_copy_goes_once_the_system_is_good(tmp_path: Path) -> None:
    state = small(tmp_path)
    assert start(tmp_path, "B", trial=True) == 0
    tried(state)
    assert start(tmp_path, "B", trial=False) == 0
    assert sorted(path.name for path in state.parent.iterdir()) == ["edgeagent.toml", "state"]
    assert (state / "models/m/a/model.tflite").read_bytes() == b"after"


class Cut(BaseException):
    """The power."""


STEPS = ("rename", "copy_file", "copy_database", "rmtree", "flush", "flush_folder", "mkdir")


@pytest.mark.parametrize("step", range(60))
def test_power_may_go_at_each_step_of_keeping_and_of_taking_back(tmp_path: Path, step: int) -> None:
    """The power goes before the step of this number, and again before the same one of the next start; then it stays."""
    state = small(tmp_path)
    for slot, on_trial in (("B", True), ("A", False)):
        for _ in range(2):
            left = [step]

            def counted(real: Callable[..., object], left: list[int] = left) -> Callable[..., object]:
                def called(*words: object, **more: object) -> object:
                    left[0] -= 1
                    if left[0] == 0:
                        raise Cut
                    return real(*words, **more)

                return called

            with pytest.MonkeyPatch.context() as patch:
                for place, names in ((kept_state, STEPS[1:3] + STEPS[4:6]), (shutil, ("rmtree",)), (Path, ("rename", "mkdir", "replace"))):
                    for name in names:
                        patch.setattr(place, name, counted(getattr(place, name)))
                try:
                    start(tmp_path, slot, trial=on_trial)
                except Cut:
                    continue
        assert start(tmp_path, slot, trial=on_trial) == 0
        if on_trial:
            tried(state)
    assert (state / "models/m/a/model.tflite").read_bytes() == b"before"
    assert (state / "models/m/sent").read_bytes() == b"one two"
    assert rows(state / "edgeagent.db") == [1] and rows(state / "samples/samples.db") == [1, 2]
    assert sorted(path.name for path in state.parent.iterdir()) == ["edgeagent.toml", "state", "state.newer"]


@pytest.mark.parametrize("text", ["", "[device", 'device = "x"', '[device]\ndir = "elsewhere"'])
def test_what_can_not_be_kept_stops_no_start(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    state = small(tmp_path)
    (tmp_path / "board/edgeagent.toml").write_text(text)
    if "elsewhere" in text:
        shutil.move(state, state.with_name("elsewhere"))
    code = start(tmp_path, "B", trial=True)
    assert code == (1 if text == "[device" else 0)
    assert not code or "kept-state: " in capsys.readouterr().err


@pytest.mark.parametrize("place", ["elsewhere/state", "state"])
def test_the_unit_finds_a_copy_wherever_the_state_lies(tmp_path: Path, place: str) -> None:
    """It starts the program only where its glob finds something: a start with nothing to do is none the slower."""
    unit = (Path(kept_state.__file__).parent / "units/edgeagent-state.service").read_text()
    assert "\nConditionPathExistsGlob=|/var/lib/edgeagent/agent/*.before-trial\n" in unit
    state = small(tmp_path)
    home = state.parent
    away = (tmp_path if place.startswith("elsewhere") else home) / place
    if away != state:
        away.parent.mkdir()
        state.rename(away)
        (home / "edgeagent.toml").write_text(f'[device]\ndir = "{away}"\n')
    assert start(tmp_path, "B", trial=True) == 0
    assert len(list(home.glob("*.before-trial"))) == 1
    tried(away)
    assert start(tmp_path, "A", trial=False) == 0
    assert not list(home.glob("*.before-trial")) and rows(away / "edgeagent.db") == [1]


def test_a_damaged_database_is_kept_as_it_is(tmp_path: Path) -> None:
    state = small(tmp_path)
    (state / "edgeagent.db").write_bytes(b"no database at all" * 100)
    assert start(tmp_path, "B", trial=True) == 0
    kept = KeptState(state, state.parent)
    assert kept.slot() == "B" and (kept.kept / "state/edgeagent.db").read_bytes() == b"no database at all" * 100


def test_the_spool_of_the_copy_is_one_that_the_agent_opens(tmp_path: Path) -> None:
    with closing(Board(tmp_path)) as board:
        assert start(board.folder, "B", trial=True) == 0
        with Spool(board.home / "state.before-trial/state") as spool:
            spool.check()
