"""Writes files whole or not at all: a reader sees the old one or the new one, also after a power cut."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from modelwire.errors import BadArgument


def write_whole(path: Path, data: bytes, *, mode: int = 0o644, replace: bool = True) -> None:
    """Write `data` durably under its final name in one step. replace: False refuses a name that is taken."""
    if not path.name or (path.exists() and not path.is_file()):
        # A rename would put a file in the place of a device such as /dev/null.
        raise BadArgument(reason=f"{path} is no file that could be written", fix="name a file")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            put_in_place(partial, path, replace=replace)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise BadArgument(reason=f"{path} can't be written: {error.strerror}", fix="name another place, or make room there") from error


def put_in_place(partial: Path, path: Path, *, replace: bool) -> None:
    """Give a whole file its final name, durably. Raises BadArgument when the name is taken and may not be replaced."""
    if replace:
        partial.rename(path)
    else:
        try:
            os.link(partial, path)  # unlike a rename it never replaces
        except FileExistsError:
            raise BadArgument(reason=f"{path} is there already", fix="name another file, or remove it first") from None
        partial.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
