"""Bytes that the agent's process writes to its disk, by day: flash wears out by them, and cards are replaced by such a figure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgecommon import files
from edgecommon.sqlite import Database
from modelwire.errors import ModelWireError

KERNEL, OWN = "kernel", "own"
SAID = {KERNEL: "write_bytes of /proc/self/io", OWN: "own count of files and rows, an estimate"}
EVERY = 6 * 3600.0  # seconds between two notes; each is a write itself, and a kill forgets so much
KEPT = 31  # days
ROW = 8192  # bytes that a changed row comes to in SQLite's log: a page of its table, one of an index
_IO = "io"


@dataclass(frozen=True, slots=True)
class WrittenDays:
    """What was written, over all days that are kept."""

    bytes: int
    seconds: float  # of running
    days: int
    source: str  # KERNEL or OWN, of the newest day

    @property
    def a_day(self) -> float | None:
        """Bytes in a day of running; None before an hour is known."""
        return self.bytes / self.seconds * 86_400 if self.seconds >= 3600 else None


class FlashCount:
    """Counts for a running agent."""

    def __init__(self, database: Database, changed: Callable[[], int], *, process: Path = Path("/proc/self")) -> None:
        """changed: how many rows this process has changed in its databases."""
        self._db, self._changed, self._process = database, changed, process
        self.source = KERNEL if of_process(process) is not None else OWN
        self._noted, self._since = 0, 0.0
        self._noted = self._count()

    def begin(self, now: float) -> None:
        """now: monotonic seconds."""
        self._noted, self._since = self._count(), now

    def look(self, wall: float, now: float, *, at_once: bool = False) -> None:
        """Note what was written since, when it is time to. wall: Unix seconds; now: monotonic seconds. Raises DiskUnwritable."""
        ran = now - self._since
        if ran < EVERY and not at_once:
            return
        count = self._count()
        more, day = max(0, count - self._noted), int(max(0.0, min(wall, 1e11)) // 86_400)
        with self._db.transaction():
            row = self._db.maybe("SELECT number, day, source FROM written ORDER BY number DESC LIMIT 1")
            number = int(row["number"]) if row is not None else 0
            if row is None or row["day"] != day or row["source"] != self.source:
                number += 1
                self._db.insert("written", number=number, day=day, source=self.source)
                self._db.run("DELETE FROM written WHERE number <= ?", number - KEPT)
            self._db.run("UPDATE written SET bytes=bytes+?, ran=ran+? WHERE number=?", more, max(0.0, ran), number)
        self._noted, self._since = count, now

    def close(self, wall: float, now: float) -> None:
        with suppress(ModelWireError):
            self.look(wall, now, at_once=True)

    def _count(self) -> int:
        if self.source == OWN:
            return files.written() + ROW * self._changed()
        said = of_process(self._process)
        return self._noted if said is None else said  # it can't be read at this moment: the next look tells, and the two don't mix


def of_process(process: Path) -> int | None:
    """Return the bytes that a process, as /proc has it, has caused to be written to disks since it began; None where nobody tells."""
    try:
        lines = dict(line.split(": ", 1) for line in (process / _IO).read_text().splitlines())
        return max(0, int(lines["write_bytes"]))
    except (OSError, ValueError, KeyError):  # no such kernel, another user's, or it has ended
        return None


def written(database: Database) -> WrittenDays:
    """Return what is noted of all days that are kept."""
    rows = database.all("SELECT source, bytes, ran FROM written ORDER BY number DESC")
    source = str(rows[0]["source"]) if rows else KERNEL
    own = [r for r in rows if r["source"] == source]  # the two do not add
    return WrittenDays(sum(int(r["bytes"]) for r in own), sum(float(r["ran"]) for r in own), len(own), source)
