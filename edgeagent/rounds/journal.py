"""What a round under way needs to go on after a kill: two halves of one file, written in turn, of which one is always whole.

The file stands in memory where there is room for it (in_memory.py), and a copy of its newest half goes to the disk now and then, for
power cuts. Else it stands on the disk, in whose page cache a half outlives the process, and is flushed now and then. Plain writes and
no mapping: a full disk is an error and no SIGBUS, and the file takes no resident memory. Decision 0009.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from io import FileIO
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecommon import disk
from edgecommon.files import TEMPORARY
from modelwire import limits

from . import in_memory

if TYPE_CHECKING:
    from edgeagent.board.sensors import Sensors
    from edgeagent.system.clock import Clock
    from edgeagent.training.course import Course, Kept

EVERY = 0.02  # seconds of training between two writes; a step that takes longer is written when it is done
JOURNAL = "journal"  # the part of what the agent writes that this is
FLUSH = 30.0  # seconds between two flushes to the disk
_MAGIC = b"\x89EAJ\r\n\x1a\n"
_HEAD = struct.Struct("<8sIIQ")  # magic, bytes and crc32 of the facts, bytes of one half's arrays
_HALF = struct.Struct("<QQdII")  # sequence number, steps taken, seconds of training, crc32 of all else in the half, zero
_FACTS_MAX = 1 << 20  # bytes; the layout of a few thousand tensors
_ARRAYS_MAX = 4 * limits.DEFAULT.model_file  # weights and slots
_PAGE = 4096
_PIECE = 64 * 1024
_VECTOR = 512  # buffers of one write; Linux takes 1024
_KINDS = "fiu"
Layout = tuple[tuple[str, str, tuple[int, ...]], ...]  # name, type and shape of each array


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """Which round it is, and all that its bits follow from beside the model and the samples themselves."""

    base: str  # hex of the base's commit
    file: str  # hex of the sha256 of the file that it began with
    private: str  # hex of the sha256 of the private part
    round: int
    mode: str
    runtime: str  # its key
    settings: str  # those that shape the bits, as text
    epochs: int  # as they were planned
    until: int  # the newest sample
    samples: str  # hex of the sha256 of the samples' ids
    seed: str  # decimal: 64 bits are too many for JSON's numbers elsewhere
    loss: float | None  # before the round, on held-out samples; None when it is not finite
    accuracy: float | None
    steps: int
    whole: bool  # False: the optimizer's slots can't be kept


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A round that left its journal. Its facts are believed once they fit the round, its arrays once they fit the course."""

    facts: RoundFacts
    layout: Layout
    done: int  # steps, as the newest half says
    path: Path

    def arrays(self, like: Mapping[str, NDArray[Any]]) -> tuple[Kept, float] | None:
        """Return what the newest whole half keeps, and the seconds of training up to there; None when no half is whole.

        like: what the course keeps: nothing is read unless names, types and shapes are the same.
        """
        if self.layout != layout_of(like):
            return None
        try:
            with _reading(self.path) as f:
                return _arrays(f, like)
        except (OSError, ValueError, struct.error):
            return None


