"""Compiles power.c with the system's compiler, once, and lets this process's SQLite use it."""

from __future__ import annotations

import _sqlite3
import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("power.c")
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


class PowerVfs:
    """The VFS `power` in this process: what it watches, and when it ends everything."""

    def __init__(self, library: ctypes.CDLL, sqlite: ctypes.CDLL) -> None:
        self._library, self._sqlite = library, sqlite
        library.power_watch.argtypes = library.power_cut.argtypes = (ctypes.c_char_p, ctypes.c_uint64)
        library.power_arm.argtypes = (ctypes.c_int64, ctypes.c_int, ctypes.c_int)
        library.power_cut.restype = library.power_taken.restype = ctypes.c_int64
        library.power_writes.restype = library.power_syncs.restype = ctypes.c_uint64
        self.step, self.taken = library.power_step, library.power_taken  # steps of all kinds are counted there
        self.dead, self.arm, self.revive = library.power_dead, library.power_arm, library.power_revive
        self.writes, self.syncs = library.power_writes, library.power_syncs

    @contextmanager
    def watching(self, folder: Path, seed: int) -> Iterator[PowerVfs]:
        """Watch what SQLite writes under `folder`, an absolute path, for the time of the block: all connections go through it."""
        find, register = (ctypes.cast(getattr(self._sqlite, f"sqlite3_vfs_{name}"), ctypes.c_void_p) for name in ("find", "register"))
        if self._library.power_register(find, register, 1) or self._library.power_watch(os.fsencode(folder), seed):
            raise RuntimeError("SQLite's default VFS is older than this one can stand on")
        self._sqlite.sqlite3_randomness(0, None)  # it draws a new seed, from this VFS
        try:
            yield self
        finally:
            self._library.power_watch(b"", 0)
            self._library.power_register(find, register, 0)

    def cut(self, folder: Path, seed: int) -> int:
        """Cut the power of what lies under `folder`, which nobody has open; return how many writes were lost or torn."""
        lost = int(self._library.power_cut(os.fsencode(folder), seed))
        if lost < 0:
            raise OSError(f"what a cut leaves of {folder} could not be written")
        return lost


@cache
def power_vfs() -> PowerVfs:
    """Return the VFS, compiled where it is not yet. Raises CalledProcessError where there is no compiler."""
    known = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"power-vfs-{os.getuid()}" / f"{known}.so"
    target.parent.mkdir(mode=0o700, exist_ok=True)
    if target.parent.stat().st_uid != os.getuid() or target.parent.is_symlink():
        raise PermissionError(f"{target.parent} is somebody else's")
    if not target.exists():
        beside = target.with_suffix(f".{os.getpid()}")
        subprocess.run([os.environ.get("CC", "cc"), *FLAGS, str(SOURCE), "-o", str(beside)], check=True)
        os.replace(beside, target)
    # By the module that Python has linked it to: the library that stands there, be it the system's or one inside the interpreter.
    where = getattr(_sqlite3, "__file__", None)
    return PowerVfs(ctypes.CDLL(str(target)), ctypes.CDLL(where))
