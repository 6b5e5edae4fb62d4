"""Servers of files on a loopback port, honest and hostile: each connection is answered by a function, and what was asked is kept."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

_RANGE = re.compile(r"range: bytes=(\d+)-(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """What was asked."""

    path: str
    head: str

    @property
    def range(self) -> tuple[int, int] | None:
        """First byte, and behind the last one."""
        found = _RANGE.search(self.head)
        return (int(found[1]), int(found[2]) + 1) if found else None


Handler = Callable[[socket.socket, Request], bool]  # returns whether the connection stays


@dataclass
class Server:
    """One server. url: without a path."""

    handler: Handler
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spans(self, path: str) -> list[tuple[int, int]]:
        """Return the ranges that were asked of a path."""
        return [r.range for r in self.requests if r.path == path and r.range is not None]


@contextlib.contextmanager
def serving(handler: Handler, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serve until the block ends."""
    listener = socket.create_server(("127.0.0.1", port))
    server = Server(handler, listener.getsockname()[1])
    opened: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), tls.wrap_socket(connection, server_side=True) if tls else connection as connection:
            while (request := _read(connection)) is not None:
                server.requests.append(request)
                if not server.handler(connection, request):
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            opened.append(connection)
            server.connections += 1
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for one in opened:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _read(connection: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(4096)
        if not more:
            return None
        data += more
    head = data.decode("latin-1")
    return Request(head.split(" ")[1], head)


def files(known: Mapping[str, bytes], *, ranges: bool = True) -> Handler:
    """Answer as a static server does. ranges: whether it knows them; without it sends the whole and hangs up."""

    def answer(connection: socket.socket, request: Request) -> bool:
        data = known.get(request.path.partition("?")[0])
        if data is None:
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone")
            return True
        if request.range is None or not ranges:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(data) + data)
            return False
        start, stop = request.range
        connection.sendall(partial(start, stop, len(data)) + data[start:stop])
        return True

    return answer


def partial(start: int, stop: int, size: int, more: str = "") -> bytes:
    """Return the head of an answer with a range."""
    return (
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{size}\r\nContent-Length: {stop - start}\r\n{more}\r\n"
    ).encode()
