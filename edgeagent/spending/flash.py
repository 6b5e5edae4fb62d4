"""Bytes that the agent's process writes to its disk, by day: flash wears out by them, and cards are replaced by such a figure."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from edgecommon import disk, files
from edgecommon.disk import WriteTally
from edgecommon.sqlite import Database, Row
from modelwire.errors import ModelWireError

KERNEL, OWN = "kernel", "own"
SAID = {KERNEL: "write_bytes of /proc/self/io", OWN: "own count of files and rows, an estimate"}
EVERY = 6 * 3600.0  # seconds between two notes; each is a write itself, and a kill forgets so much
KEPT, DAYS = 31, 8  # days; those of which the parts are kept
DAY = 86_400.0
ROW = 8192  # bytes that a changed row comes to in SQLite's log: a page of its table, one of an index
_IO, _NOTED = "io", "written"


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
        self._noted, self._since, self._last = 0, 0.0, 0
        self._noted = self._last = self._count()
        self._day, self._before = 0, 0  # the newest day that is noted, and its bytes
        self._tally, self._open = WriteTally(self._count), ExitStack()

    def begin(self, now: float) -> None:
        """now: monotonic seconds."""
        self._noted, self._since = self._count(), now
        row = self._newest()
        self._day, self._before = (int(row["day"]), int(row["bytes"])) if row is not None else (0, 0)
        self._tally = WriteTally(self._count)
        self._open.enter_context(disk.tallied(self._tally))

    def today(self, wall: float) -> int:
        """Return the bytes of this day so far, of the runs before too. wall: Unix seconds."""
        more = max(0, self._count() - self._noted)
        return more if day_of(wall) > self._day else self._before + more

    def look(self, wall: float, now: float, *, at_once: bool = False) -> None:
        """Note what was written since, when it is time to. wall: Unix seconds; now: monotonic seconds. Raises DiskUnwritable.

        A day ends when the clock says a later one. A clock that says an earlier one ends nothing before a whole day of running.
        """
        ran, day = now - self._since, day_of(wall)
        if ran < EVERY and not at_once and not 0 < self._day < day:
            return
        count, parts = self._count(), self._tally.taken()
        more = max(0, count - self._noted)
        with self._db.transaction():
            row = self._newest()
            number = int(row["number"]) if row is not None else 0
            over = row is None or day > row["day"] or (day < row["day"] and row["ran"] >= DAY)
            if row is None or over or row["source"] != self.source:
                number, self._day = number + 1, day
                self._db.insert("written", number=number, day=day, source=self.source)
                self._db.run("DELETE FROM written WHERE number <= ?", number - KEPT)
            self._db.run("UPDATE written SET bytes=bytes+?, ran=ran+? WHERE number=?", more, max(0.0, ran), number)
            self._before = self._db.number("SELECT bytes FROM written WHERE number=?", number)
            self._note_parts(number, parts, count)
        self._noted, self._since = count, now

    def close(self, wall: float, now: float) -> None:
        with suppress(ModelWireError):
            self.look(wall, now, at_once=True)
        self._open.close()

    def _note_parts(self, number: int, parts: Mapping[str, int], count: int) -> None:
        days = noted(self._db).days
        held = Counter(days.pop(number, {})) + Counter(parts)
        newest = dict(sorted({**days, number: dict(held)}.items())[-DAYS:])
        text = json.dumps({"process": os.getpid(), "count": count, "days": [[n, newest[n]] for n in newest]})
        self._db.run("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", _NOTED, text)

    def _newest(self) -> Row | None:
        return self._db.maybe("SELECT * FROM written ORDER BY number DESC LIMIT 1")

    def _count(self) -> int:
        if self.source == OWN:
            return files.written() + ROW * self._changed()
        said = of_process(self._process)
        if said is None:  # it can't be read at this moment: the next look tells, and the two don't mix
            return self._last
        self._last = said
        return said


@dataclass(frozen=True, slots=True)
class NotedParts:
    """What the agent noted last beside the days."""

    process: int  # its number
    count: int  # bytes that it had written by then
    days: dict[int, dict[str, int]]  # bytes of each part, by the days' numbers; the newest few


def noted(database: Database) -> NotedParts:
    """Return what parts were written; nothing where nothing of the kind stands there."""
    row = database.maybe("SELECT value FROM meta WHERE key=?", _NOTED)
    try:
        said = json.loads(row["value"] if row is not None else "")
        days = {int(n): {str(part): int(size) for part, size in parts.items()} for n, parts in said["days"]}
        return NotedParts(int(said["process"]), int(said["count"]), days)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return NotedParts(0, 0, {})


@dataclass(frozen=True, slots=True)
class WrittenToday:
    """What was written on the day that the clock says."""

    bytes: int
    parts: dict[str, int]  # as far as they are noted
    number: int  # of the day in the table; 0 where nothing of it is noted


def today(database: Database, wall: float, *, agent: int | None = None) -> WrittenToday:
    """Return the bytes of this day. agent: number of the process that runs, for what it has not noted yet. wall: Unix seconds."""
    row = database.maybe("SELECT number, day, bytes FROM written ORDER BY number DESC LIMIT 1")
    last = noted(database)
    more = of_process(Path("/proc") / str(agent)) if agent is not None and agent == last.process else None
    since = max(0, more - last.count) if more is not None else 0
    if row is None or row["day"] < day_of(wall):
        return WrittenToday(since, {}, 0)
    return WrittenToday(int(row["bytes"]) + since, last.days.get(int(row["number"]), {}), int(row["number"]))


def day_of(wall: float) -> int:
    """Return the day of a time, in Unix seconds, since 1970 in UTC."""
    return int(max(0.0, min(wall, 1e11)) // DAY)


def spent(limit: int, written: int) -> str:
    """Return why rounds wait for their day's bytes to be fewer; empty where they do not. limit: 0 for none."""
    if not limit or written < limit:
        return ""
    return f"{disk.said(written)} were written to the disk today, and budget.flash_bytes_a_day is {disk.said(limit)}"


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
