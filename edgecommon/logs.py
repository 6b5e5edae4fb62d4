"""Log lines on standard error: text for people, one JSON object a line for machines. No flood of messages makes a flood of them."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from .printing import as_json_text, visible, visible_lines

MINUTE = 60.0  # seconds over which lines are counted
SAME = 10  # times that one line is written in a minute
OF_A_KIND = 60  # lines that one place of the program writes in a minute
LINES = 300  # that a process writes in a minute, a long one counted for several; the first of each place is always written
KINDS = 100  # kinds of lines that are told apart in a minute; what comes behind them counts as its place's own
LONG = 160  # characters that count for one line
RANKS = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))  # of syslog, from the level on
MESSAGE, TRACE = 2000, 8000  # characters of a message, and of where an error came from


def start(package: str, level: str, formatter: logging.Formatter) -> None:
    """Send what `package` logs in this process to standard error. At level debug that is every line, else what SparingLines lets.

    Where systemd's journal reads it, each line says how grave it is: `journalctl -p warning` then shows warnings alone.
    """
    root = logging.getLogger(package)
    for before in root.handlers:
        before.close()
    handler = logging.StreamHandler(sys.stderr) if level.upper() == "DEBUG" else SparingLines(sys.stderr)
    handler.setFormatter(RankedLines(formatter) if goes_to_journal(sys.stderr) else formatter)
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def goes_to_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether systemd's journal reads a stream: it says device and inode of the one that it gave to this process."""
    try:
        about = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{about.st_dev}:{about.st_ino}"


_Place = tuple[str, int, str]  # a line of the program, and where its code says so, which of the things it tells by that line


@dataclass(slots=True)
class _LeftOut:
    """Lines that were not written in this minute: of which place, how many, and how the last of them begins."""

    logger: str
    level: int
    place: _Place
    count: int = 0
    last: str = ""


class SparingLines(logging.StreamHandler[TextIO]):
    """Writes a few lines a minute of each kind and in all, and how many others there were: at the minute's end, or at the process's.

    Who can make a program log makes it write some 50 KB a minute at most. The first line of each kind is written in any minute, so a
    flood hides no other event. A kind is a place in the program; where one place tells several, `extra={"kind": ...}` says
    which. journald, a file and a terminal get the same lines.
    """

    def __init__(
        self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic, later: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        """clock: seconds; later: has a function called when the minute is over, by default on a thread of its own."""
        super().__init__(stream)
        self._clock, self._later = clock, later or self._call_later
        self._timer: threading.Timer | None = None
        self._begin()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._timer = None  # what the parent left out is its to say
        self._begin()

    def _begin(self) -> None:
        self._since: float | None = None  # when this minute began
        self._written = 0  # lines
        self._places: dict[_Place, int] = {}  # lines of each
        self._texts: dict[int, int] = {}  # how often each was written
        self._repeated: dict[int, _LeftOut] = {}
        self._others: dict[_Place, _LeftOut] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count it."""
        now = self._clock()
        if self._since is not None and now - self._since >= MINUTE:
            self.tell()
        self._since = now if self._since is None else self._since
        place = record.pathname, record.lineno, str(getattr(record, "kind", ""))
        if place not in self._places and len(self._places) >= KINDS:
            place = record.pathname, record.lineno, ""
        try:
            text = record.getMessage()[:MESSAGE]
        except Exception:  # noqa: BLE001  # a line that can't be made; logging says how
            self.handleError(record)
            return
        line = hash((record.name, record.levelno, text))
        if self._left_out(record, place, line, text):
            return
        self._texts[line] = self._texts.get(line, 0) + 1
        self._places[place] = self._places.get(place, 0) + 1
        self._write(record)

    def _left_out(self, record: logging.LogRecord, place: _Place, line: int, text: str) -> bool:
        """Return whether a line is one too many, and count it then."""
        if self._texts.get(line, 0) >= SAME:
            left = self._repeated.setdefault(line, _LeftOut(record.name, record.levelno, place))
        elif (lines := self._places.get(place, 0)) >= OF_A_KIND or (lines and self._written >= LINES):
            left = self._others.setdefault(place, _LeftOut(record.name, record.levelno, place))
        else:
            return False
        left.last = text[:LONG]
        left.count += 1
        if self._timer is None:
            self._later(self.tell)
        return True

    def tell(self) -> None:
        """Write how many lines were left out in the minute that is over, and begin a new one."""
        self.acquire()
        try:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            seconds = 0 if self._since is None else round(self._clock() - self._since)
            repeated, others = list(self._repeated.values()), list(self._others.values())
            self._begin()
            for one in repeated:
                self._say(one, f"the same line {one.count} times more in the last {seconds} s: ")
            for one in others:
                self._say(one, f"{one.count} more lines like this in the last {seconds} s, the last of them: ")
        finally:
            self.release()

    def _say(self, one: _LeftOut, before: str) -> None:
        path, line, _ = one.place
        self._write(logging.LogRecord(one.logger, one.level, path, line, "%s", (before + one.last,), None))

    def _write(self, record: logging.LogRecord) -> None:
        if self.stream.closed:
            return
        try:
            line = self.format(record) + self.terminator
            self._written += 1 + len(line) // LONG
            self.stream.write(line)
            self.flush()
        except Exception:  # noqa: BLE001  # who listened is gone; logging's own handler does the same
            self.handleError(record)

    def close(self) -> None:
        """Say what was left out until now; `logging` closes its handlers when a process ends."""
        self.tell()
        super().close()

    def _call_later(self, what: Callable[[], None]) -> None:
        self._timer = threading.Timer(MINUTE, what)
        self._timer.daemon = True
        self._timer.start()


class TextLines(logging.Formatter):
    """Text for people. What is logged may hold what others wrote: a message is one line, and none moves the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible(cut(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return visible_lines(cut_trace(super().formatException(ei)))


class RankedLines(logging.Formatter):
    """Lines as the journal takes them from a service: each begins with its rank, which is no part of it. Source: sd-daemon(3)."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        rank = next(rank for level, rank in RANKS if record.levelno >= level)
        return "\n".join(f"<{rank}>{line}" for line in self._inner.format(record).split("\n"))


class JsonLines(logging.Formatter):
    """One JSON object a line. time: what a line says of its Unix seconds; trace: under which key it says where an error came from."""

    def __init__(self, time: Callable[[float], Any], *, trace: str) -> None:
        super().__init__()
        self._time, self._trace = time, trace

    def format(self, record: logging.LogRecord) -> str:
        time, level = self._time(record.created), record.levelname.lower()
        line = {"at": time, "level": level, "logger": record.name, "message": cut(record.getMessage())}
        if record.exc_info:
            line[self._trace] = cut_trace(self.formatException(record.exc_info))
        return as_json_text(line)


def cut(message: str) -> str:
    """Return a message as it may be written: what others wrote into it may be long."""
    more = len(message) - MESSAGE
    return message if more <= 0 else f"{message[:MESSAGE]}... ({more} characters more)"


def cut_trace(trace: str) -> str:
    """Return where an error came from, without its middle where it is long: what went wrong stands at the end."""
    more = len(trace) - TRACE
    return trace if more <= 0 else f"{trace[: TRACE // 4]}\n... ({more} characters less)\n{trace[-(TRACE - TRACE // 4) :]}"
