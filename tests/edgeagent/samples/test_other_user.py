"""The application that appends samples is another user than the one that holds the key: it reaches the folder of samples, and no more."""

from __future__ import annotations

import faulthandler
import grp
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import edgeagent
from edgeagent import cli
from edgeagent.samples.spool import Spool
from edgeagent.samples.spool_tables import FILE, FOLDER
from edgeagent.settings import reading
from edgeagent.state import agent_tables
from edgeagent.state.folder import open_folder
from modelwire.errors import BadArgument, ConfigError, ModelWireError, StateDamaged
from modelwire.wire.keys import write_fleet
from tests import keys
from tests.edgeagent.boards import make
from tests.worlds import MODELS

AGENT, APP, GROUP, STRANGER = 61001, 61002, 61003, 61004  # users and a group that need no name
ROOT = os.geteuid() == 0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def board() -> Iterator[Path]:
    """A device whose folder is the agent's and, where tests run as root, whose state is the group's to pass through."""
    place = Path(tempfile.mkdtemp())  # tmp_path is shut to other users
    place.chmod(0o755)
    try:
        make(place / "d")
        np.savez(place / "seen.npz", x=np.eye(4, dtype=np.float32)[:3], y=np.arange(3))
        (place / "seen.npz").chmod(0o644)
        if ROOT:
            for path in (place / "d", *(place / "d").rglob("*")):
                os.chown(path, AGENT, AGENT, follow_symlinks=False)
            state = place / "d" / "state"
            for path in (state, state / FOLDER, state / FOLDER / FILE):
                kept = mode(path)
                os.chown(path, AGENT, GROUP)
                path.chmod(kept)  # chown takes the bit for the group away
        yield place
    finally:
        shutil.rmtree(place)


def as_user(user: int, groups: list[int], do: Callable[[], int]) -> int:
    """Return what `do` returns in a process of this user; 99 when it raises."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            faulthandler.disable()  # a signal that a test sends is none of its own
            os.setgroups(groups)
            os.setgid(user)
            os.setuid(user)
            os.umask(0o077)
            code = do()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def as_user_again(do: Callable[[], object]) -> int:
    """Do something in another process of this one's user; what it has open is not shared."""
    child = os.fork()
    if child == 0:
        do()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def code_of(do: Callable[[], int]) -> int:
    """Return what `do` returns, or the code of the error that it names."""
    try:
        return do()
    except ModelWireError as error:
        return error.code


def added(place: Path) -> int:
    return cli.main(["samples", "add", "tiny", str(place / "seen.npz"), "--dir", str(place / "d"), "--json"])


def counted(place: Path) -> int:
    loaded = reading.load(place / "d" / reading.FILE, environment={}, flags={})
    with open_folder(loaded, alone=True) as device:
        count = device.spool.count("tiny")
        device.spool.hold("tiny")
        device.spool.release("tiny")
    return count


def readable(*paths: Path) -> int:
    """Return how many of these files can be opened to read or to write, folders entered to write."""
    return sum(os.access(path, os.R_OK) or os.access(path, os.W_OK) for path in paths)


def test_the_modes_let_a_group_append_and_look_at_nothing_else(board: Path) -> None:
    state = board / "d" / "state"
    assert (mode(state), mode(state / FOLDER), mode(state / FOLDER / FILE)) == (0o750, 0o2770, 0o660)
    assert (mode(state / agent_tables.FILE), mode(board / "d" / "device.key")) == (0o600, 0o600)
    with edgeagent.Spool(board / "d") as spool:
        spool.append("tiny", [0, 1, 2, 3], 1)
        assert {mode(file) for file in (state / FOLDER).iterdir()} == {0o660}, "those that SQLite puts beside it, too"


def test_the_agent_shuts_a_database_that_an_earlier_release_left_open(board: Path) -> None:
    file = board / "d" / "state" / agent_tables.FILE
    file.chmod(0o644)
    assert counted(board) == 0 and mode(file) == 0o600


