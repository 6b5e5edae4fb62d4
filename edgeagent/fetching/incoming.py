"""The file that is on its way, on disk: its bytes, the digests of its parts, and what was spent. Any moment of a kill leaves it right.

Which parts are here is written nowhere: at a start each part is held against its digest, so neither a kill nor a power cut can leave one
that only seems to be here. Three files: `incoming`, `incoming.leaves` (32 bytes a part) and `incoming.account`.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path

from edgecommon import disk
from edgecommon.files import flush_folder
from modelwire import merkle
from modelwire.errors import DigestMismatch
from modelwire.wire import parts

from .tasks import LEAF, FetchTask

FILE, LEAVES, ACCOUNT = "incoming", "incoming.leaves", "incoming.account"
FLUSH = 16  # parts between two flushes to the disk: what a power cut may take, of parts and of what was counted; a kill takes nothing
_AT_ONCE = 1 << 20  # bytes that are hashed between two looks at the link
_NONE = bytes(32)
_ACCOUNT = struct.Struct("<4sQ32sQ32sIQII16s")
_MAGIC = b"EFA1"


@dataclass(slots=True)
class _Account:
    """What stands in `incoming.account`, in the order of its bytes."""

    magic: bytes
    number: int  # of the desired whose budget is counted
    file: bytes
    size: int
    tree: bytes  # of the cut
    part: int  # bytes of each part: the cut
    spent: int = 0  # bytes over the link
    failed: int = 0  # attempts
    struck: int = 0  # bit i: address i is not asked again
    code: bytes = b""  # of the failure that ended it


class Incoming:
    """One file on its way. Raises DiskUnwritable wherever it writes."""

    def __init__(self, folder: Path, task: FetchTask) -> None:
        self.file, self._task = folder / FILE, task
        with disk.named(self.file):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            said = _read(folder / ACCOUNT)
            if said is None or (said.file, said.size) != (task.file, task.size):
                discard(folder)
                said = None
            self._account = said or _Account(_MAGIC, task.number, task.file, task.size, task.tree, LEAF)
        with ExitStack() as opened:  # a disk that takes nothing more is tried again and again, and leaves nothing open
            with disk.named(self.file):
                self._bytes, self._leaves, self._counts = (_open(folder / name, opened) for name in (FILE, LEAVES, ACCOUNT))
            self._begin(task)
            with disk.named(self.file):
                flush_folder(folder)
            opened.pop_all()

    def _begin(self, task: FetchTask) -> None:
        if self._account.number != task.number:  # another budget; what is here stays
            self._account = _Account(_MAGIC, task.number, task.file, task.size, self._account.tree, self._account.part)
        self._write_account()
        self._digests = bytearray(self.count * 32)
        kept = os.pread(self._leaves, len(self._digests), 0)
        self._digests[: len(kept)] = kept
        self.held: set[int] = set()
        self._looked = self._hashed = self._unflushed = self._first = 0  # parts, bytes, parts, a part
        self._whole = hashlib.sha256()
        self.proven = self._is_proven()  # the digests are those of the tree: each part can be proven alone

    # What there is.

    @property
    def part(self) -> int:
        """Bytes of each part but the last."""
        return self._account.part

    @property
    def tree(self) -> bytes:
        """Over the parts, as they are cut."""
        return self._account.tree

    @property
    def count(self) -> int:
        return -(-self._task.size // self._account.part)

    @property
    def here(self) -> int:
        """Bytes of the parts that are here."""
        whole = len(self.held) * self.part
        return whole - (self.count * self.part - self._task.size if self.count - 1 in self.held else 0)

    @property
    def have(self) -> bytes:
        """The parts that are here, as a `wanted` says it."""
        return parts.bitmap(self.held, self.count)

    def span(self, index: int) -> tuple[int, int]:
        """Return where a part begins, and where it has ended."""
        return index * self.part, min((index + 1) * self.part, self._task.size)

    def next_missing(self) -> int | None:
        """Return the first part that is not here; None when all are."""
        while self._first in self.held:
            self._first += 1
        return self._first if self._first < self.count else None

    def look(self) -> bool:
        """Hold some of what lies on the disk against its digests; return whether all was looked at."""
        for _ in range(max(1, _AT_ONCE // self.part)):
            if self._looked >= self.count:
                return True
            index, self._looked = self._looked, self._looked + 1
            start, stop = self.span(index)
            if (digest := self._digest(index)) != _NONE and merkle.leaf(os.pread(self._bytes, stop - start, start)) == digest:
                self.held.add(index)
        return self._looked >= self.count

    # What comes.

    def take_leaves(self, said: bytes | bytearray) -> None:
        """Take the digests of all parts. Raises DigestMismatch when they are not the tree's; parts that are other ones are dropped."""
        if len(said) != len(self._digests) or merkle.merkle(_each(said)) != self._account.tree:
            raise DigestMismatch(what="the leaves beside the file")
        self.held = {i for i in self.held if said[32 * i : 32 * i + 32] == self._digest(i)}
        self._digests, self._first = bytearray(said), 0
        self._write(self._leaves, said, 0)
        self.proven = True

    def keep(self, index: int, data: bytes | bytearray) -> None:
        """Keep a part. Raises DigestMismatch for one that the leaves do not prove; without them the whole is proven at its end."""
        digest, (start, stop) = merkle.leaf(memoryview(data)), self.span(index)
        if len(data) != stop - start or (self.proven and digest != self._digest(index)):
            raise DigestMismatch(what=f"part {index} of the file")
        self._write(self._bytes, data, start)
        if not self.proven:
            self._digests[32 * index : 32 * index + 32] = digest
            self._write(self._leaves, digest, 32 * index)
        self.held.add(index)
        self._unflushed += 1
        if self._unflushed >= FLUSH:
            self.flush()

    def cut(self, part: int, tree: bytes) -> None:
        """Take another cut: parts of the one before are dropped."""
        if (part, tree) != (self._account.part, self._account.tree):
            self.drop()
            self._account.part, self._account.tree = part, tree
            self._digests = bytearray(self.count * 32)
            self._write_account()

    def drop(self) -> None:
        """Let all bytes go: they are another file."""
        with disk.named(self.file):
            os.ftruncate(self._leaves, 0)
            os.ftruncate(self._bytes, 0)
        self._digests, self.proven = bytearray(self.count * 32), False
        self.held, self._first, self._hashed, self._whole, self._looked = set(), 0, 0, hashlib.sha256(), self.count

    def prove(self) -> bool | None:
        """Hash some of the whole, all of which is here; return whether it is the file that was named, None while it goes on."""
        while self._hashed < self._task.size:
            piece = os.pread(self._bytes, min(_AT_ONCE, self._task.size - self._hashed), self._hashed)
            if not piece:
                return False
            self._whole.update(piece)
            self._hashed += len(piece)
            if self._hashed < self._task.size:
                return None
        if self._whole.digest() != self._task.file or (self.part == LEAF and merkle.merkle(_each(self._digests)) != self._task.tree):
            return False
        with disk.named(self.file):
            os.ftruncate(self._bytes, self._task.size)
        self.flush()
        return True

    # What it costs.

    @property
    def spent(self) -> int:
        return self._account.spent

    @property
    def failed(self) -> int:
        return self._account.failed

    @property
    def code(self) -> str:
        """Of the failure that ended it; empty while it goes on."""
        return self._account.code.rstrip(b"\0").decode("ascii", "replace")

    def struck(self, address: int) -> bool:
        return bool(self._account.struck >> address & 1)

    def charge(self, size: int) -> None:
        """Count bytes, before they leave or come; a negative size takes back what did not."""
        self._account.spent = max(0, self._account.spent + size)
        self._write_account()

    def fails(self, *, strike: int | None = None, code: str = "") -> None:
        """Count a failed attempt, down to the disk. strike: an address that is not asked again; code: of the failure that ends it all."""
        self._account.failed += 1
        self._account.struck |= 1 << strike if strike is not None else 0
        self._account.code = code.encode() or self._account.code
        self._write_account()
        self.flush()

    def ends(self, code: str) -> None:
        """Write down the failure that ends it."""
        self._account.code = code.encode()
        self._write_account()
        self.flush()

    def flush(self) -> None:
        """Let all of it survive a power cut."""
        with disk.named(self.file):
            for handle in (self._bytes, self._leaves, self._counts):
                os.fsync(handle)
        self._unflushed = 0

    def close(self) -> None:
        for handle in (self._bytes, self._leaves, self._counts):
            os.close(handle)

    def _digest(self, index: int) -> bytes:
        return bytes(self._digests[32 * index : 32 * index + 32])

    def _is_proven(self) -> bool:
        return merkle.merkle(_each(self._digests)) == self._account.tree

    def _write_account(self) -> None:
        data = _ACCOUNT.pack(*astuple(self._account))
        self._write(self._counts, data + struct.pack("<I", zlib.crc32(data)), 0)

    def _write(self, handle: int, data: bytes | bytearray, at: int) -> None:
        view = memoryview(data)
        with disk.named(self.file, len(view)):
            while view:
                done = os.pwrite(handle, view, at)
                view, at = view[done:], at + done


def discard(folder: Path) -> None:
    """Remove what is on its way in a folder, and what was counted for it."""
    for name in (ACCOUNT, LEAVES, FILE):
        path = folder / name
        with disk.named(path):
            path.unlink(missing_ok=True)


def _each(digests: bytes | bytearray) -> list[bytes]:
    return [bytes(digests[i : i + 32]) for i in range(0, len(digests), 32)]


def _open(path: Path, opened: ExitStack) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    opened.callback(os.close, handle)
    return handle


def _read(path: Path) -> _Account | None:
    """Return what was counted; None where there is nothing that can be read: then all begins anew."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) != _ACCOUNT.size + 4 or struct.unpack("<I", data[-4:])[0] != zlib.crc32(data[:-4]):
        return None
    account = _Account(*_ACCOUNT.unpack(data[:-4]))
    sound = account.magic == _MAGIC and parts.PART_MIN <= account.part <= LEAF and not account.part & (account.part - 1)
    return account if sound else None
