"""All boards of a fleet as one bare MQTT client in a process of its own: it must cost less than what it measures.

    python -m tests.evidence.centre.flood PORT FILE        FILE: pairs of topic and update, pickled

Says the updates with QoS 1, a window at a time, takes every receipt and acknowledges it, and prints what it saw as JSON. The clock
starts behind the first eighth of them, when that is proven: by then the processes that prove run.
"""

from __future__ import annotations

import json
import pickle
import select
import socket
import struct
import sys
import time
from pathlib import Path

from modelwire.wire import records
from modelwire.wire.records import Level, Receipt
from modelwire.wire.signing import Role
from tests.edgecloud.device import FLEET
from tests.keys import FLEET_ID, RECEIPT
from tests.mqtt_bytes import CONNECT, PUBACK, PUBLISH, SUBSCRIBE, packet, split, text

WINDOW = 2000  # updates without a receipt `verified` at a time
PATIENCE = 600.0  # seconds


def flood(port: int, messages: list[tuple[str, bytes]]) -> dict[str, float]:
    """Return the seconds from the first update behind the warming up to the last receipt, how many updates those are, and how many
    receipts of each kind came for all of them. Raises for one that is not signed.
    """
    link = socket.create_connection(("127.0.0.1", port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.sendall(packet(CONNECT, text(b"MQTT") + bytes([4, 2, 0, 0]) + text(b"boards")))
    link.sendall(packet(SUBSCRIBE, struct.pack(">H", 1) + text(f"e1/{FLEET}/+/+/dn/receipt".encode()) + b"\1"))
    ready = [packet(PUBLISH, text(t.encode()) + struct.pack(">H", 1 + n % 60_000) + data) for n, (t, data) in enumerate(messages)]
    buffer, heard = bytearray(), list[bytes]()
    link.setblocking(False)
    until(link, buffer, 0x90)
    began, end, next_one, out, warm = 0.0, time.monotonic() + PATIENCE, 0, bytearray(), len(ready) // 8
    while len(heard) < 2 * len(messages) and time.monotonic() < end:
        if not began and len(heard) >= 2 * warm:
            began = time.perf_counter()
        while next_one < (len(ready) if began else warm) and next_one - len(heard) // 2 < WINDOW and len(out) < 1 << 16:
            out += ready[next_one]
            next_one += 1
        readable, writable, _ = select.select([link], [link] if out else [], [], 1.0)
        if readable:
            buffer += link.recv(1 << 18)
            for first, body in split(buffer):
                if first & 0xF0 == 0x30:
                    topic = struct.unpack_from(">H", body)[0]
                    out += bytes([PUBACK, 2]) + body[2 + topic : 4 + topic]
                    heard.append(body[4 + topic :])
        if writable:
            del out[: link.send(out)]
    took = time.perf_counter() - began
    link.close()
    return {"seconds": took, "timed": len(ready) - warm, **counted(heard, messages)}


def until(link: socket.socket, buffer: bytearray, first: int) -> None:
    """Wait for one packet."""
    while True:
        select.select([link], [], [], PATIENCE)
        buffer += link.recv(1 << 16)
        if any(kind == first for kind, _ in split(buffer)):
            return


def counted(heard: list[bytes], messages: list[tuple[str, bytes]]) -> dict[str, int]:
    """Return how many updates have a receipt of each level, every signature checked."""
    wanted = {data[-96:-64] for _, data in messages}  # commits
    levels: dict[Level, set[bytes]] = {level: set() for level in Level}
    for data in heard:
        signed = records.parse(data)
        signed.verify(RECEIPT.public, FLEET_ID, "the centre", Role.RECEIPT)
        assert isinstance(signed.record, Receipt)
        assert signed.record.commit in wanted
        levels[signed.record.level].add(signed.record.commit)
    return {level.value: len(commits) for level, commits in levels.items()}


if __name__ == "__main__":
    print(json.dumps(flood(int(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes()))))