def test_a_spool_where_earlier_releases_kept_it_is_still_used(board: Path) -> None:
    state = board / "d" / "state"
    (state / FOLDER / FILE).rename(state / FILE)
    (state / FOLDER).rmdir()
    assert added(board) == 0 and counted(board) == 3 and not (state / FOLDER).exists()


def init(place: Path, *more: str) -> int:
    (place / "fleet.pub").write_text(f"{write_fleet(keys.FLEET)}\n")
    words = ["init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(place / "fleet.pub"), "--dir", str(place / "new")]
    return cli.main([*words, "--model", f"tiny={MODELS / 'tiny.tflite'}", *more])


def test_init_opens_the_spool_to_a_group_and_nothing_else_to_anybody(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = grp.getgrnam("users") if ROOT else grp.getgrgid(os.getegid())
    kept = os.umask(0o077)
    try:
        assert init(board, "--spool-group", group.gr_name) == 0
    finally:
        os.umask(kept)
    said, new = capsys.readouterr().out, board / "new"
    state = new / "state"
    assert f"the group {group.gr_name} may append samples to {state / FOLDER}" in said
    assert f"chmod o+x {new}" in said or mode(new) & 0o011, "who can't pass through is said"
    new.chmod(0o711)
    shared = {new / reading.FILE: 0o640, state: 0o710, state / FOLDER: 0o2770, state / FOLDER / FILE: 0o660}
    assert {path: mode(path) for path in shared} == shared and {path.stat().st_gid for path in shared} == {group.gr_gid}
    assert {mode(path) for path in (new / "device.key", state / agent_tables.FILE)} == {0o600}
    if ROOT:
        for path in (new, *new.rglob("*")):
            keep = path.lstat()
            os.chown(path, AGENT, -1, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(stat.S_IMODE(keep.st_mode))
        added = ["samples", "add", "tiny", str(board / "seen.npz"), "--dir", str(new)]
        assert as_user(APP, [group.gr_gid], lambda: cli.main(added)) == 0
        assert as_user(STRANGER, [], lambda: cli.main(added)) not in (0, 99)
        shut = (new / "device.key", state, state / agent_tables.FILE, state / "models" / "tiny" / "a" / "private")
        assert as_user(APP, [group.gr_gid], lambda: readable(*shut)) == 0
        assert as_user(AGENT, [group.gr_gid], lambda: cli.main(["samples", "list", "--dir", str(new)])) == 0
        assert as_user(AGENT, [group.gr_gid], lambda: cli.main(["model", "add", f"b={MODELS / 'tiny.tflite'}", "--dir", str(new)])) == 0
        assert (mode(new / reading.FILE), (new / reading.FILE).stat().st_gid) == (0o640, group.gr_gid), "as it was"
        assert cli.main(["model", "add", f"c={MODELS / 'tiny.tflite'}", "--dir", str(new)]) == 0, "root does it for the agent"
        assert {path.lstat().st_uid for path in (new / reading.FILE, *(state / "models").rglob("*"), state / "lock")} == {AGENT}
        assert as_user(AGENT, [group.gr_gid], lambda: cli.main(["samples", "list", "--dir", str(new)])) == 0
        added[2] = "c"
        assert as_user(APP, [group.gr_gid], lambda: cli.main(added)) == 0


def test_a_group_that_is_none_is_refused_before_anything_is_made(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("no-such-group-here", "", "a\0b"):
        assert init(board, "--spool-group", name) == BadArgument.code and not (board / "new").exists()
        assert "there is no group" in capsys.readouterr().err
    if ROOT:
        users = grp.getgrnam("users")
        (board / "fleet.pub").touch(0o644)
        board.chmod(0o777)
        assert as_user(APP, [], lambda: init_as_it_is(board, users.gr_name)) == BadArgument.code and not (board / "new").exists()


def init_as_it_is(place: Path, group: str) -> int:
    words = ["init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(place / "fleet.pub"), "--dir", str(place / "new")]
    return cli.main([*words, "--model", f"tiny={MODELS / 'tiny.tflite'}", "--spool-group", group])


if ROOT:  # another user can be had

    def test_a_member_of_the_group_appends_while_the_key_and_the_state_stay_shut(board: Path) -> None:
        d, member = board / "d", [GROUP]
        assert as_user(APP, member, lambda: added(board)) == 0
        assert as_user(AGENT, member, lambda: counted(board)) == 3
        assert as_user(APP, member, lambda: added(board)) == 0, "beside what the agent has left there"
        assert as_user(AGENT, member, lambda: counted(board)) == 6
        shut = (d / "device.key", d / "state" / agent_tables.FILE, d / "state" / "lock")
        assert as_user(APP, member, lambda: readable(*shut)) == 0
        assert as_user(APP, member, lambda: int(os.access(d / "state", os.W_OK))) == 0

    def test_who_is_not_of_the_group_appends_nothing(board: Path) -> None:
        assert as_user(STRANGER, [], lambda: added(board)) not in (0, 99), "a named error"
        (board / "d" / "state").chmod(0o755)
        (board / "d" / "state" / FOLDER).chmod(0o755)
        (board / "d" / "state" / FOLDER / FILE).chmod(0o644)
        assert as_user(STRANGER, [], lambda: added(board)) == BadArgument.code
        assert as_user(AGENT, [GROUP], lambda: counted(board)) == 0

    def test_agent_and_application_write_by_turns_with_both_open(board: Path) -> None:
        with edgeagent.Spool(board / "d") as spool:
            for _ in range(3):
                assert as_user(APP, [GROUP], lambda: added(board)) == 0
                spool.append("tiny", [0, 1, 2, 3], 2)
            assert spool.count("tiny") == 12

    def test_what_a_member_puts_in_the_place_of_the_spool_leads_the_agent_nowhere(board: Path) -> None:
        state = board / "d" / "state"
        file, target = state / FOLDER / FILE, state / agent_tables.FILE
        before = target.read_bytes()

        def plant(put: Callable[[], object]) -> int:
            file.unlink(missing_ok=True)
            put()
            return 0

        for put in (lambda: file.symlink_to(target), lambda: file.symlink_to("nowhere"), lambda: os.mkfifo(file)):
            assert as_user(APP, [GROUP], lambda put=put: plant(put)) == 0
            assert as_user(AGENT, [GROUP], lambda: code_of(lambda: counted(board))) == StateDamaged.code
        assert target.read_bytes() == before and mode(target) == 0o600
        assert as_user(APP, [GROUP], lambda: plant(lambda: file.write_bytes(b"no database at all" * 1000))) == 0
        assert as_user(AGENT, [GROUP], lambda: code_of(lambda: counted(board))) in (StateDamaged.code, ConfigError.code, BadArgument.code)

    def test_a_spool_that_a_member_removed_is_made_anew_and_the_group_appends_to_it(board: Path) -> None:
        folder = board / "d" / "state" / FOLDER
        assert as_user(APP, [GROUP], lambda: added(board)) == 0

        def remove() -> int:
            for file in folder.iterdir():
                file.unlink()
            return 0

        assert as_user(APP, [GROUP], remove) == 0
        assert as_user(AGENT, [GROUP], lambda: counted(board)) == 0, "empty, and open"
        assert mode(folder / FILE) == 0o660 and (folder / FILE).stat().st_gid == GROUP
        assert as_user(APP, [GROUP], lambda: added(board)) == 0
        assert as_user(AGENT, [GROUP], lambda: counted(board)) == 3

    @pytest.mark.parametrize(("first", "second"), [(APP, AGENT), (AGENT, APP)])
    def test_what_a_killed_process_left_beside_the_spool_stops_neither_user(board: Path, first: int, second: int) -> None:
        """The first makes the files beside it, is killed with them open, and what its appends returned from is there."""

        def killed() -> int:
            spool = edgeagent.Spool(board / "d")
            spool.append("tiny", [0, 1, 2, 3], 1)
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

        for _ in range(2):
            assert as_user(first, [GROUP], killed) == -signal.SIGKILL
            assert {file.name for file in (board / "d" / "state" / FOLDER).iterdir()} == {FILE, f"{FILE}-wal", f"{FILE}-shm"}
            assert as_user(second, [GROUP], lambda: added(board)) == 0
        assert as_user(AGENT, [GROUP], lambda: counted(board)) == 8
        assert as_user(APP, [GROUP], lambda: added(board)) == 0

    def test_a_sticky_folder_of_an_earlier_release_is_opened_by_the_agents_next_start(board: Path) -> None:
        folder = board / "d" / "state" / FOLDER
        folder.chmod(0o3770)
        assert as_user(AGENT, [GROUP], lambda: counted(board)) == 0 and mode(folder) == 0o2770

    def test_an_agent_whose_shared_memory_a_member_cut_off_starts_again(board: Path) -> None:
        folder = board / "d" / "state" / FOLDER
        assert as_user(APP, [GROUP], lambda: added(board)) == 0

        def cut() -> int:
            with edgeagent.Spool(board / "d") as spool:
                spool.append("tiny", [0, 1, 2, 3], 1)
                assert as_user_again(lambda: os.truncate(folder / f"{FILE}-shm", 0)) == 0
                spool.append("tiny", [0, 1, 2, 3], 1)
            return 0

        assert as_user(AGENT, [GROUP], lambda: code_of(cut)) in (-signal.SIGBUS, 0, *range(10, 20)), "ended, or named"
        assert as_user(AGENT, [GROUP], lambda: counted(board)) >= 4

    @pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
    def test_a_link_that_a_member_puts_beside_the_spool_leads_the_agent_nowhere(board: Path, end: str) -> None:
        state = board / "d" / "state"
        target = state / agent_tables.FILE
        before = target.read_bytes()

        def plant() -> int:
            (state / FOLDER / (FILE + end)).symlink_to(target)
            return 0

        def start() -> int:
            try:
                return counted(board)
            except ModelWireError:
                return 7

        assert as_user(APP, [GROUP], plant) == 0
        assert as_user(AGENT, [GROUP], start) in (0, 7)
        assert target.read_bytes() == before and mode(target) == 0o600

    def test_a_trigger_of_a_members_does_not_reach_beyond_the_spool(board: Path) -> None:
        import sqlite3

        def plant() -> int:
            database = sqlite3.connect(board / "d" / "state" / FOLDER / FILE)
            database.execute("CREATE TRIGGER t AFTER INSERT ON sample BEGIN SELECT load_extension('/tmp/evil.so'); END")
            database.commit()
            return 0

        def use() -> int:
            with edgeagent.Spool(board / "d") as spool:
                try:
                    spool.append("tiny", [0, 1, 2, 3], 1)
                except Exception as error:  # noqa: BLE001 - whatever it is: the extension is not loaded
                    return 7 if "unsafe use of load_extension" in str(error) or "no such function" in str(error) else 8
            return 0

        assert as_user(APP, [GROUP], plant) == 0 and as_user(AGENT, [GROUP], use) == 7


def test_a_service_that_may_set_no_special_bits_makes_a_spool_that_was_removed_anew(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, change = board / "d" / "state" / FOLDER, Path.chmod

    def restricted(path: Path, mode: int) -> None:  # RestrictSUIDSGID of a unit
        if mode & (stat.S_ISUID | stat.S_ISGID):
            raise PermissionError(1, "Operation not permitted", str(path))
        change(path, mode)

    assert mode(folder) == 0o2770
    monkeypatch.setattr(Path, "chmod", restricted)
    for left in folder.iterdir():
        left.unlink()
    Spool.create(board / "d" / "state")
    assert mode(folder) == 0o2770, "what the folder has it keeps, and nothing is asked for"
    shutil.rmtree(folder)
    Spool.create(board / "d" / "state")
    assert mode(folder) == 0o770
