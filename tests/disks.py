"""A disk of a megabyte or two for tests: a real file system that is filled, freed, and mounted read-only. For who may mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs of its own at `path`."""

    def __init__(self, path: Path) -> None:
        self.path, self._filler = path, path / "filler"

    def fill(self, leave: int = 0) -> None:
        """Take all room but `leave` bytes, in whole pages."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
            if leave:
                file.truncate(max(0, file.tell() - -(-leave // 4096) * 4096))

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    @property
    def room(self) -> int:
        """Bytes that are free."""
        said = os.statvfs(self.path)
        return said.f_bavail * said.f_frsize

    def remount(self, how: str) -> None:
        """Mount it anew: ro or rw. For ro nobody may have a file open to write."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True, capture_output=True)


@contextmanager
def small_disk(path: Path, size: str = "2m") -> Iterator[SmallDisk]:
    """Mount a disk of this size at `path` for the time of the block. Skips the test where this user may not mount."""
    path.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(path)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this user may mount no disk: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
