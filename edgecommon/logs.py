"""Log lines on standard error, or in systemd's journal: text for people, one JSON object a line for machines. No flood makes a flood."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
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


JOURNAL = "/run/systemd/journal/socket"
Fields = Callable[[str], Mapping[str, str]]  # what a message is about, as the journal's fields, made of the message


def start(package: str, level: str, formatter: logging.Formatter, fields: Fields | None = None) -> None:
    """Send what `package` logs in this process to standard error. At level debug that is every line, else what SparingLines lets.

    Where systemd's journal reads it, the journal gets each line with its fields: how grave it is, of which kind, and what `fields` says.
    """
    root = logging.getLogger(package)
    for before in root.handlers:
        before.close()
    journal = JournalSink(own_unit() or package, fields) if goes_to_journal(sys.stderr) else None
    handler = Lines(sys.stderr, journal=journal) if level.upper() == "DEBUG" else SparingLines(sys.stderr, journal=journal)
    handler.setFormatter(formatter)
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


def own_unit(cgroup: Path = Path("/proc/self/cgroup")) -> str:
    """Return the name of the service that this process is of, as systemd calls its lines; empty where it is of none."""
    try:
        found = re.findall(r"/([\w@.:-]+)\.service\b", cgroup.read_text())
    except (OSError, ValueError):
        return ""
    return found[-1] if found else ""


class JournalSink:
    """systemd's journal by its own protocol: a line comes with fields, by which it is found. Source: systemd.io/JOURNAL_NATIVE_PROTOCOL."""

    def __init__(self, identifier: str, fields: Fields | None, address: str = JOURNAL) -> None:
        self._identifier, self._fields, self._address = identifier, fields or (lambda message: {}), address

    def take(self, record: logging.LogRecord, line: str) -> bool:
        """Give a line to the journal; return whether it took it. One that does not listen, or is slow, takes nothing."""
        said = {
            "MESSAGE": line, "PRIORITY": str(_rank(record.levelno)), "SYSLOG_IDENTIFIER": self._identifier, "LOGGER": record.name,
            "MESSAGE_ID": message_id(record), "CODE_FILE": record.pathname, "CODE_LINE": str(record.lineno),
            **self._fields(record.getMessage()),
        }  # fmt: skip
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
                one.setblocking(False)  # a journal that is slow must not hold up the work
                one.sendto(b"".join(_field(name, text) for name, text in said.items()), self._address)
        except OSError:
            return False
        return True


def message_id(record: logging.LogRecord) -> str:
    """Return the kind of a line, 32 hexadecimal digits: of the words that the program has for it, whatever is filled in."""
    kind = f"{record.name}\n{record.msg}\n{getattr(record, 'kind', '')}"
    return hashlib.sha256(kind.encode(errors="replace")).hexdigest()[:32]


def _field(name: str, text: str) -> bytes:
    raw = text.encode(errors="replace")
    return name.encode() + (b"\n" + struct.pack("<Q", len(raw)) if b"\n" in raw else b"=") + raw + b"\n"


def _rank(level: int) -> int:
    return next(rank for least, rank in RANKS if level >= least)


_Place = tuple[str, int, str]  # a line of the program, and where its code says so, which of the things it tells by that line


@dataclass(slots=True)
class _LeftOut:
    """Lines that were not written in this minute: of which place, how many, and how the last of them begins."""

    logger: str
    level: int
    place: _Place
    count: int = 0
    last: str = ""


class Lines(logging.StreamHandler[TextIO]):
    """Writes every line: to the journal where there is one, and where it takes none to the stream, ranked as sd-daemon(3) has it."""

    def __init__(self, stream: TextIO, *, journal: JournalSink | None = None) -> None:
        super().__init__(stream)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        self._write(record)

    def _write(self, record: logging.LogRecord) -> int:
        """Write a line; return its characters."""
        if self.stream.closed:
            return 0
        try:
            line = self.format(record)
            if self._journal is None or not self._journal.take(record, line):
                self.stream.write((line if self._journal is None else ranked(line, record.levelno)) + self.terminator)
                self.flush()
            return len(line)
        except Exception:  # noqa: BLE001  # who listened is gone; logging's own handler does the same
            self.handleError(record)
            return 0


class SparingLines(Lines):
    """Writes a few lines a minute of each kind and in all, and how many others there were: at the minute's end, or at the process's.

    Who can make a program log makes it write some 50 KB a minute at most. The first line of each kind is written in any minute, so a
    flood hides no other event. A kind is a place in the program; where one place tells several, `extra={"kind": ...}` says
    which. journald, a file and a terminal get the same lines.
    """

    def __init__(
        self, stream: TextIO, *, journal: JournalSink | None = None, clock: Callable[[], float] = time.monotonic,
        later: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:  # fmt: skip
        """clock: seconds; later: has a function called when the minute is over, by default on a thread of its own."""
        super().__init__(stream, journal=journal)
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

    def _write(self, record: logging.LogRecord) -> int:
        length = super()._write(record)
        self._written += 1 + length // LONG
        return length

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


def ranked(text: str, level: int) -> str:
    """Return lines as the journal takes them from a service's standard error: each begins with its rank, which is no part of it."""
    return "\n".join(f"<{_rank(level)}>{line}" for line in text.split("\n"))


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
