"""Erases secrets on a boot partition: overwritten in place, flushed, removed. What a flash chip keeps behind them is out of reach."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Erased:
    """What came of it. error: why something still lies there; empty otherwise."""

    says: tuple[str, ...] = ()
    error: str = ""


def erase(folder: Path, names: Sequence[str]) -> Erased:
    """Erase files by their names. A file that can't be erased is said: the board works all the same, and the next start tries again."""
    if not names:
        return Erased()
    says, error, kept = [], "", None
    try:
        with writable(folder):
            for name in names:
                try:
                    _erase(folder / name)
                except OSError as e:  # the others go all the same
                    kept = e
                    continue
                says.append(f"{name} was moved to the data partition and erased on the boot partition")
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        if kept is not None:
            raise kept
    except OSError as e:
        error = f"{folder}: a secret that this board no longer needs there can't be erased: {e.strerror}; take it off the card by hand"
    return Erased(tuple(says), error)


def _erase(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode):
            size = max(found.st_size, 1)
            for start in range(0, size, _BLOCK):
                os.pwrite(handle, b"\0" * min(_BLOCK, size - start), start)
            os.fsync(handle)
            try:  # to the end of its last block, too: an older text may reach beyond the file's end
                os.pwrite(handle, b"\0" * (-size % _BLOCK), size)
                os.fsync(handle)
            except OSError as e:
                if e.errno not in (errno.ENOSPC, errno.EDQUOT):  # a card without room keeps what is in its smaller blocks, no secret of now
                    raise
    finally:
        os.close(handle)
    path.unlink()


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Have a partition that is mounted read-only written to for the time of a `with` block."""
    shut = os.path.ismount(folder) and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    if shut:
        _remount(folder, "rw")
    try:
        yield
    finally:
        if shut:
            with suppress(OSError):
                _remount(folder, "ro")


def _remount(folder: Path, how: str) -> None:
    done = subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise OSError(30, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"it can't be mounted {how}", str(folder))
