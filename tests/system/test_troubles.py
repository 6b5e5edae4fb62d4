"""Each trouble of a board has a name, the agent gets over it or says how, and nothing that the centre holds is touched."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgeagent import cli
from edgeagent.deploying import switching
from edgeagent.service.befallen import befallen
from edgeagent.settings import reading
from edgeagent.spending import flash
from edgeagent.state.folder import open_folder
from edgeagent.state.looking import look_at
from edgeagent.troubles import told
from edgeagent.troubles.naming import name_of
from edgeagent.troubles.noted import all_noted
from edgeagent.troubles.table import TABLE
from edgecommon import disk
from modelwire.errors import DiskUnwritable, ModelWireError, SessionTaken, StateDamaged
from modelwire.wire.more import troubles_in, troubles_said
from modelwire.wire.records import Hello
from tests.disks import small_disk
from tests.edgeagent import boards
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.deploying import bases
from tests.system import troubles
from tests.system.lying import SETTINGS
from tests.system.troubles import CASES, Board, Case

ELSEWHERE = {  # which test shows the troubles that no file brings about
    "disk-full": "test_a_disk_that_takes_nothing_is_named_by_what_it_says",
    "disk-read-only": "test_a_disk_that_takes_nothing_is_named_by_what_it_says",
    "disk-failing": "test_a_disk_that_answers_with_errors_is_named",
    "not-ours": "test_a_folder_of_another_user_is_named_and_whom_to_ask",
    "two-boards": "test_a_name_that_another_client_has_is_named",
    "variant-damaged": "test_a_base_that_lies_damaged_beside_the_served_one_is_let_go_of",
    "passive-damaged": "test_a_base_that_lies_damaged_beside_the_served_one_is_let_go_of",
    "flash-spent": "test_a_day_whose_bytes_to_the_disk_are_spent_is_named",
    "system-refused": "test_what_the_system_tells_of_itself_is_named",
    "system-left": "test_what_the_system_tells_of_itself_is_named",
    "board-smaller": "test_a_board_that_is_smaller_than_its_settings_is_named",
}


@pytest.mark.slow("a board, a centre and a dozen rounds each", seconds=60)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_trouble_is_named_and_got_over_and_the_centre_keeps_all_that_it_held(tmp_path: Path, case: Case) -> None:
    made = troubles.measure(tmp_path, case)
    assert made.named == ({case.id} if case.id else set())
    assert made.sound, made
    assert made.alone == (case.mend is None)


@pytest.mark.slow("a board, a centre and a dozen rounds each", seconds=20)
@pytest.mark.parametrize("seed", range(12))
def test_any_bit_of_any_file_may_flip(tmp_path: Path, seed: int) -> None:
    made = troubles.flipped(tmp_path, seed)
    assert not made.unnamed and not made.touched and not made.silent, made


def test_every_trouble_has_a_test() -> None:
    assert {one.id for one in TABLE} == {case.id for case in CASES if case.id} | set(ELSEWHERE)
    assert set(ELSEWHERE.values()) <= set(globals())
    for case in CASES:
        if case.id:
            (known,) = (one for one in TABLE if one.id == case.id)
            assert case.mend is None or known.asks, case.name


@pytest.mark.parametrize("lies", ["variant", "passive"])
def test_a_base_that_lies_damaged_beside_the_served_one_is_let_go_of(tmp_path: Path, lies: str) -> None:
    centre = boards.centre(FakeClock())
    bases.know(centre, bases.NEAR)
    with boards.rig(tmp_path / "d", centre) as r:
        bases.train(r, 2)
        placed = bases.soaked(r.lineage, bases.NEAR)
        if lies == "passive":
            switching.confirm(r.lineage, 1)
        head, place = r.lineage.head(), placed.place if lies == "variant" else ""
    (tmp_path / "d" / "state" / "models" / "tiny" / place / "base.tflite").write_bytes(b"another")
    with boards.rig(tmp_path / "d", centre) as r:
        assert [one.id for one in all_noted(r.device.database)] == [f"{lies}-damaged"]
        assert r.lineage.head() == head and r.lineage.beside.all() == []
        assert hashlib.sha256(r.lineage.store.served.read_bytes()).digest() == head.file_sha256


def test_the_line_that_is_printed_sets_the_board_up_anew(tmp_path: Path) -> None:
    """A person copies it into a shell; the board has its key and its base again, and asks for its last model."""
    home = tmp_path / "my boards" / "pi 7"
    home.parent.mkdir()
    boards.make(home, **SETTINGS, link__broker="mqtt://127.0.0.1:1")
    key = (home / "device.key").read_text()
    (home / "state" / "edgeagent.db").unlink()
    said = command(home, "status")
    assert said.returncode == 12
    error = json.loads(said.stderr)
    assert error["trouble"] == "database-gone" and "then put your own lines" in error["hint"]
    line = error["hint"].partition("; then")[0]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr
    assert (home / "device.key").read_text() == key and home.with_name("pi 7.aside").is_dir()
    with open_folder(reading.load(home / reading.FILE, environment={}, flags={}), alone=True) as device:
        assert device.lineages["tiny"].wish() is not None


def command(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeagent", *words, "--dir", str(home), "--json"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_the_text_of_an_error_names_the_trouble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boards.make(tmp_path / "d")
    (tmp_path / "d" / "state" / "edgeagent.db").write_bytes(b"")
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == StateDamaged.code
    said = capsys.readouterr().err
    assert "trouble: database-cut" in said and "try: mv " in said
    assert cli.main(["doctor", "--dir", str(tmp_path / "d"), "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [c["trouble"] for c in checks if c["trouble"]] == ["database-cut"]


def test_status_and_doctor_name_what_was_got_over_and_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Board(tmp_path)) as board:
        (board.state / "samples" / "samples.db").unlink()
        board.ahead = -troubles.YEARS
        board.serve(60)
        home = str(board.home)
    assert cli.main(["status", "--dir", home, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in said["troubles"]] == ["clock-off"] and [one["id"] for one in said["got_over"]] == ["samples-gone"]
    assert said["troubles"][0]["asks"] and said["month"]["sent"] > 0 and said["flash"]["source"]
    assert cli.main(["status", "--dir", home]) == 0
    text = capsys.readouterr().out
    assert "trouble clock-off: it is 3650 days behind the centre's" in text and "got over samples-gone" in text
    cli.main(["doctor", "--dir", home, "--json"])
    assert "clock-off" in [c["trouble"] for c in json.loads(capsys.readouterr().out)["checks"]]


def test_a_disk_that_takes_nothing_is_named_by_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "small") as small:
        boards.make(small.path / "d")
        where = ["--dir", str(small.path / "d"), "--json"]

        def named() -> tuple[list[str], str]:
            assert cli.main(["status", *where]) == 0
            said = [one["id"] for one in json.loads(capsys.readouterr().out)["troubles"]]
            assert cli.main(["train", *where]) == DiskUnwritable.code
            return said, json.loads(capsys.readouterr().err.splitlines()[-1])["trouble"]

        small.fill()
        assert named() == (["disk-full"], "disk-full")
        small.free()
        small.remount("ro")
        assert named() == (["disk-read-only"], "disk-read-only")
        small.remount("rw")


def test_a_disk_that_answers_with_errors_is_named(tmp_path: Path) -> None:
    found = disk.unwritable(OSError(5, os.strerror(5)), tmp_path / "x")
    assert found is not None and name_of(found) == "disk-failing"


def test_a_name_that_another_client_has_is_named() -> None:
    assert name_of(SessionTaken(broker="b", name="n", reason="r")) == "two-boards"


def test_a_folder_of_another_user_is_named_and_whom_to_ask() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user for a while")
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are shut to others
        os.chmod(place, 0o755)
        home = Path(place) / "d"
        boards.make(home)
        assert as_nobody(lambda: said_of(home)) == "not-ours"
        (home / "state").chmod(0o755)
        (home / "state" / "lock").touch()
        assert as_nobody(lambda: said_of(home)) == "not-ours"


def said_of(home: Path) -> str:
    loaded = reading.load(home / reading.FILE, environment={}, flags={})
    try:
        with open_folder(loaded, alone=True):
            return "it starts"
    except ModelWireError as e:
        return name_of(e)


def as_nobody(do: Callable[[], str]) -> str:
    """Return what `do` returns in a process of the user nobody."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(into, do().encode())
        finally:
            os._exit(0)
    os.close(into)
    os.waitpid(child, 0)
    with os.fdopen(out) as file:
        return file.read()


