"""What waits in the registry is looked through without being read."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgecloud.registry import SqliteStore, WaitingMessage, open_registry


def test_looking_for_what_waited_too_long_does_not_read_what_waits(store: SqliteStore) -> None:
    for n in range(100):
        store.inbox.hold(WaitingMessage(0, f"s{n}", "m", "update", "unknown-key", bytes([n]), b"", bytes(1 << 20), 1000, 0))
    path = store.database.path
    store.close()
    with closing(open_registry(path, synchronous="OFF")) as fresh:
        read = io_bytes()
        fresh.inbox.expire(0)
        fresh.inbox.released(100)
        fresh.inbox.held_total("update")
        assert io_bytes() - read < 2 << 20


def io_bytes() -> int:
    """Return what this process has read so far, from the cache of the system too."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])
