"""Carries one connection of an emulated board to a port of this machine: QEMU runs it for each, with the board's side as stdin and stdout.

    python relay.py PORT
"""

from __future__ import annotations

import os
import select
import socket
import sys


def main(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port)) as here:
        here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends: list[int | socket.socket] = [0, here]
        while True:
            ready, _, _ = select.select(ends, [], [])
            if 0 in ready:
                if not (data := os.read(0, 65536)):
                    return 0
                here.sendall(data)
            if here in ready:
                if not (data := here.recv(65536)):
                    return 0
                sent = 0
                while sent < len(data):
                    sent += os.write(1, data[sent:])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
