#!/usr/bin/python3
"""Keeps the agent's state as it is before a system on trial opens it, and takes it back where that system was left.

    kept-state      at each start of the board, before the agent's, as the agent's user

A newer agent brings its databases to its own release, and an older one does not read them. Both systems share the data partition: without a
copy, a board that fell back would have no agent that runs. On trial the state is copied once, before anything opens it. Once the system is
good the copy goes. A system that was fallen back to compares: where a database is of a later release than the copy's, the copy takes
its place, with what the agent has noted as sent, so that it knows what the centre has of it and numbers nothing twice. What stood there is
put aside. It stands alone: the image holds it as /usr/lib/edgeagent-image/kept-state.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import tomllib

RUN = Path("/run/edgeagent-image")
FOLDER = Path("/var/lib/edgeagent/agent")
STATE = "state"  # unless the settings say otherwise
DATABASE, SPOOL, SENT = "edgeagent.db", Path("samples/samples.db"), "sent"
BESIDE = ("-wal", "-shm", "-journal")  # of a database: what a copy by SQLite has no need of
LEFT = ("lock",)  # of the state: says who holds it


def main() -> int:
    """Keep, drop or take back the state of this board; return an exit code."""
    try:
        slot, trial, place = (RUN / "slot").read_text().strip(), (RUN / "trial").exists(), KeptState(state_folder(FOLDER), FOLDER)
        place.settle("" if trial and place.slot() == slot else slot)
        if trial and place.slot() != slot:
            place.keep(slot)
    except (OSError, sqlite3.Error, ValueError) as error:
        print(f"kept-state: {error}; where this system is left, the older agent may not read what this one writes", file=sys.stderr)
        return 1
    return 0


def state_folder(folder: Path) -> Path:
    """Return where the agent's state is. Raises ValueError or OSError for settings that can't be read."""
    device = tomllib.loads((folder / "edgeagent.toml").read_text()).get("device", {})
    return folder / str(device.get("dir", STATE) if isinstance(device, dict) else STATE)


class KeptState:
    """The state, and beside it its copy of before a trial. Power may go at any moment: a folder is complete once it has its name."""

    def __init__(self, state: Path, folder: Path) -> None:
        self.state = state
        self.kept, self.part, self.aside = (state.with_name(f"{state.name}.{end}") for end in ("before-trial", "part", "newer"))
        self.mark = folder / f"{state.name}.before-trial"  # of the settings; the state may lie elsewhere

    def slot(self) -> str:
        """Return the slot for whose trial the copy was made; empty where there is none."""
        try:
            return (self.kept / "slot").read_text().strip()
        except OSError:
            return ""

    def keep(self, slot: str) -> None:
        """Copy the state for the trial of a slot. Raises OSError, sqlite3.Error."""
        shutil.rmtree(self.part, ignore_errors=True)
        shutil.rmtree(self.aside, ignore_errors=True)  # of a trial before
        self.part.mkdir(mode=0o700)
        if not self.mark.is_symlink() and self.mark != self.kept:
            self.mark.symlink_to(self.kept)  # the unit looks for it there
        copy(self.state, self.part / "state")
        (self.part / "slot").write_text(f"{slot}\n")
        flush(self.part)
        self.part.rename(self.kept)
        flush_folder(self.kept.parent)

    def settle(self, slot: str) -> None:
        """Drop a copy that is of no more use to the system in this slot, or let it take the state's place. An empty slot: leave it."""
        shutil.rmtree(self.part, ignore_errors=True)  # what a power cut left
        if not slot or not self.slot():
            return
        copied = self.kept / "state"
        if self.slot() != slot and copied.exists() and (not self.state.exists() or self.newer()):
            self.take_back(copied)
        self.kept.rename(self.part)  # at once: half a copy is none
        shutil.rmtree(self.part)
        if self.mark.is_symlink():
            self.mark.unlink()

    def newer(self) -> bool:
        """Return whether the state has a database of a later release than the copy's."""
        return any(release(self.state / name) > release(self.kept / "state" / name) for name in (Path(DATABASE), SPOOL))

    def take_back(self, copied: Path) -> None:
        if self.state.exists():
            for path in self.state.rglob(SENT):  # what left the board is known: it is never numbered anew
                if (to := copied / path.relative_to(self.state)).parent.is_dir():
                    copy_file(path, to)
            if release(self.state / SPOOL) == release(copied / SPOOL) > 0:  # samples that came meanwhile
                copy_database(self.state / SPOOL, copied / SPOOL)
            flush(copied)
            shutil.rmtree(self.aside, ignore_errors=True)
            self.state.rename(self.aside)
            flush_folder(self.state.parent)
        copied.rename(self.state)
        flush_folder(self.state.parent)
        what = "the system on trial was left, and it had brought the agent's databases to a later release"
        print(f"kept-state: {what}: its state of before the trial is back; what it was then is in {self.aside}", flush=True)


def release(path: Path) -> int:
    """Return the release of a database's tables; 0 where none can be read."""
    if not path.is_file():
        return 0
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return int(database.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error:
        return 0


def copy(source: Path, target: Path) -> None:
    """Copy a folder of state; databases as SQLite reads them, whoever may be writing there. Raises OSError, sqlite3.Error."""
    target.mkdir(mode=0o700)
    for path in sorted(source.iterdir()):
        mode, to = path.lstat().st_mode, target / path.name
        if stat.S_ISDIR(mode):
            copy(path, to)
        elif stat.S_ISREG(mode) and path.suffix == ".db":
            copy_database(path, to)
        elif stat.S_ISREG(mode) and path.name not in LEFT and not path.name.endswith(tuple(f".db{end}" for end in BESIDE)):
            copy_file(path, to)
        elif stat.S_ISLNK(mode):
            to.symlink_to(os.readlink(path))
    alike(source, target)


def copy_database(source: Path, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        with closed(source, "ro") as old, closed(part, "rwc") as new:
            old.backup(new)
            new.execute(f"PRAGMA journal_mode={old.execute('PRAGMA journal_mode').fetchone()[0]}")
        alike(source, part)
        for end in BESIDE:
            target.with_name(target.name + end).unlink(missing_ok=True)
        part.replace(target)
    except sqlite3.DatabaseError:  # a damaged one is kept as it is: the agent names it
        part.unlink(missing_ok=True)
        for end in ("", "-wal"):
            if (one := source.with_name(source.name + end)).exists():
                copy_file(one, target.with_name(target.name + end))


@contextlib.contextmanager
def closed(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a database, closed at the end of a `with` block."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=60)) as database:
        yield database


def copy_file(source: Path, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    shutil.copyfile(source, part)
    alike(source, part)
    part.replace(target)


def alike(source: Path, target: Path) -> None:
    """Give a copy the mode and the group of what it was made from."""
    found = source.stat()
    with contextlib.suppress(PermissionError):
        os.chown(target, -1, found.st_gid)
    target.chmod(stat.S_IMODE(found.st_mode))


def flush(folder: Path) -> None:
    """Bring all that lies in a folder to the card."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            flush_folder(path)
    flush_folder(folder)


def flush_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
