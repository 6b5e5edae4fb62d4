"""A board that is broken in each named way, between two talks with a real centre in memory: what the agent says, and what the centre holds.

    python -m tests.system.troubles          all of them, one line each
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeagent.service.befallen import befallen, got_over
from edgeagent.settings import reading
from edgeagent.settings.reading import Loaded
from edgeagent.state.agent_tables import RELEASE
from edgeagent.state.folder import open_folder
from edgeagent.state.looking import look_at
from edgeagent.troubles.naming import name_in
from modelwire.errors import ModelWireError
from modelwire.wire.keys import KeyKind, write_key
from tests.edgeagent import boards
from tests.edgeagent.by_hand import train_on
from tests.system.lying import DEVICE, LONG, MODEL, SETTINGS, World

YEARS = 10 * 365 * 86_400.0  # seconds
FILE = "edgeagent.db"
Held = dict[tuple[int, int], tuple[bytes, str]]  # (epoch, version) -> (commit, status)


class Board(World):
    """A board with three verified versions and, once `leave_unsent` was called, two that are queued; its centre; what happens to it."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        super().__init__(folder, seed)
        self.ahead_from = 0.0  # seconds of the tests' clock at which the board's is set
        self.home = folder / "board"
        self.state, self.model = self.home / "state", self.home / "state" / "models" / MODEL
        self.serve(60)
        self.serve(100, bursts=[1] * 3)

    def wall(self) -> float:
        return super().wall() if self.clock.now >= self.ahead_from else self.clock.wall()

    @property
    def loaded(self) -> Loaded:
        return reading.load(self.home / reading.FILE, environment={}, flags={})

    def leave_unsent(self) -> None:
        """Do two rounds without a link."""
        with open_folder(self.loaded, alone=True) as device:
            train_on(device, self.wall)
            train_on(device, self.wall)

    def cut_power(self, *, left: bool = False) -> None:
        """Leave what a power cut in the middle of a run leaves: commits of two rounds stand in the database's log alone.

        left: their updates were handed over, and got lost on their way.
        """
        with open_folder(self.loaded, alone=True) as device:
            train_on(device, self.wall)
            train_on(device, self.wall)
            for w in device.lineages[MODEL].outbox.waiting("queued") if left else ():
                device.lineages[MODEL].offer(w)
            shutil.copytree(self.home, self.folder / "cut", symlinks=True)
        shutil.rmtree(self.home)
        (self.folder / "cut").rename(self.home)
        assert (self.state / f"{FILE}-wal").stat().st_size > 0

    def held(self) -> Held:
        """Return all that the centre holds of the board."""
        row = self.store.lineages.get(DEVICE, MODEL)
        assert row is not None
        return {(v.epoch, v.version): (v.commit, v.status.value) for v in self.store.versions.of(row.id)}

    def refused_start(self) -> ModelWireError | None:
        """Return what keeps the agent from starting."""
        try:
            with open_folder(self.loaded, alone=True):
                return None
        except ModelWireError as e:
            return e

    def named(self) -> set[str]:
        """Return the troubles that `status` names, those that were got over among them."""
        with look_at(self.loaded) as look:
            return {one.id for one in befallen(look, self.wall())} | {one.id for one in got_over(look)}

    def set_up_anew(self) -> None:
        """Do what the hint says: put the folder aside, and set up anew with the key of before."""
        aside = self.folder / "board.aside"
        self.home.rename(aside)
        boards.make(self.home, **SETTINGS)
        aside_key, key = aside / "device.key", self.home / "device.key"
        assert aside_key.read_bytes() == key.read_bytes()


@dataclass(frozen=True)
class Case:
    """One way to break a board."""

    id: str  # of the trouble that is named
    befall: Callable[[Board], object]
    mend: Callable[[Board], object] | None = None  # what the agent asks for; None: it gets over it alone
    how: str = ""  # where one trouble comes about in several ways
    starts: bool = False  # it asks, and runs all the same
    unsent: bool = False  # two updates wait when it happens

    @property
    def name(self) -> str:
        return f"{self.id}, {self.how}" if self.how else self.id


@dataclass
class Outcome:
    """What came of one."""

    named: set[str]
    alone: bool  # it went on without a person
    asked: bool  # it said what to do, and that did it
    overwritten: int  # versions at the centre with another commit than before, or that are gone
    doubled: int  # commits that stand there twice
    taken_back: int  # versions that were verified, and are not any more
    went_on: bool  # a round after it came to the centre, and was verified
    disagreements: list[str]  # about versions of which the board knows anything

    @property
    def sound(self) -> bool:
        """Return whether nothing at the centre was touched, and the board got over it, or said how and it was so."""
        untouched = self.overwritten == self.doubled == self.taken_back == 0 and self.disagreements == []
        return untouched and self.went_on and (self.alone or self.asked)