class Journal:
    """Writes down one course. Nothing is written, and no file made, before a step or some have taken `EVERY`."""

    def __init__(
        self, path: Path | None, facts: RoundFacts, *, clock: Clock, spent: float = 0.0, sensors: Sensors | None = None
    ) -> None:
        """path: None for a trial, which takes the same memory and leaves nothing. sensors: of the memory; None: it may take none."""
        self.spent = spent  # seconds of training, those before a kill included
        self.writing = 0.0  # seconds of this process's writing
        self.trouble = ""  # why nothing more is written; the training goes on
        self.path, self._round, self._clock = path, facts, clock
        self._file: int | None = None
        self._sequence = self._written = 0  # number of the last half; its step
        self._half = 0
        self._sensors, self._in_memory = sensors, False
        self._last = self._flushed = self._clock.monotonic()

    def after_step(self, course: Course, seconds: float) -> None:
        """Take note of a step that took so long."""
        self.spent += seconds
        if self._clock.monotonic() - self._last >= EVERY:
            self.write(course)

    def write(self, course: Course) -> None:
        """Write down where the course stands. Trouble with the disk ends the writing, not the training."""
        if self.trouble or (self._file is not None and self._written == course.done):
            return
        began, before = self._clock.monotonic(), disk.begin_part(JOURNAL)
        try:
            kept = {name: a if a.flags.c_contiguous else a.copy() for name, a in course.keep().items()}
            if self.path is not None:
                if self._file is None:
                    self._file = self._open(self.path, kept)
                self._sequence += 1
                self._write_half(self._file, kept, course.done)
            self._written = course.done
            if self._file is not None and began - self._flushed >= (in_memory.pause(self._half) if self._in_memory else FLUSH):
                self._flush(self._file)
                self._flushed = self._clock.monotonic()
        except OSError as e:
            self.trouble = e.strerror or str(e)
            self.close()  # what stands there stays true
        finally:
            disk.begin_part(before)
        self._last = self._clock.monotonic()
        self.writing += self._last - began

    def close(self) -> None:
        """Leave the file for the next start."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def drop(self) -> None:
        """Remove the file: the round is over."""
        self.close()
        if self.path is not None:
            drop(self.path)

    def _flush(self, handle: int) -> None:
        """Let the disk have what stands in the file; where it stands in memory, a disk that takes nothing changes nothing."""
        if not self._in_memory:
            os.fdatasync(handle)
        elif self.path is not None:
            with contextlib.suppress(OSError):
                _copy(handle, self.path)

    def _open(self, path: Path, kept: Kept) -> int:
        """Open the file in memory where it finds room there, else on the disk."""
        facts = json.dumps({"begun": asdict(self._round), "layout": layout_of(kept)}).encode()
        self._half, self._halves_from = sum(a.nbytes for a in kept.values()), _first(len(facts))
        place = in_memory.place_of(path) if self._sensors is not None and in_memory.may_make(path) else None
        whole = self._halves_from + 2 * _padded(_HALF.size + self._half)
        if place is not None and self._sensors is not None and in_memory.has_room(whole, self._sensors):
            with contextlib.suppress(OSError):
                handle = self._open_at(place, facts)
                try:
                    if not in_memory.is_ours(handle, path):  # anyone may make a file there: none of what was learned goes into it
                        raise OSError(0, "another's file")
                    if _steps_at(path, json.loads(facts)) is None:  # so that a start finds that a round is under way
                        in_memory.copy(handle, [(0, self._halves_from)], whole, path)
                except BaseException:
                    os.close(handle)
                    with contextlib.suppress(OSError):
                        place.unlink()
                    raise
                self._in_memory = True
                return handle
        return self._open_at(path, facts)

    def _open_at(self, path: Path, facts: bytes) -> int:
        """Go on in the file of this very course, or make one: what was taken up is all there is, until the next half is written."""
        with contextlib.suppress(OSError, ValueError, struct.error):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                with os.fdopen(handle, "rb", buffering=0, closefd=False) as f:
                    if _facts(f) == (json.loads(facts), self._half):
                        self._sequence = max((h[0] for h in _halves(f, self._half) if _is_whole(f, h, self._half)), default=0)
                        return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
        return self._create(path, facts)

    def _create(self, path: Path, facts: bytes) -> int:
        """Make the file with room for both halves, so that a full disk is noticed now."""
        beside = path.with_name(path.name + TEMPORARY)
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, self._halves_from + 2 * _padded(_HALF.size + self._half))
            _write(handle, [_HEAD.pack(_MAGIC, len(facts), zlib.crc32(facts), self._half), facts], 0)
            os.replace(beside, path)
        except OSError:
            os.close(handle)
            beside.unlink(missing_ok=True)
            raise
        return handle

    def _write_half(self, handle: int, kept: Kept, done: int) -> None:
        arrays = [_bytes(a) for a in kept.values()]
        head = _half(self._sequence, done, self.spent, arrays)
        place = self._halves_from + (self._sequence % 2) * _padded(_HALF.size + self._half)
        # A kill in between leaves this half without a right crc; the other one is whole and a step older.
        _write(handle, [head, *arrays], place)


def read(path: Path) -> Interrupted | None:
    """Return what a round left, in memory or on the disk, None when there is nothing or nothing that can be believed."""
    on_disk, place = _read(path), in_memory.place_of(path)
    if place is None or not os.path.lexists(path) or not in_memory.is_ours(place, path):
        return on_disk
    kept = _read(place)
    if kept is None or (on_disk is not None and (on_disk.facts != kept.facts or on_disk.done > kept.done)):
        return on_disk
    return kept


def to_disk(path: Path) -> None:
    """Let the disk have what a round left in memory, where that is more: the machine may be on its way down. Best effort."""
    place = in_memory.place_of(path)
    if place is None or not in_memory.is_ours(place, path):
        return
    left = read(path)
    if left is None or left.path == path or (_steps_at(path) or -1) >= left.done:
        return
    with contextlib.suppress(OSError, ValueError, struct.error), _reading(left.path) as f:
        _copy(f.fileno(), path)


def _copy(handle: int, path: Path) -> None:
    """Write the newest whole half of an open file, with its facts, to the disk. Raises OSError, ValueError."""
    with os.fdopen(os.dup(handle), "rb", buffering=0) as f:
        f.seek(0)
        _, half = _facts(f)
        whole = os.fstat(handle).st_size
        first = whole - 2 * _padded(_HALF.size + half)
        newest = next((h for h in sorted(_halves(f, half), reverse=True) if _is_whole(f, h, half)), None)
    if newest is not None:
        in_memory.copy(handle, [(0, first), (newest[3], _HALF.size + half)], whole, path)


def _steps_at(path: Path, facts: Any = None) -> int | None:
    """Return after which step the file at this place says that a round stands, 0 where only its facts are there; None for no such file.

    facts: of the round that is meant; None: any.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, struct.error), _reading(path) as f:
        said, half = _facts(f)
        if facts is None or said == facts:
            return max((h[1] for h in _halves(f, half)), default=0)
    return None


