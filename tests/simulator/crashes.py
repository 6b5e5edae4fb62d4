"""Ends a program at its N-th write, in this process: every statement that writes, every file written, flushed, renamed or removed.

After a crash nothing of it does anything any more: what its `except` and `finally` would still write, a killed process does not.
What is on the disk at that moment is copied first, as `kill -9` leaves it, and the next start works on the copy.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "COMMIT", "CREATE", "DROP", "ALTER", "VACUUM", "BACKUP")
CALLS = ("write", "pwrite", "fsync", "fdatasync", "replace", "rename", "link", "symlink", "unlink", "remove", "mkdir", "rmdir",
         "ftruncate", "truncate", "copy_file_range", "sendfile")  # fmt: skip


class Crash(BaseException):
    """The process is gone. No Exception: nothing may catch it and go on."""


class Steps:
    """Counts the writes of a block, and crashes at the one that is asked for."""

    calls = CALLS

    def __init__(self) -> None:
        self.taken = 0
        self.names: list[str] = []  # of the steps, while they are counted
        self._at: int | None = None
        self._torn = False
        self._dying: Callable[[], None] = lambda: None
        self._watching = self._dead = False

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the steps of the block and let them pass."""
        self.taken, self._watching, self._at, self.names = 0, True, None, []
        try:
            yield
        finally:
            self._watching = False

    @contextmanager
    def crash_at(
        self, step: int, dying: Callable[[], None] = lambda: None, *, torn: bool = False, power: bool = False, files: bool = False
    ) -> Iterator[None]:
        """Crash before step number `step`, from 1, of the block; not at all when it has fewer. Raises Crash.

        power: as a power cut; files: at a step that is none of SQLite. Only steps to a disk of the simulator know of these two.
        dying: called at that moment, to keep what is on the disk. torn: half of it is done first, where it is a write to a file.
        """
        assert not (power or files), "what a power cut leaves, these steps do not know"
        self.taken, self._watching, self._at, self._torn, self._dying, self.names = 0, True, step, torn, dying, []
        try:
            yield
        finally:
            self._watching = self._dead = False
            self._at = None

    def step(self, name: str, half: Callable[[], object] | None = None) -> None:
        """Note a write that is about to be made. half: makes half of it."""
        if self._dead:
            raise Crash
        if not self._watching:
            return
        self.taken += 1
        self.names.append(name)
        if self.taken == self._at:
            if self._torn and half is not None:
                half()
            self._watching = False  # what `dying` copies is no step
            self._dying()
            self._dead = True
            raise Crash(f"at step {self.taken}: {name}")

    @contextmanager
    def installed(self) -> Iterator[Steps]:
        """Watch the writes of this process for the time of the block. Connections that are opened within are seen."""
        plain_connect, plain_open = sqlite3.connect, io.open
        watch = self

        class Watched(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                watch.statement(sql)
                try:
                    return super().execute(sql, *values)
                except sqlite3.Error:
                    watch.failed()
                    raise

            def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
                watch.statement(sql)
                return super().executemany(sql, *values)

            def executescript(self, script: str) -> sqlite3.Cursor:
                watch.statement("CREATE (script)")
                return super().executescript(script)

            def backup(self, *args: Any, **more: Any) -> None:
                watch.statement("BACKUP")
                super().backup(*args, **more)

        def connect(*args: Any, **more: Any) -> sqlite3.Connection:
            return plain_connect(*args, **{"factory": Watched, **more})

        def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            if set(mode) & set("wax+"):
                watch.opened(file, mode)
            return plain_open(file, mode, *args, **more)

        with ExitStack() as stack:
            stack.enter_context(patch.object(sqlite3, "connect", connect))
            stack.enter_context(patch.object(io, "open", opened))
            stack.enter_context(patch.object(builtins, "open", opened))
            for name in self.calls:
                if hasattr(os, name):
                    stack.enter_context(patch.object(os, name, self._wrapped(name)))
            yield self

    def statement(self, sql: str) -> None:
        """Note a statement that is about to be run."""
        if self._dead:
            raise Crash
        if self._watching:
            word = sql.lstrip()[:8].split(None, 1)[0].upper() if sql.strip() else ""
            if word in WRITES:
                self.step(" ".join(sql.split())[:70])

    def failed(self) -> None:
        """Say that a statement failed. Nothing here lets one fail."""

    def opened(self, file: Any, mode: str) -> None:
        """Note a file that is about to be opened for writing."""
        self.step(f"open {mode}")

    def done(self, name: str, plain: Callable[..., Any], args: tuple[Any, ...], more: dict[str, Any]) -> Any:
        """Note a call of os that writes, and do it."""
        half = None
        if name == "write" and len(args) > 1 and len(args[1]) > 1:
            half = lambda: plain(args[0], memoryview(args[1])[: len(args[1]) // 2])  # noqa: E731
        self.step(f"os.{name}", half)
        return plain(*args, **more)

    def _wrapped(self, name: str) -> Callable[..., Any]:
        plain = getattr(os, name)
        return lambda *args, **more: self.done(name, plain, args, more)


def copy_registry(path: Path, target: Path) -> None:
    """Copy a registry as its files lie there, with its log and its large blobs: what a kill at this moment leaves.

    Without `-shm`: it is memory that is shared by who lives, and the next start makes it anew. The connections that are open to `path`
    have lost their locks by that, so nobody goes on with them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for end in ("", "-wal", "-journal"):
        with suppress(FileNotFoundError):
            shutil.copyfile(path.with_name(path.name + end), target.with_name(target.name + end))
    target.chmod(0o600)
    for folder in sorted(path.parent.glob(f"{path.name}.*")):  # .blobs, and whatever else is kept as files beside it
        if folder.is_dir():
            shutil.copytree(folder, target.parent / folder.name.replace(path.name, target.name), dirs_exist_ok=True)
