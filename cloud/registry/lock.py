"""One ingester, or one restore, at a registry at a time: an advisory lock that dies with its process."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelwire.errors import BadArgument, StateBusy


@contextmanager
def lock_registry(path: Path) -> Iterator[None]:
    """Hold the registry alone. Raises StateBusy when another process does."""
    path = path.resolve()  # under all its names it is one registry
    try:
        file = path.with_name(path.name + ".lock").open("ab")
    except OSError as error:
        raise BadArgument(reason=f"{path}.lock: {error.strerror}", fix="check who may write the registry's folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateBusy(path=path) from None
        yield  # closing the file lets go
