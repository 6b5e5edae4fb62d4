"""Who may look at a registry: its owner alone. Finds what is open to others beside it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgecommon.files import close_line
from modelwire.errors import BadArgument

from .sqlite.schema import APPLICATION_ID

MAGIC = b"SQLite format 3\x00"
APPLICATION_AT = 68  # in the first page of a SQLite file
OPEN = 0o077


@dataclass(frozen=True, slots=True)
class Loose:
    """A file or folder that others than its owner may look into. line: what shuts them out, for a shell."""

    path: Path
    mode: int

    @property
    def line(self) -> str:
        return close_line(self.path, self.wanted)

    @property
    def wanted(self) -> int:
        return 0o700 if self.path.is_dir() else 0o600

    def __str__(self) -> str:
        return f"{self.path} is open to others than its owner (mode {self.mode:o})"


def loose(path: Path) -> list[Loose]:
    """Return what of a registry is open to others: its files, the folder of its large ones, and the copies that lie beside it.

    A folder that is shut keeps what is in it.
    """
    out = []
    for one in _kept(path.resolve()):
        try:
            mode = one.lstat().st_mode
        except OSError:  # gone meanwhile, as SQLite's log goes with the last who closes it
            continue
        if stat.S_IMODE(mode) & OPEN and not stat.S_ISLNK(mode):
            out.append(Loose(one, stat.S_IMODE(mode)))
    return out


def require_private(path: Path) -> None:
    """Raise BadArgument, with the lines that mend it, when others may look into a registry or a copy beside it."""
    found = loose(path)
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise BadArgument(reason=f"{found[0]}{more}", fix="; ".join(one.line for one in found))


def _kept(path: Path) -> Iterator[Path]:
    """Yield the registry and what belongs to it, then other registries' files in its folder: copies, and what a restore moved aside."""
    copies = [one for one in sorted(path.parent.iterdir()) if one != path and not one.is_symlink() and _is_registry(one)]
    for one in (path, *copies):
        yield one
        yield from (one.with_name(one.name + end) for end in ("-wal", "-shm", "-journal", ".blobs"))


def _is_registry(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(APPLICATION_AT + 4)
    except OSError:
        return False
    return head.startswith(MAGIC) and head[APPLICATION_AT:] == APPLICATION_ID.to_bytes(4, "big")
