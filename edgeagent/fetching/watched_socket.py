"""A connection whose bytes are counted and bounded before they are read, and whose silence and dribble end."""

from __future__ import annotations

import array
import contextlib
import fcntl
import io
import socket
import ssl
import termios
import time
from dataclasses import dataclass
from pathlib import Path

from .addresses import Address
from .ranges import Crossed

WINDOW_BYTES = 128 * 1024  # that the kernel takes before anybody has read the ones before: what a server may send unasked
_TRIED = 4  # addresses of one name


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for, in seconds."""

    connect: float = 20.0  # until it is connected, TLS included
    head: float = 60.0  # until the head of an answer is here
    window: float = 60.0  # in each of which so many bytes must come,
    least: int = 2048  # fewer than this: a link of 273 bit/s is slower than any on which a file is fetched


class StalledError(OSError):
    """A server that is too slow to be waited for."""


class TooMuchError(OSError):
    """A server that sends more than it may."""


class WatchedSocket:
    """One connection, as http.client reads it. Used from one thread, but for `cut`."""

    def __init__(self, address: Address, patience: Patience, ca: Path | None) -> None:
        """Raises OSError."""
        self._patience, self._left, self._until, self._least = patience, 0, 0.0, 0
        self._paced = False  # a body is judged by its pace, a head by its end
        self.sent = self.received = 0
        self._socket = _connected(address, time.monotonic() + patience.connect)
        if address.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=str(ca) if ca else None)
                self._socket = context.wrap_socket(self._socket, server_hostname=address.host)
            except BaseException:
                self._socket.close()
                raise

    def request(self, data: bytes, head: int) -> None:
        """Send a request, and let its answer's head be of so many bytes. Raises OSError."""
        self._socket.settimeout(self._patience.head)
        self.sent += len(data)
        self._socket.sendall(data)
        self._paced, self._left, self._until = False, head, time.monotonic() + self._patience.head

    def allow(self, size: int) -> None:
        """Let so many bytes come from here on, at a pace."""
        self._left = size
        self._begin_window()

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        """Return what http.client reads one answer from; to close that closes nothing here."""
        return io.BufferedReader(_Answer(self))

    def readinto(self, buffer: memoryview) -> int:
        """Read what has come. Raises TooMuchError, StalledError, OSError."""
        if not self._left:
            raise TooMuchError("it sends more than was asked for")
        while True:
            wait = self._until - time.monotonic()
            if wait <= 0:
                if self._least > 0 or not self._paced:
                    raise StalledError("it sends nothing, or next to nothing")
                self._begin_window()
                continue
            self._socket.settimeout(wait)
            try:
                count = self._socket.recv_into(buffer[: self._left])
            except TimeoutError:
                continue
            self._left, self._least, self.received = self._left - count, self._least - count, self.received + count
            return count

    def cut(self) -> None:
        """End the connection, also under the hands of who reads from it; from any thread."""
        with contextlib.suppress(OSError):  # it is over
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Close it, and count what came and was not read."""
        unread = array.array("i", [0])
        with contextlib.suppress(OSError, ValueError):
            fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, unread)
            self.received += max(0, unread[0])
        self._socket.close()

    def _begin_window(self) -> None:
        self._paced = True
        self._least, self._until = min(self._patience.least, self._left), time.monotonic() + self._patience.window


class _Answer(io.RawIOBase):
    """One answer of a connection that stays open behind it."""

    def __init__(self, connection: WatchedSocket) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._connection.readinto(buffer)


def crossed(connection: WatchedSocket) -> Crossed:
    """Return what has crossed it since it was last asked, and count from here."""
    said = Crossed(connection.sent, connection.received)
    connection.sent = connection.received = 0
    return said


def _connected(address: Address, until: float) -> socket.socket:
    error = OSError(f"{address.host} has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[:_TRIED]:
        left = until - time.monotonic()
        if left <= 0:
            raise StalledError("it could not be reached in time")
        one = socket.socket(family, kind, protocol)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES // 2)  # the kernel doubles it
            one.settimeout(left)
            one.connect(place)
            return one
        except OSError as e:
            error = e
            one.close()
    raise error
