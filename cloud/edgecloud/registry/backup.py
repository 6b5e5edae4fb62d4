"""Copies a registry while it is in use, as of one moment, into one file; and puts such a copy in place."""

from __future__ import annotations

import glob
import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from edgecommon.files import put_in_place
from edgecommon.sqlite import Database
from modelwire.errors import BadArgument, MissingFile, RegistryDamaged

from .blobs import DatabaseBlobs, FileBlobs
from .lock import lock_registry, stop_writers
from .sqlite import schema
from .sqlite.database import SIDES, copy_to, odd_values, open_database, problems, require_no_sides
from .sqlite.store import blob_folder, state_folder

Progress = Callable[[int, int], None]


def backup(source: Path, target: Path, *, progress: Progress, replace: bool = False) -> int:
    """Write a registry into one file, large files included, proven whole, and return its size in bytes.

    Writers go on meanwhile. The fleet's private key is not in a registry, so it is not in the copy. Raises RegistryDamaged.
    """
    if not source.exists():
        raise MissingFile(path=source, what="the registry", fix="edgecloud init makes one; --db or EDGECLOUD_DB names another")
    source = source.resolve()
    _require_free(target, replace)
    if not target.exists():
        require_no_sides(target)
        return _copy(source, target, progress, replace=False)
    if target.samefile(source):  # its writers would go on into a file without a name
        raise BadArgument(reason=f"{target} is the registry itself", fix="name another file for the copy")
    with lock_registry(target):
        return _copy(source, target, progress, replace=True)


def restore(
    source: Path, target: Path, *, progress: Progress, replace: bool = False, prepare: Callable[[Path], None] = lambda copy: None
) -> Path | None:
    """Put a copy in the place of a registry, and return where the one before it lies now, if there was one.

    prepare: is given the copy under a name of its own, while nobody writes to the registry; what it raises leaves all as it was.
    Raises StateBusy while an ingester works on the target, RegistryDamaged for a copy that is not whole: then nothing is changed.
    """
    if not source.exists():
        raise MissingFile(path=source, what="the copy")
    target = target.resolve()
    _require_free(target, replace)
    with lock_registry(target), stop_writers(target):
        fresh = target.with_name(f"{target.name}.{secrets.token_hex(4)}.restored")
        try:
            _copy(source, fresh, progress, replace=False)
            prepare(fresh)
            if not target.exists():
                _set_aside(target, _aside(target))
                put_in_place(fresh, target, replace=False)
                return None
        except BaseException:
            for end in ("", "-wal", "-shm"):
                fresh.with_name(fresh.name + end).unlink(missing_ok=True)
            raise
        aside = _aside(target)
        # The old file keeps its name until the copy takes it: after a cut the next restore finds all that was sealed under the two names.
        # Its log goes before: it must never meet the new file.
        _second_name(target, aside)
        _set_aside(target, aside)
        if blob_folder(target).exists():  # the copy holds all in one file
            blob_folder(target).rename(blob_folder(aside))
        if state_folder(target).exists():
            state_folder(target).rename(state_folder(aside))
        put_in_place(fresh, target, replace=True)
        return aside


def moved_aside(target: Path) -> list[Path]:
    """Return the registries that restores have moved aside from this name, oldest first, and those that one left that was cut off."""
    found = [p for p in target.parent.glob(f"{glob.escape(target.name)}{_BEFORE}*") if p.is_file()]
    return sorted((p for p in found if re.fullmatch("[0-9a-f]{8}", p.name.rpartition("-")[2])), key=lambda p: p.stat().st_mtime_ns)


_BEFORE = ".before-restore-"


def _aside(target: Path) -> Path:
    return target.with_name(f"{target.name}{_BEFORE}{secrets.token_hex(4)}")


def _second_name(target: Path, aside: Path) -> None:
    try:
        os.link(target, aside)
    except OSError:  # a file system without hard links
        shutil.copy2(target, aside)


def _set_aside(target: Path, aside: Path) -> None:
    for end in SIDES:
        old = target.with_name(target.name + end)
        if old.exists() or old.is_symlink():
            old.rename(aside.with_name(aside.name + end))


def _require_free(target: Path, replace: bool) -> None:
    if target.exists() and not replace:
        raise BadArgument(reason=f"{target} is there already", fix="name another file, or say --force to replace it")
    if not target.absolute().parent.is_dir():
        raise BadArgument(reason=f"{target.parent} is no folder", fix="make it first")


def _copy(source: Path, target: Path, progress: Progress, *, replace: bool) -> int:
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        _fill(source, partial, progress)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        size = partial.stat().st_size
        for end in SIDES if replace else ():
            target.with_name(target.name + end).unlink(missing_ok=True)
        put_in_place(partial, target, replace=replace)
        return size
    finally:
        for end in ("", "-wal", "-shm", "-journal"):
            partial.with_name(partial.name + end).unlink(missing_ok=True)


def _fill(source: Path, partial: Path, progress: Progress) -> None:
    origin = open_database(source, readonly=True)
    try:
        schema.check(origin)
        copy = open_database(partial, create=True, synchronous="OFF")  # made durable as a whole, once
        try:
            copy_to(origin, copy, progress)
            odd = odd_values(copy)
            if odd:
                raise RegistryDamaged(path=source, reason="; ".join(odd[:3]))
            _take_files(copy, FileBlobs(blob_folder(source)))
            _leave_states(copy)
            wrong = problems(copy)
            if wrong:
                raise RegistryDamaged(path=source, reason="; ".join(wrong[:3]))
            copy.run("PRAGMA journal_mode = DELETE")  # one file, that can be copied with any tool
        finally:
            copy.close()
    finally:
        origin.close()


def _take_files(copy: Database, files: FileBlobs) -> None:
    """Move into the copy what the registry keeps beside itself, and see that nothing is missing."""
    blobs = DatabaseBlobs(copy)
    wanted = "SELECT blob FROM version"
    if _has(copy, "thinned"):  # a copy of an older release's registry is brought to this one after it was made
        wanted += " WHERE id NOT IN (SELECT version_id FROM thinned) UNION SELECT blob FROM squash"
    for (digest,) in copy.all(f"{wanted} UNION SELECT file FROM base"):
        if not blobs.has(digest):
            with copy.transaction():
                blobs.put(files.get(digest))


def _leave_states(copy: Database) -> None:
    """Take out what is derived and large: kept states in files and what layers gave are made again where the copy goes. Rates are of
    this machine."""
    if not _has(copy, "state"):
        return
    with copy.transaction():
        copy.run("DELETE FROM compacted WHERE lineage IN (SELECT lineage FROM state WHERE bytes IS NULL)")
        copy.run("DELETE FROM state WHERE bytes IS NULL")
        copy.run("DELETE FROM rate")
        if _has(copy, "observed"):
            copy.run("DELETE FROM observed")


def _has(copy: Database, table: str) -> bool:
    return copy.maybe("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", table) is not None