def test_a_clock_that_was_set_right_between_two_runs_is_no_trouble_any_more(tmp_path: Path) -> None:
    with closing(Board(tmp_path)) as board:
        board.ahead = troubles.YEARS
        board.serve(60)
        assert "clock-off" in board.named()
        board.ahead = -troubles.YEARS
        board.serve(60)
        with look_at(board.loaded) as look:
            assert [one.text for one in befallen(look, board.wall())] == ["it is 3650 days behind the centre's"]
        board.ahead = 0.0
        board.serve(60)
        assert "clock-off" not in board.named()


def test_a_clock_that_turns_over_in_one_run_is_said_anew(tmp_path: Path) -> None:
    with closing(Board(tmp_path)) as board:
        board.ahead = troubles.YEARS
        plain = board.wall
        turn = board.clock.now + 50
        board.wall = lambda: plain() if board.clock.now < turn else plain() - 2 * troubles.YEARS  # type: ignore[method-assign]
        board.serve(100)
        with look_at(board.loaded) as look:
            assert [one.text for one in befallen(look, 0.0)] == ["it is 3650 days behind the centre's"]


def test_a_trouble_is_said_once_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Board(tmp_path)) as board, caplog.at_level(logging.WARNING, logger="edgeagent"):
        board.ahead = troubles.YEARS
        board.serve(300)
        assert sum("trouble clock-off" in r.getMessage() for r in caplog.records) == 1