def measure(folder: Path, case: Case) -> Outcome:
    """Break a board, do what is asked for, and return what became of it and of all that the centre held."""
    with closing(Board(folder)) as board:
        if case.unsent:
            board.leave_unsent()
        before = board.held()
        case.befall(board)
        error = board.refused_start()
        named, asked = set[str](), False
        if error is not None:
            named.add(name_in(error, board.loaded) if (board.home / reading.FILE).exists() else "")
            asked = bool(error.next_step) and case.mend is not None
        else:
            board.serve(60)
            named |= board.named()
        if case.mend is not None:
            asked = asked or case.starts
            case.mend(board)
        board.serve(60)
        named |= board.named()
        board.serve(120, bursts=[1, 1])
        after = board.serve(LONG)
        held = board.held()
        changed = sum(key not in held or held[key][0] != commit for key, (commit, _) in before.items())
        commits = [commit for commit, _ in held.values()]
        back = sum(status == "verified" and held.get(key, (b"", ""))[1] != "verified" for key, (_, status) in before.items())
        new = [status for key, (_, status) in held.items() if key not in before]
        return Outcome(
            named, case.mend is None and error is None, asked, changed, len(commits) - len(set(commits)), back,
            bool(new) and new[-1] == "verified", [text for text in after.disagreements if "knows nothing" not in text],
        )  # fmt: skip


# The ways.


def flip(path: Path, at: float = 0.5) -> None:
    """Change one bit in the middle of a file, or at another share of it."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


@contextmanager
def database(board: Board) -> Iterator[sqlite3.Connection]:
    """Open the agent's database as another program would."""
    made = sqlite3.connect(board.state / FILE, isolation_level=None)
    try:
        yield made
    finally:
        made.close()


def sql(*statements: str) -> Callable[[Board], None]:
    def run(board: Board) -> None:
        with database(board) as made:
            for statement in statements:
                made.execute(statement)

    return run


