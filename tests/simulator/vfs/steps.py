"""Ends a program at its N-th write to the disk, of SQLite through the VFS `power` or of Python through os: by a kill, or as the power goes.

After it nothing of the dead reaches the disk. `Disk` and the VFS know what a power cut leaves; after a kill all is there that was written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from tests.simulator.crashes import Crash, Steps

from .disk import WRITING, Disk, path_of
from .library import PowerVfs

KILL, POWER = 1, 2  # as power.c names the ends: the kernel still has what was written; what was not flushed is gone, or any of it
FLUSHES = ("fsync", "fdatasync")


class DiskSteps(Steps):
    """Steps that are writes to a disk. SQL statements are none: what they write is counted where it is written."""

    calls = (*Steps.calls, "pwritev", "posix_fallocate")

    def __init__(self, vfs: PowerVfs, disk: Disk) -> None:
        super().__init__()
        self._vfs, self._disk = vfs, disk
        self._ending = self._power = False
        self._open: dict[int, str] = {}  # by os.open: what lies where
        self.lost = 0  # writes that power cuts took back or tore

    @contextmanager
    def installed(self) -> Iterator[Steps]:
        """Watch the writes of this process for the time of the block, and remember what a power cut may take back."""
        plain, plain_close, step = os.open, os.close, self._step

        def opened(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & WRITING and flags & os.O_CREAT and self._disk.has(path) and not os.path.lexists(path):
                handle = int(step("open", plain, (path, flags, *args), more))
            else:
                if flags & WRITING:
                    self._disk.before("open", (path, flags, *args), more)
                handle = plain(path, flags, *args, **more)
            if self._disk.has(path):
                self._open[handle] = os.fspath(path)
            return handle

        def closed(handle: int) -> None:
            self._open.pop(handle, None)
            plain_close(handle)

        with ExitStack() as stack:
            stack.enter_context(super().installed())
            stack.enter_context(patch.object(os, "open", opened))
            stack.enter_context(patch.object(os, "close", closed))
            yield self

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the steps of the block and let them pass."""
        self._vfs.arm(0, 0, 0)
        try:
            yield
        finally:
            self.taken = self._vfs.taken()

    @contextmanager
    def crash_at(
        self, step: int, dying: Callable[[], None] = lambda: None, *, torn: bool = False, power: bool = False, files: bool = False
    ) -> Iterator[None]:
        """End the block at that step. Raises Crash; then all that the dead held is to be closed, and `ended` called.

        files: steps of SQLite are not counted: there are many of them, and few of the others.
        """
        self._power, self._ending, self.names = power, True, []
        self._vfs.arm(step, POWER if power else KILL, int(files))
        try:
            yield
            self.failed()
        finally:
            self._ending = False
            self.taken = self._vfs.taken()
            if not self._vfs.dead():
                self._vfs.revive()

    def ended(self, folder: Path, rng: Random) -> int:
        """Make of the files under `folder` what the end has left of them; return how many writes were lost or torn by it."""
        if not self._vfs.dead():
            return 0
        self._vfs.revive()
        for handle, path in list(self._open.items()):  # a process that ended holds no locks: what was just opened had nobody to close it
            if path.startswith(f"{folder}/"):
                del self._open[handle]
                if path_of(handle) == path:
                    os.close(handle)
        return self.cut(folder, rng) if self._power else 0

    def cut(self, folder: Path, rng: Random) -> int:
        """Cut the power of what lies under a folder, which nobody has open."""
        lost = self._vfs.cut(folder, rng.randrange(1, 1 << 63)) + self._disk.cut(folder, rng)
        self.lost += lost
        return lost

    def step(self, name: str, half: Callable[[], object] | None = None) -> None:
        """Count something that is about to be said or written. Raises Crash when this is its end."""
        if self._vfs.step() and self._ending:
            self.names = self.names or [name]
            raise Crash(name)

    def statement(self, sql: str) -> None:
        """Let no statement of the dead run."""
        self.failed()

    def failed(self) -> None:
        """Raise Crash when all has ended: what SQLite says then is not its fault."""
        if self._ending and self._vfs.dead():
            self.names = self.names or ["sqlite"]
            raise Crash

    def opened(self, file: Any, mode: str) -> None:
        """Take note of a file that is opened for writing, not through os.open."""
        if self._disk.has(file):
            self.step(f"open {mode}")
            self._disk.opened(file, mode)

    def done(self, name: str, plain: Callable[..., Any], args: tuple[Any, ...], more: dict[str, Any]) -> Any:
        """Do a call of os that writes."""
        return self._step(name, plain, args, more)

    def _step(self, name: str, plain: Callable[..., Any], args: tuple[Any, ...], more: dict[str, Any]) -> Any:
        over = self._vfs.dead()
        if self._vfs.step():
            if not self._ending:
                return len(args[1]) if name in ("write", "pwrite") else None  # the dead let go of what they held
            if not over and self._power and name not in FLUSHES:
                self._disk.before(name, args, more)  # under way when the power goes: all of it, a part or nothing
                handle = plain(*args, **more)
                if name == "open":
                    os.close(handle)
            self.names = self.names or [f"os.{name}"]
            raise Crash(name)
        self._disk.before(name, args, more)
        return None if name in FLUSHES else plain(*args, **more)