def test_a_day_whose_bytes_to_the_disk_are_spent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, counted = FakeClock(), [0]
    monkeypatch.setattr(flash, "of_process", lambda process: counted[0])
    with boards.rig(tmp_path / "d", boards.centre(clock), train__every="5m", budget__flash_bytes_a_day="1MiB") as r:
        boards.fill(r.device)
        r.centre.after(10, lambda: counted.__setitem__(0, 1 << 20))
        r.serve(700)
        with look_at(reading.load(tmp_path / "d" / reading.FILE, environment={}, flags={})) as device:
            assert [one.id for one in befallen(device, clock.wall())] == ["flash-spent"]
        assert r.states() == {1: "verified"}, "nothing else waits"


def test_what_the_system_tells_of_itself_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "SYSTEM", tmp_path / "told")
    (tmp_path / "told").mkdir()
    (tmp_path / "told/system-left").write_text("2.0 was to be the next system, and 1.4.0 runs\n")
    clock = FakeClock()
    with boards.rig(tmp_path / "d", boards.centre(clock)) as r:
        r.serve(20)
        (tmp_path / "told/system-refused").write_text("OtherBoard: \x1b[31mit is for another\n" + "x" * 9999)
        r.serve(100)
        said = [troubles_in(record.more) for _, record in r.centre.up if isinstance(record, Hello)]
        assert all(one["system-left"] == "2.0 was to be the next system, and 1.4.0 runs" for one in said[-2:])
        assert said[-1]["system-refused"].startswith("OtherBoard: ?[31mit is for another x"), "the next hello is an hour off"
        assert len(said) <= 6
        with look_at(reading.load(tmp_path / "d" / reading.FILE, environment={}, flags={})) as device:
            assert [one.id for one in befallen(device, clock.wall())] == ["system-refused", "system-left"]


@pytest.mark.parametrize("stands", ["a pipe", "a folder", "a link to nowhere", "nothing", "bytes", "another id"])
def test_whatever_stands_where_the_system_tells_is_read_or_passed_over(tmp_path: Path, stands: str) -> None:
    place = tmp_path / "system-left"
    if stands == "a pipe":
        os.mkfifo(place)
    elif stands == "a folder":
        place.mkdir()
    elif stands == "a link to nowhere":
        place.symlink_to(tmp_path / "none")
    elif stands == "bytes":
        place.write_bytes(bytes(range(256)) * 40)
    elif stands == "another id":
        (tmp_path / "disk-full").write_text("x")
    found = told.told_by_system(tmp_path)
    assert list(found) == (["system-left"] if stands == "bytes" else [])
    assert all(text and text.isprintable() and troubles_in(troubles_said({name: text})) for name, text in found.items())


def test_a_board_that_is_smaller_than_its_settings_is_named(tmp_path: Path) -> None:
    clock = FakeClock()
    with boards.rig(tmp_path / "d", boards.centre(clock), budget__max_ram="4000GiB") as r:
        r.serve(60)
        with look_at(reading.load(tmp_path / "d" / reading.FILE, environment={}, flags={})) as device:
            assert [one.id for one in befallen(device, clock.wall())] == ["board-smaller"]
