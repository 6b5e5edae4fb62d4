"""Commands on a board whose disk is full or read-only, whose folder is another user's, or whose key is away."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeagent import cli
from edgeagent.samples.spool_tables import FOLDER
from edgeagent.service.goal import Goal
from edgeagent.state import agent_tables
from tests.disks import SmallDisk, small_disk
from tests.edgeagent.boards import centre, fill, make, rig
from tests.edgeagent.centre import FakeClock

NOBODY = 65534
ROOT = os.geteuid() == 0
TINY = Path(__file__).parents[2] / "models" / "tiny.tflite"


class Said:
    """Exit code, document and text of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.out if self.out.strip() else self.err))


Run = Callable[..., Said]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str, json: bool = True) -> Said:
        capfd.readouterr()
        code = cli.main([*words, *(["--json"] if json else [])])
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return run


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "1m") as d:
        yield d


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    path = tmp_path / "seen.npz"
    np.savez(path, x=np.eye(4, dtype=np.float32)[:3], y=np.arange(3))
    return path


def trained(place: Path, clock: FakeClock) -> None:
    """Make a board that has had two rounds."""
    with rig(place, centre(clock)) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow("loads the runtime, and does rounds")
@pytest.mark.parametrize("how", ["full", "ro"])
def test_each_command_that_writes_ends_with_the_disks_code_and_leaves_nothing_behind(
    small: SmallDisk, clock: FakeClock, run: Run, seen: Path, how: str
) -> None:
    home = small.path / "d"
    trained(home, clock)
    before = files_of(home)
    small.fill() if how == "full" else small.remount("ro")
    for words in (
        ("train",), ("publish", "--timeout", "20s"), ("samples", "add", "tiny", str(seen)), ("run", "--once", "--timeout", "5s"),
    ):  # fmt: skip
        said = run(*words, "--dir", str(home))
        assert (said.code, said.document["error"]) == (83, "DiskUnwritable"), words
        assert ("No space left" if how == "full" else "Read-only") in said.document["message"] and str(small.path) in said.document["hint"]
    after = files_of(home)
    assert {name for name in after if not name.endswith(("-shm", "-wal", "lock"))} == {
        name for name in before if not name.endswith(("-shm", "-wal", "lock"))
    }
    small.free() if how == "full" else small.remount("rw")
    assert run("samples", "add", "tiny", str(seen), "--dir", str(home)).document["held"] == 43
    assert run("train", "--dir", str(home)).code == 0


