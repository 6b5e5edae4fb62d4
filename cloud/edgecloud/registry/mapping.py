"""Reads files by mapping them: a container of hundreds of megabytes takes no memory that stays."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from modelwire import limits
from modelwire.errors import BadArgument, Malformed, MissingFile

if TYPE_CHECKING:
    from modelwire.update.container import Container, Progress


def open_container(path: Path, limit: limits.Limits = limits.LARGE) -> Container:
    """Return the container that a file holds, parsed and its digest proven. Its stream is read from the file when it is applied.

    The file must stay as it is while the container is in use; files named by their digest do. Raises MissingFile, BadArgument, and
    what `parse` raises.
    """
    from modelwire.update.container import parse  # who reads rows alone does without it, and without numpy

    file = map_file(path)
    return parse(file, limit, progress=letting_go(file))


def map_file(path: Path) -> mmap.mmap:
    """Return a file's bytes as they are read from the disk when they are looked at. Raises MissingFile, BadArgument or Malformed."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise MissingFile(path=path, what="the file") from None
    except ValueError:
        raise Malformed(what="container", reason=f"{path} is empty") from None
    except OSError as error:
        raise BadArgument(reason=f"{path} can't be read: {error.strerror}", fix="check who may read it") from error


def letting_go(file: mmap.mmap) -> Progress:
    """Return what takes pages out of this process's memory once they are done with; looked at again, they are read again."""
    let_go = 0

    def progress(done: int) -> None:
        nonlocal let_go
        until = done // mmap.PAGESIZE * mmap.PAGESIZE
        let_go = let_go if until > let_go else 0  # another reading has begun
        if until > let_go:
            file.madvise(mmap.MADV_DONTNEED, let_go, until - let_go)
        let_go = until

    return progress
