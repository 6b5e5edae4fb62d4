"""An ext4 file system of its own on a loop device, which counts every block that it is written: what flash would be written.

Mounted in a mount namespace of one process, so nothing is left behind whatever becomes of it. It needs root and a loop device.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SIZE = 512 << 20  # bytes of the file system, of which the image takes what is used
MEMORY = Path("/dev/shm")  # where the image lies: this machine's own disk is of no interest
SECTOR = 512
_CLONE_NEWNS = 0x20000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted file system."""

    path: Path
    _stat: Path

    def flush(self) -> None:
        """Let the disk have all that was written to its files, as the kernel does within 30 s."""
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _libc.syncfs(handle):
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(handle)

    def written(self) -> int:
        """Return the bytes that the disk was written since it was mounted: files, journal and what else ext4 keeps."""
        return SECTOR * int(self._stat.read_text().split()[6])


def lacking() -> str:
    """Return what keeps this machine from mounting one; empty where nothing does."""
    if os.geteuid() != 0:
        return "it needs root"
    missing = [name for name in ("unshare", "mount", "mkfs.ext4") if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"not on this machine: {', '.join(missing)}"
    if not Path("/dev/loop-control").exists() or not os.access(MEMORY, os.W_OK):
        return "there is no loop device here"
    words = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return "" if subprocess.run(words, capture_output=True, check=False).returncode == 0 else "nothing may be mounted here"


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@contextmanager
def mounted() -> Iterator[Disk]:
    """Mount a new one for the block, in a namespace that this process enters for good: call it in one that ends with it."""
    if _libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    environment = {**os.environ, "PATH": _PATH}
    subprocess.run(["mount", "--make-rprivate", "/"], check=True, env=environment)
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        image, place = Path(name) / "disk.img", Path(name) / "disk"
        place.mkdir()
        with image.open("wb") as out:
            out.truncate(SIZE)
        make = ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)]
        subprocess.run(make, check=True, env=environment)
        subprocess.run(["mount", "-o", "loop,noatime", str(image), str(place)], check=True, env=environment)
        try:
            device = place.stat().st_dev
            yield Disk(place, Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat"))
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True, env=environment)
