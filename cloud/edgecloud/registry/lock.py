"""One ingester or restore at a registry at a time, one director, and one that brings it to this release: advisory locks that die with
their process.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgecommon import disk
from edgecommon.files import holds_locks
from modelwire.errors import BadArgument, StateBusy

BUT = ", but "  # between what an ingester says of its link and what is wrong with it


@dataclass(frozen=True, slots=True)
class RegistryHolder:
    """Who holds a registry alone, and what it says of itself to who looks."""

    pid: int
    says: str


class HeldRegistry:
    """A registry that this process holds alone."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._said = file, ""

    def tell(self, says: str) -> None:
        """Let others read what this process is about. What can't be written is done without: the lock is what counts."""
        if says == self._said:
            return
        self._said = says
        with suppress(OSError):  # not by the file's own buffer: what a full disk refused would be written again when it is closed
            os.ftruncate(self._file.fileno(), 0)
            os.write(self._file.fileno(), f"{os.getpid()}\n{says}".encode() if says else b"")


@contextmanager
def lock_registry(path: Path) -> Iterator[HeldRegistry]:
    """Hold the registry alone. Raises StateBusy when another process does."""
    path = path.resolve()  # under all its names it is one registry
    with _lock_file(path, "lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateBusy(path=path) from None
        held = HeldRegistry(file)
        try:
            yield held  # closing the file lets go
        finally:
            held.tell("")


def holder(path: Path) -> RegistryHolder | None:
    """Return who holds the registry and says so, for people: whoever needs to know takes the lock, which looking does not."""
    path = path.resolve()
    try:
        with path.with_name(f"{path.name}.lock").open() as file:
            pid, _, says = file.read(4096).partition("\n")
            return RegistryHolder(int(pid), says) if holds_locks(int(pid)) else None
    except (OSError, ValueError):
        return None


@contextmanager
def share_registry(path: Path) -> Iterator[None]:
    """Write to the registry beside others who do: what a restore puts aside in the middle would keep the last word of a command."""
    with _lock_file(path.resolve(), _WRITERS) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def stop_writers(path: Path) -> Iterator[None]:
    """Keep commands that write away until the registry is another file. Raises StateBusy while one is at work."""
    with _lock_file(path.resolve(), _WRITERS) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateBusy(path=path) from None
        yield


@contextmanager
def lock_compactor(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Be the only one who keeps and drops states. wait: seconds for another one to be done. Raises StateBusy."""
    with _lock_file(path.resolve(), "compacting") as file:
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= end:
                    raise StateBusy(path=path) from None
                time.sleep(0.05)
        yield


@contextmanager
def lock_director(path: Path) -> Iterator[None]:
    """Be the only director of the registry. Raises StateBusy when another one is at work."""
    with _lock_file(path.resolve(), "directing") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateBusy(path=path) from None
        yield


@contextmanager
def lock_schema(path: Path) -> Iterator[None]:
    """Be the only one who migrates the registry, after all others who do."""
    with _lock_file(path.resolve(), "migrating") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_WRITERS = "writers.lock"


def _lock_file(path: Path, end: str) -> BinaryIO:
    try:
        return os.fdopen(os.open(path.with_name(f"{path.name}.{end}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")
    except OSError as error:
        if (full := disk.unwritable(error)) is not None:
            raise full from error
        raise BadArgument(reason=f"{path}.{end}: {error.strerror}", fix="check who may write the registry's folder") from error
