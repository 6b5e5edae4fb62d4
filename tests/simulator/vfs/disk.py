"""What Python writes under a folder, by the rule of the disk: file contents that no fsync followed, and names whose folder was not flushed.

Everything is done for real, so that whoever reads sees it at once, as through the kernel's page cache. What is kept here is what a power
cut may take back: for each file its bytes as of its last fsync and what was written since, for each folder its names and what was moved.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

SECTOR = 512  # bytes that a disk writes as a whole
WRITING = os.O_WRONLY | os.O_RDWR
FOLDER = "a folder"


@dataclass(eq=False)
class Content:
    """A file, whatever its name."""

    data: bytes  # as of its last fsync
    mode: int
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)  # since: (where, what), or (size that it was cut to, None)
    loose: bool = False  # written by other ways than os.write: what it holds now is all that is known


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


Entry = Content | Link | str | None  # what a name stands for; None: nothing


@dataclass
class Names:
    """What a folder's names stood for when it was flushed last, as far as they were touched, and what each step since made of them."""

    before: dict[str, Entry] = field(default_factory=dict)
    moves: list[dict[str, Entry]] = field(default_factory=list)


class Disk:
    """The files under one folder. All paths are absolute."""

    def __init__(self, root: Path) -> None:
        self.root = f"{root}/"
        self._contents: dict[str, Content] = {}  # by the path that they have now
        self._names: dict[str, Names] = {}  # by the folder
        self.lost = 0  # changes and moves that cuts took back

    # What was done. Called right before it is, and only for what does not fail for another reason.

    def before(self, name: str, args: tuple[Any, ...], more: dict[str, Any]) -> None:
        """Take note of a call of os that changes a file or a name, or flushes one."""
        if (does := getattr(self, f"_{name}", None)) is not None and not more.keys() & {"dir_fd", "src_dir_fd", "dst_dir_fd"}:
            does(*args)

    def opened(self, path: Any, mode: str) -> None:
        """Take note of a file that is opened for writing by other ways than os.open."""
        if self.has(path):
            existed = os.path.lexists(path)
            content = self._content(os.fspath(path))
            content.loose = True
            if not existed:
                self._move({os.fspath(path): content})

    def _open(self, path: Any, flags: int, mode: int = 0o777, **_: Any) -> None:
        if not flags & WRITING or flags & os.O_TMPFILE == os.O_TMPFILE or not self.has(path):
            return
        path = os.fspath(path)
        if flags & os.O_CREAT and not os.path.lexists(path):
            self._contents[path] = content = Content(b"", mode & 0o777)
            self._move({path: content})
        elif flags & os.O_TRUNC and os.path.exists(path):
            self._content(path).changes.append((0, None))

    def _write(self, handle: int, data: Any) -> None:
        if content := self._of(handle):
            content.changes.append((os.lseek(handle, 0, os.SEEK_CUR), bytes(data)))

    def _pwrite(self, handle: int, data: Any, at: int) -> None:
        if content := self._of(handle):
            content.changes.append((at, bytes(data)))

    def _pwritev(self, handle: int, pieces: Any, at: int, flags: int = 0) -> None:
        if content := self._of(handle):
            content.changes.append((at, b"".join(bytes(one) for one in pieces)))

    def _ftruncate(self, handle: int, size: int) -> None:
        if content := self._of(handle):
            content.changes.append((size, None))

    def _posix_fallocate(self, handle: int, at: int, size: int) -> None:
        if (content := self._of(handle)) and (there := os.fstat(handle).st_size) < at + size:
            content.changes.append((there, bytes(at + size - there)))

    def _fsync(self, handle: int) -> None:
        path = path_of(handle)
        if not self.has(f"{path}/"):  # the root itself is one of the folders
            return
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            self._names.pop(path, None)
        elif (content := self._contents.get(path)) is not None:
            content.data, content.changes, content.loose = _read(path), [], False

    _fdatasync = _fsync

    def _replace(self, source: Any, target: Any) -> None:
        source, target = os.fspath(source), os.fspath(target)
        if self.has(source) and source != target:
            entry = self._entry(source)
            self._move({source: None, target: entry})
            self._contents.pop(source, None)
            self._contents.pop(target, None)
            if isinstance(entry, Content):
                self._contents[target] = entry

    _rename = _replace

    def _link(self, source: Any, target: Any) -> None:
        source, target = os.fspath(source), os.fspath(target)
        if self.has(target) and os.path.exists(source) and not os.path.lexists(target):
            self._contents[target] = content = self._content(source)
            self._move({target: content})

    def _symlink(self, target: Any, path: Any, *_: Any) -> None:
        if self.has(path) and not os.path.lexists(path):
            self._move({os.fspath(path): Link(os.fspath(target))})

    def _unlink(self, path: Any) -> None:
        path = os.fspath(path)
        if self.has(path) and os.path.lexists(path):
            self._move({path: None})
            self._contents.pop(path, None)

    _remove = _unlink

    def _mkdir(self, path: Any, mode: int = 0o777) -> None:
        if self.has(path) and not os.path.lexists(path):
            self._move({os.fspath(path): FOLDER})

    def has(self, path: Any) -> bool:
        """Return whether a path lies here."""
        return isinstance(path, (str, os.PathLike)) and str(path).startswith(self.root)

    def _of(self, handle: int) -> Content | None:
        path = path_of(handle)
        return self._content(path) if self.has(path) and os.path.isfile(path) else None

    def _content(self, path: str) -> Content:
        if path not in self._contents:
            data, mode = (_read(path), stat.S_IMODE(os.stat(path).st_mode)) if os.path.exists(path) else (b"", 0o644)
            self._contents[path] = Content(data, mode)
        return self._contents[path]

    def _entry(self, path: str) -> Entry:
        if os.path.islink(path):
            return Link(os.readlink(path))
        if os.path.isdir(path):
            return FOLDER
        return self._content(path) if os.path.exists(path) else None

    def _move(self, entries: dict[str, Entry]) -> None:
        """Note what names are about to stand for: as one step where they are of one folder, as a rename is."""
        apart: dict[str, dict[str, Entry]] = {}
        for path, entry in entries.items():
            folder, name = os.path.split(path)
            apart.setdefault(folder, {})[name] = entry
        for folder, move in apart.items():
            names = self._names.setdefault(folder, Names())
            for name in move:
                if name not in names.before:
                    names.before[name] = self._entry(f"{folder}/{name}") if os.path.lexists(f"{folder}/{name}") else None
            names.moves.append(move)

    # The cut.

    def cut(self, folder: Path, rng: Random) -> int:
        """Cut the power of what lies under `folder`; return how many changes and moves were lost or torn."""
        self.lost, inside = 0, f"{folder}/"
        survived: dict[int, bytes] = {}
        put = set()
        for place in sorted(p for p in self._names if f"{p}/".startswith(inside)):
            names = self._names.pop(place)
            if os.path.isdir(place):
                for name, entry in self._left(names, rng).items():
                    put.add(f"{place}/{name}")
                    self._put(f"{place}/{name}", entry, rng, survived)
        for path in [p for p in self._contents if p.startswith(inside)]:
            content = self._contents.pop(path)
            if path not in put and (content.changes or content.loose) and os.path.isfile(path):
                self._put(path, content, rng, survived)
        return self.lost

    def _left(self, names: Names, rng: Random) -> dict[str, Entry]:
        """Return what names stand for after a cut: any of the steps since the last flush may have come to the disk, and the others not."""
        out, keeps = dict(names.before), _keeps(len(names.moves), rng)
        for move, keep in zip(names.moves, keeps, strict=True):
            if keep:
                out |= move
            else:
                self.lost += 1
        return out

    def _put(self, path: str, entry: Entry, rng: Random, survived: dict[int, bytes]) -> None:
        if entry == FOLDER:
            with suppress(FileExistsError):
                os.mkdir(path)
            return
        data = self._survive(entry, path, rng, survived) if isinstance(entry, Content) else b""
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        with suppress(FileNotFoundError):
            os.unlink(path)
        if isinstance(entry, Link):
            os.symlink(entry.target, path)
        elif isinstance(entry, Content):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, entry.mode)
            os.fchmod(handle, entry.mode)
            os.write(handle, data)
            os.close(handle)

    def _survive(self, content: Content, path: str, rng: Random, survived: dict[int, bytes]) -> bytes:
        if id(content) not in survived:
            if content.loose:
                content.changes = [(0, None), (0, _read(path) if os.path.isfile(path) else b"")]
            out = bytearray(content.data)
            keeps = _keeps(len(content.changes), rng)
            last = max((i for i, keep in enumerate(keeps) if keep), default=-1)
            for i, ((at, data), keep) in enumerate(zip(content.changes, keeps, strict=True)):
                if not keep:
                    self.lost += 1
                elif data is None:
                    del out[at:]
                else:
                    if i == last and data and rng.random() < 0.5:  # its first sectors are there
                        data = data[: max(0, (at + rng.randrange(len(data))) // SECTOR * SECTOR - at)]
                        self.lost += 1
                    out.extend(bytes(max(0, at + len(data) - len(out))) if data else b"")
                    out[at : at + len(data)] = data
            survived[id(content)] = bytes(out)
        return survived[id(content)]


def _keeps(count: int, rng: Random) -> list[bool]:
    """Return which of so many steps survive: none, the first ones, or any."""
    manner = rng.randrange(4)
    if manner == 0:
        return [False] * count
    if manner == 1:
        first = rng.randrange(count) if count else 0
        return [i <= first for i in range(count)]
    return [manner == 3 or rng.random() < 0.5 for _ in range(count)]


def path_of(handle: int) -> str:
    """Return the path that an open file has now; empty where it has none."""
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        return ""


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


