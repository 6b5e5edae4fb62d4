"""The journal of a round in memory: a file on a tmpfs outlives a kill as one on the disk does, and wears no flash.

What stands there is copied to the disk seldom, for power cuts. /dev/shm is open to all: a file there that is not this folder's owner's
alone is none of ours. Decision 0009.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from edgeagent.board.sensors import Sensors
from edgecommon import disk
from edgecommon.files import TEMPORARY

FOLDER = Path("/dev/shm")
SHARE = 8  # of the memory that can be had, one part in so many is the most that journals take
MOST = 64 << 20  # bytes of one
PACE = 4096  # bytes a second that copies to the disk come to at most, while a round trains
SOONEST, LATEST = 30.0, 3600.0  # seconds between two copies, however small or large they are
_PIECE = 1 << 20


def place_of(path: Path) -> Path | None:
    """Return where the journal that belongs at `path` stands in memory; None where no tmpfs takes it, or the disk is one itself."""
    try:
        owner = path.parent.stat().st_uid
        if disk.file_system_of(FOLDER).kind != "tmpfs" or disk.file_system_of(path).kind == "tmpfs":
            return None
    except OSError:
        return None
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:24]
    return FOLDER / f"edgeagent-{owner}-{name}.round"


def is_ours(place: Path | int, path: Path) -> bool:
    """Return whether the file at `place`, or an open one, is one that the owner of the folder of `path` alone may write and read."""
    try:
        found, owner = os.fstat(place) if isinstance(place, int) else os.lstat(place), path.parent.stat().st_uid
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o077 and found.st_nlink == 1


def may_make(path: Path) -> bool:
    """Return whether this process would make a file in memory that is the owner's of the folder of `path`: root's would not be."""
    try:
        return os.geteuid() == path.parent.stat().st_uid
    except OSError:
        return False


def has_room(size: int, sensors: Sensors) -> bool:
    """Return whether the memory has room for a journal of so many bytes, beside what else needs it."""
    return size <= min(MOST, sensors.available() // SHARE)


def pause(size: int) -> float:
    """Return the seconds between two copies of so many bytes to the disk."""
    return min(LATEST, max(SOONEST, size / PACE))


def copy(handle: int, parts: list[tuple[int, int]], whole: int, path: Path) -> None:
    """Write parts of an open file, (where it begins, bytes) each, to the disk as the file at `path`, at once; the rest of it is zeros.

    whole: bytes of the file. Raises OSError: nothing was changed then.
    """
    beside = path.with_name(path.name + TEMPORARY)
    beside.unlink(missing_ok=True)
    out = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(out, whole)
        for begins, size in parts:
            for at in range(begins, begins + size, _PIECE):
                piece = os.pread(handle, min(_PIECE, begins + size - at), at)
                if os.pwrite(out, piece, at) != len(piece):
                    raise OSError(0, "the disk takes no more")
        if len(parts) > 1:  # there is a step in it that is worth a flush
            os.fdatasync(out)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    finally:
        os.close(out)
