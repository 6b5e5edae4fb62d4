"""One ingester or restore at a registry at a time, and one that brings it to this release: advisory locks that die with their process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgecommon import disk
from modelwire.errors import BadArgument, StateBusy


@contextmanager
def lock_registry(path: Path) -> Iterator[None]:
    """Hold the registry alone. Raises StateBusy when another process does."""
    path = path.resolve()  # under all its names it is one registry
    with _lock_file(path, "lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateBusy(path=path) from None
        yield  # closing the file lets go


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
