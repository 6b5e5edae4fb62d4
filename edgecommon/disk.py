"""The disk that takes nothing more: full, over a quota, read-only or failing, in one error that names the file system and what is free."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelwire.errors import DiskUnwritable

TRIED = 256 * 1024  # bytes for which a look tries whether there is room: what SQLite's own files need, and some more
OTHER = "other"  # the part of what nobody named
_MOUNTS = Path("/proc/self/mountinfo")
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@dataclass(frozen=True, slots=True)
class FileSystem:
    """Where a path lies."""

    place: str  # where it is mounted
    kind: str  # ext4, tmpfs, ...; empty where the kernel does not tell
    free: int  # bytes for this user
    size: int  # bytes
    files_free: int | None  # None where it does not count them
    read_only: bool

    @property
    def full(self) -> bool:
        """Whether this user finds no room for what SQLite needs, or for one file more."""
        return self.free < TRIED or self.files_free == 0

    def told(self, needed: int = 0) -> str:
        """Return what people read of it. needed: bytes that were to be written, 0 where nobody knows."""
        name = f"{self.place} ({self.kind})" if self.kind else self.place
        if self.read_only:
            return f"{name} is read-only"
        files = ", and room for no more files" if self.files_free == 0 else ""
        return f"{name} has {said(self.free)} free of {said(self.size)}{files}" + (f", {said(needed)} needed" if needed else "")


def file_system_of(path: Path) -> FileSystem:
    """Return the file system that holds `path`, or would. Raises OSError."""
    there = Path(os.path.abspath(path))
    while True:
        try:
            room = os.statvfs(there)
            break
        except FileNotFoundError:
            there = there.parent
    place, kind, given_up = _mount(os.path.realpath(there))
    files = room.f_favail if room.f_files else None
    read_only = bool(room.f_flag & os.ST_RDONLY) or given_up
    return FileSystem(place, kind, room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize, files, read_only)


def unwritable(error: OSError, path: Path | str | None = None, needed: int = 0) -> DiskUnwritable | None:
    """Return the error for a disk that takes nothing more; None when the OSError says something else. path: what was to be written."""
    number = error.errno
    if number is None or number not in _NUMBERS:
        return None
    named = Path(path if path is not None else os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ".")
    return of(number, named, needed)


def next_step(number: int, place: str) -> str:
    """Return what to do about a disk that answers with this number of errno. place: where it is mounted."""
    return {
        errno.ENOSPC: f"make room on {place}",
        errno.EDQUOT: f"remove what this user has on {place}, or have the quota raised",
        errno.EROFS: f"see why with dmesg, then: mount -o remount,rw {place}",
        errno.EIO: "see what dmesg says of the disk: it may be at its end, or unplugged",
    }[number]


def of(number: int, path: Path, needed: int = 0) -> DiskUnwritable:
    """Return the error for a disk that answers with this number of errno. path: what was to be written."""
    reason = os.strerror(number)
    try:
        system = file_system_of(path)
    except OSError:
        return DiskUnwritable(path=path, reason=reason, disk="its file system does not answer", fix="see what dmesg says of it")
    if number == errno.ENOSPC and system.files_free == 0:
        reason = "No room for one more file on device"
    fix = next_step(number, system.place)
    return DiskUnwritable(path=path, reason=reason, disk=system.told(needed if number == errno.ENOSPC else 0), fix=fix, needed=needed)


@contextmanager
def named(path: Path, needed: int = 0) -> Iterator[None]:
    """Let the block raise DiskUnwritable where the disk takes nothing more. path: what it writes; needed: bytes."""
    try:
        yield
    except OSError as e:
        error = unwritable(e, path, needed)
        if error is None:
            raise
        raise error from e


def refusal(path: Path, needed: int = TRIED) -> DiskUnwritable | None:
    """Try to write where `path` is, and return what the disk says against it; None when it takes `needed` bytes, or can't be tried.

    Nothing stays there, also after a kill. Whoever may not write there learns no more than that it is read-only.
    """
    folder = path if os.path.isdir(path) else path.parent
    try:
        if file_system_of(folder).read_only:
            return of(errno.EROFS, path)
        _try(folder, needed)
    except OSError as e:
        return unwritable(e, path, needed)
    return None


def said(size: int) -> str:
    """Return bytes as people read them; only what is nothing is said to be 0."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}" if size < 1000 * unit else f"{size // unit} {name}"
    return f"{size} bytes"


def _try(folder: Path, size: int) -> None:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        handle = os.open(folder, flags | os.O_TMPFILE, 0o600)  # has no name, so it goes with the process
    except OSError as e:
        if e.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
        beside = folder / f".room.{os.getpid()}"
        handle = os.open(beside, flags | os.O_CREAT | os.O_EXCL, 0o600)
        with suppress(OSError):
            beside.unlink()
    try:
        os.posix_fallocate(handle, 0, size)
        os.pwrite(handle, b"room", 0)
        os.fsync(handle)
    finally:
        os.close(handle)


def _mount(path: str) -> tuple[str, str, bool]:
    """Return where the file system of a path is mounted, of which kind it is, and whether the kernel has shut it to writes."""
    best, kind, given_up = "/", "", False
    with suppress(OSError, UnicodeDecodeError):
        for line in _MOUNTS.read_text().splitlines():
            words, _, more = line.partition(" - ")
            place = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), words.split(" ")[4])
            if (path == place or path.startswith(place.rstrip("/") + "/")) and len(place) >= len(best):
                kind, *_, options = more.split(" ")
                best, given_up = place, not {"ro", "emergency_ro", "shutdown"}.isdisjoint(options.split(","))
    return best, kind, given_up


class WriteTally:
    """What each part of a program has written: a count of bytes is read where one part ends and another begins, by one thread.

    What other threads and processes write meanwhile is counted with the part at hand: the sum is right.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        """count: bytes that this process has written, as it stands."""
        self._count, self._thread = count, threading.get_ident()
        self._part, self._last = OTHER, count()
        self._bytes = Counter[str]()

    def begin(self, part: str) -> str:
        """Count for another part from now on, and return the one before it."""
        before = self._part
        if threading.get_ident() == self._thread:
            now = self._count()
            self._bytes[before] += max(0, now - self._last)
            self._part, self._last = part, now
        return before

    def taken(self) -> Counter[str]:
        """Return the bytes of each part since this was asked last."""
        self.begin(self._part)
        out, self._bytes = self._bytes, Counter()
        return out


_tallies: list[WriteTally] = []  # the newest counts


@contextmanager
def tallied(tally: WriteTally) -> Iterator[None]:
    """Let this tally count what is written in the block."""
    _tallies.append(tally)
    try:
        yield
    finally:
        _tallies.remove(tally)


def begin_part(part: str) -> str:
    """Count what is written for another part from now on, and return the one before it; where nothing counts, it means nothing."""
    return _tallies[-1].begin(part) if _tallies else OTHER


@contextmanager
def writing(part: str) -> Iterator[None]:
    """Count what the block writes for a part."""
    before = begin_part(part)
    try:
        yield
    finally:
        begin_part(before)
