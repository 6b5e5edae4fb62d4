"""Tells systemd, where it started this process, that it serves, that it lives and what it does: sd_notify(3) over a plain socket."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .printing import visible

LONGEST = 3600.0  # seconds of one piece of work that still counts as work, and not as an endless loop
_STATUS_MAX = 1000  # characters of a status: it is one line of `systemctl status`


class Systemd:
    """systemd, as the process that it started sees it. Where it does not listen, nothing is said and nothing costs time."""

    def __init__(self, environment: Mapping[str, str] = os.environ, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.every = _half(environment) if self._address else 0.0  # seconds between two signs of life; 0: systemd wants none
        self._monotonic = monotonic
        self._alive = float("-inf")  # when the last sign of life was taken
        self._status, self._ready = "", False

    @property
    def listens(self) -> bool:
        return bool(self._address)

    def starting(self, text: str) -> None:
        """Say what keeps this process from serving, and that it goes on trying. Called again and again, at least once a minute."""
        if self._ready:
            self.alive()
        else:
            self._send("EXTEND_TIMEOUT_USEC=120000000")
        self.status(text)

    def ready(self) -> None:
        """Say that this process serves from now on; once."""
        if not self._ready:
            self._ready = self._send("READY=1")

    def status(self, text: str) -> None:
        """Say what this process does, in one line; the same line is not said twice."""
        line = visible(text)[:_STATUS_MAX]
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def alive(self) -> None:
        """Give a sign of life, when half of the time has passed that systemd waits for one. Called by the loop that does the work."""
        now = self._monotonic()
        if self.every and now - self._alive >= self.every and self._send("WATCHDOG=1"):
            self._alive = now

    def stopping(self) -> None:
        """Say that this process ends on purpose."""
        self._send("STOPPING=1")

    def _send(self, words: str) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
                one.setblocking(False)  # a systemd that is slow must not hold up the work
                one.sendto(words.encode(), self._address)
        except OSError:  # it is said again the next time
            return False
        return True


class Pulse:
    """Whether a thread or a process gets on: it came round, or it takes the processor. What does neither for long is stuck."""

    def __init__(
        self, stat: Path, *, patience: float, longest: float = LONGEST, monotonic: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        """stat: its file below /proc; patience: seconds without either that are no reason to worry; longest: between two rounds."""
        self._stat, self._patience, self._longest, self._monotonic = stat, patience, longest, monotonic
        self._round = self._moved = monotonic()
        self._ticks = -1

    @classmethod
    def of_this_thread(cls, *, patience: float, longest: float = LONGEST, monotonic: Callable[[], float] = time.monotonic) -> Pulse:
        stat = Path(f"/proc/self/task/{threading.get_native_id()}/stat")
        return cls(stat, patience=patience, longest=longest, monotonic=monotonic)

    def beat(self) -> None:
        """Note that it came round. Called by the thread itself."""
        self._round = self._monotonic()

    def beats(self) -> bool:
        """Return whether it gets on. Called by another thread, again and again."""
        now, ticks = self._monotonic(), _ticks(self._stat)
        if ticks != self._ticks:
            self._ticks, self._moved = ticks, now
        if now - self._round >= self._longest:
            return False
        return now - max(self._round, self._moved) < self._patience


def _address(given: str) -> str:
    if given[:1] == "@":  # a name of the kernel's own, in no folder
        return "\0" + given[1:]
    return given if given[:1] == "/" else ""


def _half(environment: Mapping[str, str]) -> float:
    whose, time_out = environment.get("WATCHDOG_PID", ""), environment.get("WATCHDOG_USEC", "")
    if whose not in ("", str(os.getpid())) or not (time_out.isascii() and time_out.isdigit()):
        return 0.0
    return int(time_out) / 2e6


def _ticks(stat: Path) -> int:
    """Return the time that it had the processor, in the kernel's ticks; -1 when the kernel does not say."""
    try:
        words = stat.read_bytes().rpartition(b")")[2].split()  # its name, in brackets before, may hold anything
        return int(words[11]) + int(words[12])
    except (OSError, ValueError, IndexError):
        return -1
