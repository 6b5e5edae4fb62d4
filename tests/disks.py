"""A small disk for tests: a real file system that is filled, freed, made read-only, or given up by the kernel. For who may mount."""

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


class FailingDisk:
    """An ext4 of its own at `path`, in a file beside it."""

    def __init__(self, path: Path) -> None:
        self.path, self._image = path, path.with_name(f"{path.name}.image")

    def mount(self) -> str:
        """Mount it; return why that can't be done, mostly nothing."""
        done = subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.path)], capture_output=True, text=True)
        return done.stderr.strip() if done.returncode else ""

    def give_up(self) -> None:
        """Let the kernel meet an error of the file system: what is open to write stays open, and no write comes through any more."""
        number = os.stat(self.path).st_dev
        device = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
        trigger = Path("/sys/fs/ext4") / os.path.basename(device) / "trigger_fs_error"
        if not trigger.exists():
            pytest.skip("this kernel lets no file system be given up")
        trigger.write_text("1")

    def mend(self) -> None:
        """Check it, and mount it anew. Nobody may have a file open there."""
        subprocess.run(["umount", str(self.path)], check=True)
        subprocess.run(["fsck.ext4", "-fy", str(self._image)], capture_output=True)
        assert not self.mount()


@contextmanager
def failing_disk(path: Path, size: str = "30M") -> Iterator[FailingDisk]:
    """Make and mount a disk that can be given up. Skips the test where this user, or this machine, can't."""
    path.mkdir(parents=True, exist_ok=True)
    made = FailingDisk(path)
    image = path.with_name(f"{path.name}.image")
    with image.open("wb") as file:
        file.truncate(int(size.removesuffix("M")) << 20)
    try:
        why = subprocess.run(["mkfs.ext4", "-q", str(image)], capture_output=True, text=True).stderr.strip() or made.mount()
    except FileNotFoundError as e:
        why = str(e)
    if why:
        pytest.skip(f"no image of a disk is mounted here: {why}")
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