def pages(board: Board) -> None:
    """Spoil the second half of the database, in which its tables lie."""
    path = board.state / FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = b"\x5a" * (len(data) - len(data) // 2)
    path.write_bytes(data)


def stale_index(board: Board) -> None:
    """Let an index miss a row: as if its page had been written and lost."""
    with database(board) as made:
        (rootpage, text) = made.execute("SELECT rootpage, sql FROM sqlite_master WHERE name='version_by_state'").fetchone()
        made.execute("PRAGMA writable_schema=ON")
        made.execute("DELETE FROM sqlite_master WHERE name='version_by_state'")
    with database(board) as made:
        made.execute("UPDATE version SET id=1000 WHERE version=3")
        made.execute("PRAGMA writable_schema=ON")
        made.execute(
            "INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) VALUES ('index', 'version_by_state', 'version', ?, ?)",
            (rootpage, text),
        )
    with database(board) as made:
        assert made.execute("PRAGMA integrity_check").fetchone()[0] != "ok"


def changed_bodies(board: Board) -> None:
    """Change one bit of each update that waits."""
    with database(board) as made:
        for version, body in made.execute("SELECT version, body FROM outbox").fetchall():
            data = bytearray(body)
            data[len(data) // 2] ^= 16
            made.execute("UPDATE outbox SET body=? WHERE version=?", (bytes(data), version))


def without_log(board: Board) -> None:
    board.cut_power()
    (board.state / f"{FILE}-wal").unlink()


def without_log_of_what_left(board: Board) -> None:
    board.cut_power(left=True)
    (board.state / f"{FILE}-wal").unlink()


def damaged_log(board: Board) -> None:
    board.cut_power()
    flip(board.state / f"{FILE}-wal", 0.02)


def without_shared_memory(board: Board) -> None:
    board.cut_power()
    (board.state / f"{FILE}-shm").unlink(missing_ok=True)


def log_of_another(board: Board) -> None:
    """Put the log of another board's database beside this one's."""
    board.cut_power()
    other = board.folder / "other"
    boards.make(other, device__name="pi-8", **SETTINGS)
    loaded = reading.load(other / reading.FILE, environment={}, flags={})
    with open_folder(loaded, alone=True) as device:
        device.database.run("UPDATE model SET rounds=7")
        shutil.copy(other / "state" / f"{FILE}-wal", board.state / f"{FILE}-wal")
    (board.state / f"{FILE}-shm").unlink(missing_ok=True)


def older_database(board: Board) -> None:
    """Put a database of before the last rounds back, and leave the files beside it."""
    copy = board.folder / "older.db"
    shutil.copy(board.state / FILE, copy)
    board.serve(100, bursts=[1, 1, 1])
    shutil.copy(copy, board.state / FILE)


def database_a_round_older(board: Board) -> None:
    """The same by one round, whose predecessor's files are still in the other slot."""
    copy = board.folder / "older"
    shutil.copytree(board.state, copy, symlinks=True)
    board.serve(60, bursts=[1])
    sent = (board.model / "sent").read_bytes()
    shutil.rmtree(board.state)
    copy.rename(board.state)
    (board.model / "sent").write_bytes(sent)


def empty_database(board: Board) -> None:
    """Cut the database to nothing while its log holds commits: SQLite would take it for new, and delete the log."""
    board.cut_power()
    (board.state / FILE).write_bytes(b"")


def keeps_log(board: Board) -> None:
    assert (board.state / f"{FILE}-wal").stat().st_size > 0, "what may still be saved was deleted"
    board.set_up_anew()


def half_database(board: Board) -> None:
    os.truncate(board.state / FILE, (board.state / FILE).stat().st_size // 8192 * 4096)


def older_copy(board: Board) -> None:
    """Put a copy of the whole folder back, after the board went on."""
    copy = board.folder / "copy"
    shutil.copytree(board.state, copy, symlinks=True)
    board.serve(200, bursts=[1] * 4)
    shutil.rmtree(board.state)
    copy.rename(board.state)


def new_epoch(board: Board) -> None:
    with open_folder(board.loaded, alone=True) as device:
        device.renew_state()


def replaced(path: Callable[[Board], Path], put: Callable[[Path], object]) -> Callable[[Board], None]:
    """Move something aside and put another thing in its place."""

    def run(board: Board) -> None:
        there = path(board)
        os.rename(there, there.with_name(f"{there.name}.was"))
        put(there)

    return run


def put_back(path: Callable[[Board], Path]) -> Callable[[Board], None]:
    def run(board: Board) -> None:
        there = path(board)
        if there.is_symlink() or there.is_file():
            there.unlink()
        elif there.is_dir():
            there.rmdir()
        os.rename(there.with_name(f"{there.name}.was"), there)

    return run


def _state(board: Board) -> Path:
    return board.state


def _database(board: Board) -> Path:
    return board.state / FILE


def _base(board: Board) -> Path:
    return board.model / "base.tflite"


def _served(board: Board) -> Path:
    return board.model / "served.tflite"


def _spool(board: Board) -> Path:
    return board.state / "samples" / "samples.db"


def _key(board: Board) -> Path:
    return board.home / "device.key"


def _lock(board: Board) -> Path:
    return board.state / "lock"


def _samples(board: Board) -> Path:
    return board.state / "samples"


def _history(board: Board) -> Path:
    return board.model / "history"


def _log(board: Board) -> Path:
    return board.state / f"{FILE}-wal"


def _journal(board: Board) -> Path:
    return board.state / f"{FILE}-journal"


def _idle_slot(board: Board) -> Path:
    """Return the slot that is not served."""
    return board.model / ("b" if os.readlink(_served(board)).startswith("a") else "a")


def in_place_of(path: Callable[[Board], Path]) -> Callable[[Board], None]:
    """Put a file in the place of a folder, be it there or not."""

    def run(board: Board) -> None:
        path(board).mkdir(exist_ok=True)
        replaced(path, lambda there: there.write_text("x"))(board)

    return run


def journal_of_another(board: Board) -> None:
    """Put a rollback journal that a power cut left beside another database beside this one's: SQLite takes it for this one's."""
    other = board.folder / "other.db"
    with closing(sqlite3.connect(other, isolation_level=None)) as made:
        made.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000)); PRAGMA cache_size=1")
        made.execute("BEGIN")
        made.execute("UPDATE t SET x=zeroblob(90000)")
        made.execute("CREATE TABLE u (x)")
        shutil.copy(f"{other}-journal", _journal(board))


def sparse(board: Board) -> None:
    os.truncate(_database(board), 10 << 30)


def nothing(path: Path) -> None:
    pass


def another_key(path: Path) -> None:
    path.write_text(f"{write_key(KeyKind.DEVICE_PRIVATE, bytes(range(64, 96)))}\n")
    path.chmod(0o600)


def no_key(path: Path) -> None:
    path.write_text("edge-device-key:00\n")
    path.chmod(0o600)


def clock_during(seconds: float) -> Callable[[Board], None]:
    """Set the clock in the middle of a run, in which rounds are done before and after."""

    def run(board: Board) -> None:
        board.ahead, board.ahead_from = seconds, board.clock.now + 50
        board.serve(100, bursts=[1, 1, 1])

    return run


def clock_at(seconds: float) -> Callable[[Board], None]:
    def run(board: Board) -> None:
        board.ahead = seconds

    return run


def spend(board: Board) -> None:
    """Set a limit that this month has passed already, with updates that wait."""
    file = board.home / reading.FILE
    file.write_text(file.read_text().replace('#monthly_bytes = "0B"', 'monthly_bytes = "1B"'))
    assert board.loaded.settings.link.monthly_bytes == 1


def raise_limit(board: Board) -> None:
    file = board.home / reading.FILE
    file.write_text(file.read_text().replace('monthly_bytes = "1B"', 'monthly_bytes = "1GiB"'))


def right_clock(board: Board) -> None:
    board.ahead = 0.0


ANEW = Board.set_up_anew
CASES = (
    Case("state-gone", lambda b: shutil.rmtree(b.state), ANEW),
    Case("state-replaced", replaced(_state, lambda path: path.write_text("x")), put_back(_state), "by a file"),
    Case("state-replaced", replaced(_state, lambda path: path.symlink_to("nowhere")), put_back(_state), "by a link"),
    Case("database-gone", lambda b: _database(b).unlink(), ANEW, "its key stays", unsent=True),
    Case("database-cut", half_database, ANEW, "to a half"),
    Case("database-cut", empty_database, keeps_log, "to nothing, beside a log with commits"),
    Case("database-damaged", lambda b: flip(_database(b), 0.0), ANEW, "in its header"),
    Case("database-damaged", pages, ANEW, "in its pages"),
    Case("database-damaged", log_of_another, ANEW, "by the log of another board"),
    Case("database-replaced", replaced(_database, lambda path: path.symlink_to("elsewhere.db")), put_back(_database), "by a link"),
    Case("database-replaced", replaced(_database, Path.mkdir), put_back(_database), "by a folder"),
    Case("place-taken", in_place_of(_idle_slot), put_back(_idle_slot), "a file for the folder of a slot"),
    Case("place-taken", in_place_of(_history), put_back(_history), "a file for the folder of earlier versions"),
    Case("place-taken", in_place_of(_samples), put_back(_samples), "a file for the folder of samples", unsent=True),
    Case("place-taken", replaced(_lock, Path.mkdir), put_back(_lock), "a folder for the lock"),
    Case("place-taken", lambda b: _log(b).mkdir(), lambda b: _log(b).rmdir(), "a folder for the database's log"),
    Case("place-taken", lambda b: (b.model / "round").mkdir(), lambda b: (b.model / "round").rmdir(), "a folder for a round's journal"),
    Case("place-taken", journal_of_another, lambda b: _journal(b).unlink(), "the journal of another database", unsent=True),
    Case("", lambda b: shutil.rmtree(_idle_slot(b)), None, "the empty folder of a slot left out by who copied it"),
    Case("", sparse, None, "a database that claims ten gigabytes of the disk"),
    Case("database-older", older_database, ANEW, "by three rounds"),
    Case("database-older", database_a_round_older, None, "by a round, its files whole"),
    Case("database-older", without_log_of_what_left, ANEW, "its log deleted"),
    Case("model-damaged", without_log, ANEW, "its log deleted before anything left"),
    Case("model-damaged", damaged_log, ANEW, "a bit of its log flipped before anything left"),
    Case("", without_shared_memory, None, "the shared memory of the log deleted"),
    Case("index-damaged", stale_index, None),
    Case("outbox-damaged", changed_bodies, None, "both", unsent=True),
    Case("outbox-damaged", sql("UPDATE outbox SET body=CAST(x'ffff' AS TEXT)"), None, "made text", unsent=True),
    Case("outbox-damaged", sql("UPDATE outbox SET body=x'' WHERE version=(SELECT max(version) FROM outbox)"), None, "one", unsent=True),
    Case("model-damaged", lambda b: flip(_served(b).resolve()), ANEW, "the served file"),
    Case("model-damaged", lambda b: flip(_served(b).resolve().parent / "private"), ANEW, "its private part"),
    Case("base-damaged", replaced(_base, lambda path: path.write_bytes(b"x")), put_back(_base), "changed", unsent=True),
    Case("base-damaged", replaced(_base, nothing), put_back(_base), "gone"),
    Case("served-gone", lambda b: _served(b).unlink(), None, "gone"),
    Case("served-gone", replaced(_served, Path.mkdir), None, "a folder in its place"),
    Case("served-gone", replaced(_served, lambda path: path.write_text("x")), None, "a file in its place"),
    Case("served-gone", replaced(_served, lambda path: path.symlink_to("/etc/passwd")), None, "a link that leads elsewhere"),
    Case("samples-gone", lambda b: _spool(b).unlink(), None),
    Case("samples-damaged", lambda b: _spool(b).write_bytes(b"x" * 5000), None, "no database"),
    Case("samples-damaged", lambda b: os.truncate(_spool(b), 8192), None, "cut", unsent=True),
    Case("samples-replaced", replaced(_spool, lambda path: path.symlink_to("nowhere")), put_back(_spool)),
    Case("key-gone", replaced(_key, nothing), put_back(_key), unsent=True),
    Case("key-damaged", replaced(_key, no_key), put_back(_key)),
    Case("key-damaged", replaced(_key, lambda path: path.symlink_to(path.name)), put_back(_key), "a link to itself"),
    Case("key-open", lambda b: _key(b).chmod(0o644), lambda b: _key(b).chmod(0o600)),
    Case("key-changed", replaced(_key, another_key), put_back(_key), starts=True, unsent=True),
    Case("clock-off", clock_at(-YEARS), right_clock, "ten years back", starts=True, unsent=True),
    Case("clock-off", clock_at(YEARS), right_clock, "ten years ahead", starts=True, unsent=True),
    Case("clock-off", clock_during(-YEARS), right_clock, "set back in the middle of a run", starts=True),
    Case("clock-off", clock_during(YEARS), right_clock, "set ahead in the middle of a run", starts=True),
    Case("older-copy", older_copy, new_epoch, starts=True),
    Case("newer-release", sql(f"PRAGMA user_version={RELEASE + 1}"), sql(f"PRAGMA user_version={RELEASE}"), unsent=True),
    Case("older-release", sql("PRAGMA user_version=3"), sql(f"PRAGMA user_version={RELEASE}")),
    Case("month-spent", spend, raise_limit, starts=True, unsent=True),
)  # fmt: skip


@dataclass
class Flipped:
    """What came of one bit that was flipped in a file of a board."""

    where: str
    named: str  # the trouble that keeps it from starting; empty where it starts
    unnamed: str  # an error without a trouble's name, or none of ours
    touched: int  # versions at the centre that are others than before, stand there twice, or were taken back
    silent: bool  # it does not go on, and says nothing


def flipped(folder: Path, seed: int) -> Flipped:
    """Flip any bit of any file of a board that has updates to send, and go on as the agent says."""
    rng = random.Random(seed)
    with closing(Board(folder)) as board:
        board.cut_power() if rng.random() < 0.3 else board.leave_unsent()
        before = board.held()
        files = sorted(p for p in board.state.rglob("*") if p.is_file() and not p.is_symlink() and p.stat().st_size)
        file = rng.choice([*files, _key(board)])
        whole = file.read_bytes()
        at = rng.randrange(8 * len(whole))
        file.write_bytes(whole[: at // 8] + bytes([whole[at // 8] ^ 1 << at % 8]) + whole[at // 8 + 1 :])
        out = Flipped(f"seed {seed}: {file.relative_to(board.home)}, bit {at}", "", "", 0, False)
        try:
            board.serve(60)
        except ModelWireError as e:
            out.named = name_in(e, board.loaded)
            out.unnamed = "" if out.named and e.next_step else repr(e)
            if file == _key(board):
                file.write_bytes(whole)
            else:
                board.set_up_anew()
        except Exception as e:  # noqa: BLE001  # whatever it is: it is what is looked for
            out.unnamed = repr(e)
            board.set_up_anew()
        try:
            board.serve(120, bursts=[1, 1])
            after = board.serve(LONG)
        except Exception as e:  # noqa: BLE001
            out.unnamed = out.unnamed or f"later: {e!r}"
            return out
        held = board.held()
        out.touched = sum(key not in held or held[key][0] != commit for key, (commit, _) in before.items())
        out.touched += len(held) - len({commit for commit, _ in held.values()})
        verified = [key for key, (_, status) in before.items() if status == "verified"]
        out.touched += sum(held.get(key, (b"", ""))[1] != "verified" for key in verified)
        with look_at(board.loaded) as look:
            head = look.lineages[MODEL].head()
            said = head.blocked or look.lineages[MODEL].next_step(head) or befallen(look, board.wall())
        out.silent = len(held) == len(before) and not said
        del after
        return out


def main() -> None:
    """Print what came of each way."""
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            made = measure(Path(folder), case)
        well = made.sound and made.named == ({case.id} if case.id else set())
        print(f"{'ok ' if well else 'BAD'} {case.name}: {made}")


if __name__ == "__main__":
    main()