def _read(path: Path) -> Interrupted | None:
    try:
        with _reading(path) as f:
            said, half = _facts(f)
            facts, layout = _round_facts(said["begun"]), _layout(said["layout"])
            if sum(np.dtype(kind).itemsize * prod(shape) for _, kind, shape in layout) != half:
                return None
            done = max(_halves(f, half))[1]
            return Interrupted(facts, layout, done, path)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, struct.error):
        return None


def drop(path: Path) -> None:
    """Remove the journal at `path`, if there is one, in memory too."""
    place = in_memory.place_of(path)
    with disk.named(path):
        path.unlink(missing_ok=True)
    if place is not None and in_memory.is_ours(place, path):
        with contextlib.suppress(OSError):
            place.unlink()


def layout_of(kept: Mapping[str, NDArray[Any]]) -> Layout:
    """Return name, type and shape of each array."""
    return tuple((name, a.dtype.str, a.shape) for name, a in kept.items())


@contextmanager
def _reading(path: Path) -> Iterator[FileIO]:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as f:
        yield f


def _facts(f: FileIO) -> tuple[Any, int]:
    """Return the facts and the bytes of one half's arrays. Raises ValueError."""
    magic, length, crc, half = _HEAD.unpack(f.read(_HEAD.size))
    if magic != _MAGIC or length > _FACTS_MAX or half > _ARRAYS_MAX:
        raise ValueError("head")
    if os.fstat(f.fileno()).st_size != _first(length) + 2 * _padded(_HALF.size + half):
        raise ValueError("size")
    facts = f.read(length)
    if zlib.crc32(facts) != crc:
        raise ValueError("crc")
    return json.loads(facts), half


