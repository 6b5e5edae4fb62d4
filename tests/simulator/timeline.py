"""Time that moves from event to event, and randomness that comes from a seed alone."""

from __future__ import annotations

import hashlib
import heapq
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from random import Random
from unittest.mock import patch

from edgecloud.registry.sqlite.log import SqliteLog

BEGAN = 1_800_000_000.0  # Unix seconds of the first moment


class Timeline:
    """What happens when. Events of one moment come in the order in which they were planned."""

    def __init__(self) -> None:
        self.now = 0.0  # seconds since the beginning
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._trace = hashlib.sha256()
        self.noted = 0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        """Return Unix seconds."""
        return BEGAN + self.now

    def seconds(self) -> int:
        """Return whole Unix seconds, as the centre counts."""
        return int(BEGAN + self.now)

    def sleep(self, seconds: float) -> None:
        """Go on without waiting: nobody here holds the others up."""

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), do))

    def step(self) -> bool:
        """Let the next thing happen; return whether there was any."""
        if not self._events:
            return False
        self.now, _, do = heapq.heappop(self._events)
        do()
        return True

    def note(self, what: str, data: bytes = b"") -> None:
        """Enter into the trace that something happened now."""
        self.noted += 1
        self._trace.update(f"{self.now!r} {what} {len(data)}\n".encode())
        self._trace.update(data)

    @property
    def digest(self) -> str:
        """The digest of all that has happened, in its order: equal for two runs that did the same."""
        return self._trace.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what both sides log off the screen: a simulated fleet is nothing but trouble."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)


@contextmanager
def seeded(seed: int, timeline: Timeline) -> Iterator[None]:
    """Let what both sides take from the system's randomness and clock come from a seed and a timeline, for the time of the block."""
    rng = Random(f"system {seed}")

    def some(size: int | None = None) -> bytes:
        return rng.randbytes(32 if size is None else size)

    with (
        patch.object(os, "urandom", some),
        patch.object(secrets, "token_bytes", some),
        patch.object(time, "time", timeline.wall),
        patch.object(SqliteLog.__init__, "__defaults__", (timeline.wall,)),  # it took the clock when it was defined
    ):
        yield
