"""What `record.py` recorded: two disks as they were at first, each write and flush of both, moments, and what was known by then.

The log is what QEMU's blklogwrites writes, in the form of dm-log-writes: a superblock, then for each request a header in a sector of its
own (u64 sector, u64 sectors, u64 flags, u64 bytes) and its data.
"""

from __future__ import annotations

import functools
import lzma
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TRACE = Path(__file__).parent / "trace.xz"
MAGIC, SECTOR = 0x6A736677736872, 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
_HEAD, _ENTRY, _FACT = struct.Struct("<QQQI"), struct.Struct("<QQQQ"), struct.Struct("<B3xI32sI")
SIDES = ("board", "centre")
KINDS = ("update", "stored", "verified", "refused")


@dataclass(frozen=True, slots=True)
class Write:
    """A request that a disk has answered."""

    at: int  # first byte on the disk
    data: bytes  # empty: a flush alone
    flags: int
    end: int  # of it in the log


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was said over the broker at that moment or before, so that no later power cut may lose it.

    update: the board published the version. stored, verified, refused: the centre's receipt for it.
    """

    kind: str
    version: int
    commit: bytes
    moment: int


@dataclass(frozen=True)
class Trace:
    """moments: bytes of the board's and of the centre's log at the same time, in order."""

    bases: dict[str, bytes]
    logs: dict[str, bytes]
    moments: list[tuple[int, int]]
    facts: list[Fact]

    @functools.cached_property
    def writes(self) -> dict[str, list[Write]]:
        return {side: list(entries(log)) for side, log in self.logs.items()}


def entries(log: bytes) -> Iterator[Write]:
    """Yield the requests of a log. Raises ValueError for one that is none."""
    magic, version, _, sector = _HEAD.unpack_from(log)
    if magic != MAGIC or version != 1 or sector != SECTOR:
        raise ValueError("this is no log of dm-log-writes with sectors of 512 bytes")
    at = SECTOR
    while at + SECTOR <= len(log):
        first, count, flags, _ = _ENTRY.unpack_from(log, at)
        size = 0 if flags & DISCARD else count * SECTOR
        at += SECTOR
        if at + size > len(log):
            return
        if flags & DISCARD:
            raise ValueError("a discard: the disks of these tests take none")
        yield Write(first * SECTOR, log[at : at + size], flags, at + size)
        at += size


def encode(trace: Trace) -> bytes:
    """Return the trace as bytes, not compressed."""
    parts = [part for side in SIDES for part in (trace.bases[side], trace.logs[side])]
    moments = b"".join(struct.pack("<II", *pair) for pair in trace.moments)
    facts = b"".join(_FACT.pack(KINDS.index(f.kind), f.version, f.commit, f.moment) for f in trace.facts)
    return b"".join(struct.pack("<I", len(part)) + part for part in (*parts, moments, facts))


@functools.cache
def load(path: Path = TRACE) -> Trace:
    """Return a trace from its file."""
    data, at, parts = lzma.decompress(path.read_bytes()), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        parts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    *disks, moments, facts = parts
    return Trace(
        dict(zip(SIDES, disks[::2], strict=True)), dict(zip(SIDES, disks[1::2], strict=True)),
        [(a, b) for a, b in struct.iter_unpack("<II", moments)],
        [Fact(KINDS[kind], version, commit, moment) for kind, version, commit, moment in _FACT.iter_unpack(facts)],
    )  # fmt: skip
