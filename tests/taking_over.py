"""A broker that gives each session to another client at once, and says so, as MQTT 5 has it; or hangs up, as mosquitto 2.0 does."""

from __future__ import annotations

import socket
import threading

CONNACK, AGAIN = b"\x20\x03\x00\x00\x00", b"\x20\x03\x01\x00\x00"  # the second: to the session that the other one has just had
TAKEN_OVER = b"\xe0\x01\x8e"


class TakingOver:
    """Greets a client of MQTT 5, takes its subscriptions, and ends the connection. says: with a word."""

    def __init__(self, *, says: bool) -> None:
        self._says = says
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                s, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s: socket.socket) -> None:
        with s:
            try:
                s.recv(4096)
                s.sendall(CONNACK if self.connections == 1 else AGAIN)
                asked = s.recv(4096)
                count = _filters(asked)
                s.sendall(b"\x90" + bytes([3 + count]) + asked[2:4] + b"\x00" + b"\x01" * count)
                s.sendall(TAKEN_OVER if self._says else b"")
            except OSError:
                return


def _filters(asked: bytes) -> int:
    """Return how many filters a SUBSCRIBE names."""
    at, end, count = 5 + asked[4], 2 + asked[1], 0
    while at < end:
        at += 2 + int.from_bytes(asked[at : at + 2], "big") + 1
        count += 1
    return count