def _halves(f: FileIO, half: int) -> list[tuple[int, int, float, int]]:
    """Return (sequence number, steps, seconds, where it begins) of each half that was ever written, whole or not."""
    size = _padded(_HALF.size + half)
    first = os.fstat(f.fileno()).st_size - 2 * size
    out = []
    for begins in (first, first + size):
        f.seek(begins)
        sequence, done, spent, _, _ = _HALF.unpack(f.read(_HALF.size))
        if sequence and isfinite(spent) and spent >= 0:
            out.append((sequence, done, spent, begins))
    return out


def _arrays(f: FileIO, like: Mapping[str, NDArray[Any]]) -> tuple[Kept, float] | None:
    _, half = _facts(f)
    if half != sum(a.nbytes for a in like.values()):
        return None
    for sequence, done, spent, begins in sorted(_halves(f, half), reverse=True):
        f.seek(begins)
        head, out = f.read(_HALF.size), {name: np.empty(a.shape, a.dtype) for name, a in like.items()}
        for a in out.values():
            f.readinto(_bytes(a))  # type: ignore[arg-type]
        whole = head == _half(sequence, done, spent, [_bytes(a) for a in out.values()])
        if whole and all(a.dtype.kind != "f" or np.isfinite(a).all() for a in out.values()):
            return out, spent
    return None


def _is_whole(f: FileIO, half: tuple[int, int, float, int], size: int) -> bool:
    """Return whether a half's crc is right; it may be large, and is read in pieces."""
    sequence, done, spent, begins = half
    f.seek(begins)
    head, crc = f.read(_HALF.size), zlib.crc32(_HALF.pack(sequence, done, spent, 0, 0))
    for start in range(0, size, _PIECE):
        crc = zlib.crc32(f.read(min(_PIECE, size - start)), crc)
    return head == _HALF.pack(sequence, done, spent, crc, 0)


def _round_facts(said: Any) -> RoundFacts:
    kinds = {"str": (str,), "int": (int,), "bool": (bool,), "float | None": (float, int, type(None))}
    for f in fields(RoundFacts):
        value = said[f.name]
        if type(value) not in kinds[str(f.type)] or (isinstance(value, float) and not isfinite(value)):
            raise ValueError(f.name)
    facts = RoundFacts(**said)
    if facts.epochs < 1 or not 0 <= int(facts.seed) < 1 << 64:
        raise ValueError("seed")
    return facts


def _layout(said: Any) -> Layout:
    out = []
    for name, kind, shape in said:
        entries = tuple(int(n) for n in shape)
        if not isinstance(name, str) or np.dtype(kind).kind not in _KINDS or min(entries, default=0) < 0:
            raise ValueError("layout")
        out.append((name, str(kind), entries))
    return tuple(out)


def _bytes(a: NDArray[Any]) -> NDArray[np.uint8]:
    return a.reshape(-1).view(np.uint8)


def _half(sequence: int, done: int, spent: float, arrays: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return what stands before a half's arrays."""
    crc = zlib.crc32(_HALF.pack(sequence, done, spent, 0, 0))
    for a in arrays:
        crc = zlib.crc32(a, crc)  # type: ignore[arg-type]
    return _HALF.pack(sequence, done, spent, crc, 0)


def _write(handle: int, parts: Sequence[Any], place: int) -> None:
    for first in range(0, len(parts), _VECTOR):
        some = parts[first : first + _VECTOR]
        size = sum(len(p) for p in some)
        if os.pwritev(handle, some, place) != size:
            raise OSError(0, "the disk takes no more")
        place += size


def _first(facts: int) -> int:
    return _padded(_HEAD.size + facts)


def _padded(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
