"""The other side of sd_notify, for tests: a socket that keeps what a service tells it."""

from __future__ import annotations

import contextlib
import secrets
import socket
from pathlib import Path


class NotifySocket:
    """A socket as systemd gives it to a service. watchdog: seconds in which it wants a sign of life; 0: it wants none."""

    def __init__(self, path: Path | None = None, *, watchdog: float = 0.0) -> None:
        """path: in a folder; None: a name of the kernel's own."""
        self.name = str(path) if path is not None else f"@edge-test-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.name.replace("@", "\0", 1))
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": self.name}
        if watchdog:
            self.environment["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        self._words: list[str] = []

    def words(self) -> list[str]:
        """Return all that was said so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._words.append(self._socket.recv(65536).decode())
        return self._words

    def count(self, word: str) -> int:
        return self.words().count(word)

    def close(self) -> None:
        self._socket.close()
