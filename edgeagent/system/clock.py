"""Where time comes from: the agent hands one clock to all that ask for the time, and tests hand another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Three ways of time, all in seconds."""

    monotonic: Callable[[], float] = time.monotonic  # for pauses, and for what something took
    wall: Callable[[], float] = time.time  # Unix seconds, for what is said and for days apart
    sleep: Callable[[float], None] = time.sleep