@pytest.mark.parametrize("leave", [0, 4096, 16384, 40960, 65536, 98304])
def test_an_init_that_finds_no_room_leaves_nothing_and_works_once_there_is(small: SmallDisk, run: Run, tmp_path: Path, leave: int) -> None:
    make(tmp_path / "other")
    small.fill(leave)
    home = small.path / "d"
    words = ["init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(tmp_path / "other" / "fleet.pub"), "--model", f"tiny={TINY}"]
    said = run(*words, "--dir", str(home))
    assert (said.code, said.document["error"]) == (83, "DiskUnwritable")
    assert not home.exists() or list(home.iterdir()) == []
    small.free()
    assert run(*words, "--dir", str(home)).code == 0
    assert run("status", "--dir", str(home)).document["models"][0]["name"] == "tiny"


@pytest.mark.parametrize("how", ["full", "ro"])
@pytest.mark.parametrize("killed", [False, True])
def test_status_and_doctor_tell_all_there_is_on_such_a_disk(small: SmallDisk, clock: FakeClock, run: Run, how: str, killed: bool) -> None:
    """killed: commits stand in SQLite's log alone, as kill -9 leaves them."""
    home = small.path / "d"
    trained(home, clock)
    if killed:
        leave_in_log(home / "state" / agent_tables.FILE, "UPDATE model SET look='in the log'")
    before = run("status", "--dir", str(home)).document if not killed else None
    small.fill() if how == "full" else small.remount("ro")
    said = run("status", "--dir", str(home)).document
    assert said["models"][0]["version"] == 2 and said["models"][0]["samples"] == 40 and said["unseen"] == []
    assert said["disk"]["read_only"] is (how == "ro") and said["disk"]["place"] == str(small.path)
    assert said["models"][0]["pays"] == ("in the log" if killed else "")
    if before is not None:
        assert said["models"] == before["models"]
    text = run("status", "--dir", str(home), json=False).out
    assert "its disk takes nothing more" in text and "an agent would wait" in text
    found = {c["what"]: c for c in run("doctor", "--dir", str(home)).document["checks"]}
    assert not found["disk"]["ok"] and found["state"]["ok"] and found["tiny"]["ok"]
    assert ("make room" if how == "full" else "remount,rw") in found["disk"]["hint"]


def leave_in_log(path: Path, sql: str) -> None:
    """Commit something that stands in the log alone, in a process that ends as by kill -9."""
    script = f"import os, sqlite3; c = sqlite3.connect({str(path)!r}); c.execute({sql!r}); c.commit(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    assert path.with_name(path.name + "-wal").stat().st_size > 0


def test_a_log_whose_index_is_gone_is_read_by_a_copy_and_nothing_is_changed(small: SmallDisk, clock: FakeClock, run: Run) -> None:
    home = small.path / "d"
    trained(home, clock)
    file = home / "state" / agent_tables.FILE
    leave_in_log(file, "UPDATE model SET look='in the log'")
    file.with_name(file.name + "-shm").unlink()
    before = files_of(home)
    small.remount("ro")
    assert run("status", "--dir", str(home)).document["models"][0]["pays"] == "in the log"
    assert files_of(home) == before


@pytest.mark.parametrize("how", ["away", "unreadable name"])
def test_without_its_key_status_tells_the_rest_and_doctor_what_is_missing(tmp_path: Path, clock: FakeClock, run: Run, how: str) -> None:
    trained(tmp_path / "d", clock)
    (tmp_path / "d" / "device.key").unlink()
    if how != "away":
        (tmp_path / "d" / "device.key").symlink_to("nowhere")
    said = run("status", "--dir", str(tmp_path / "d")).document
    assert said["public_key"] is said["fingerprint"] is None and said["models"][0]["version"] == 2
    assert [one["what"] for one in said["unseen"]] == ["the device's key, and its fingerprint"]
    assert "a device's private key is not there" in run("status", "--dir", str(tmp_path / "d"), json=False).out
    found = run("doctor", "--dir", str(tmp_path / "d"))
    assert found.code == 1 and {c["what"]: c["ok"] for c in found.document["checks"]}["key"] is False


def test_a_file_that_holds_no_key_is_an_error_as_before(tmp_path: Path, run: Run) -> None:
    make(tmp_path / "d")
    (tmp_path / "d" / "device.key").write_text("nonsense")
    assert run("status", "--dir", str(tmp_path / "d")).code != 0


if ROOT:  # another user can be had

    @pytest.fixture
    def open_place() -> Iterator[Path]:
        place = Path(tempfile.mkdtemp())  # tmp_path is shut to other users
        place.chmod(0o755)
        try:
            yield place
        finally:
            shutil.rmtree(place)

    def as_nobody(*words: str) -> Said:
        """Return what a command says to a user who owns nothing here."""
        read_out, write_out = os.pipe()
        read_err, write_err = os.pipe()
        child = os.fork()
        if child == 0:
            code = 99
            try:
                os.dup2(write_out, 1)
                os.dup2(write_err, 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                code = cli.main(list(words))
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        os.close(write_out)
        os.close(write_err)
        with os.fdopen(read_out) as out, os.fdopen(read_err) as err:
            said = out.read(), err.read()
        return Said(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *said)

    def test_another_user_sees_what_the_modes_let_it_see_and_is_told_whom_to_ask(open_place: Path, clock: FakeClock) -> None:
        trained(open_place / "d", clock)
        said = as_nobody("status", "--dir", str(open_place / "d"))
        state = open_place / "d" / "state"
        assert said.code == 0 and "pi-7 of fleet home" in said.out and "fingerprint   " not in said.out
        assert f"not to be seen: the samples: {state} is root's (mode 750), and this is nobody" in said.out
        assert f"try: sudo edgeagent status --config {open_place / 'd' / 'edgeagent.toml'}" in said.out
        document = as_nobody("status", "--dir", str(open_place / "d"), "--json").document
        assert document["models"] == [] and len(document["unseen"]) == 4 and {one["owner"] for one in document["unseen"]} == {"root"}
        found = as_nobody("doctor", "--dir", str(open_place / "d"), "--json").document["checks"]
        assert {c["what"] for c in found if not c["ok"]} >= {"key", "unseen"} and "Traceback" not in said.err

    def test_of_a_folder_that_is_shut_another_user_learns_whose_it_is(open_place: Path, clock: FakeClock) -> None:
        trained(open_place / "d", clock)
        (open_place / "d").chmod(0o700)
        for verb in ("status", "doctor"):
            said = as_nobody(verb, "--dir", str(open_place / "d"))
            assert f"{open_place / 'd'} is root's (mode 700), and this is nobody" in said.out + said.err
            assert "sudo edgeagent status --config" in said.out + said.err and "Traceback" not in said.err and said.code

    @pytest.mark.parametrize("words", ["log", "samples list", "outbox", "train", "run --once --timeout 1s"])
    def test_whoever_may_not_is_told_whose_it_is_and_to_ask_as_that_user(open_place: Path, clock: FakeClock, words: str) -> None:
        trained(open_place / "d", clock)
        said = as_nobody(*words.split(), "--dir", str(open_place / "d"))
        assert said.code == 10 and "is root's (mode 750), and this is nobody" in said.err and "as root: sudo ..." in said.err
        (open_place / "d" / "state").chmod(0o755)
        said = as_nobody(*words.split(), "--dir", str(open_place / "d"))
        assert said.code == 10 and "root" in said.err and "edgeagent doctor" not in said.err and "Traceback" not in said.err

    def test_who_may_only_append_samples_sees_how_many_there_are(open_place: Path, clock: FakeClock) -> None:
        trained(open_place / "d", clock)
        state = open_place / "d" / "state"
        state.chmod(0o755)
        for path in (state / FOLDER, *(state / FOLDER).iterdir()):
            os.chown(path, -1, NOBODY)
            path.chmod(0o2770 if path.is_dir() else 0o660)
        document = as_nobody("status", "--dir", str(open_place / "d"), "--json").document
        assert document["models"] == [{"name": "tiny", "samples": 40}]
        assert {one["what"] for one in document["unseen"]} == {
            "versions, outbox and what the centre says", "the device's key, and its fingerprint",
        }  # fmt: skip

    @pytest.mark.parametrize("index", [True, False])
    def test_who_may_read_and_not_write_sees_what_stands_in_the_log_alone(open_place: Path, clock: FakeClock, index: bool) -> None:
        trained(open_place / "d", clock)
        state = open_place / "d" / "state"
        leave_in_log(state / agent_tables.FILE, "UPDATE model SET look='in the log'")
        if not index:
            (state / f"{agent_tables.FILE}-shm").unlink()
        for path in (state, *state.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)
        before = files_of(state)
        said = as_nobody("status", "--dir", str(open_place / "d"), "--json")
        assert said.document["models"][0]["pays"] == "in the log" and said.document["models"][0]["samples"] == 40
        assert [one["what"] for one in said.document["unseen"]] == ["the device's key, and its fingerprint"]
        assert files_of(state) == before
        assert sqlite3.connect(state / agent_tables.FILE).execute("PRAGMA quick_check").fetchone() == ("ok",)
