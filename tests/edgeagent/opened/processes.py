"""Whether processes run, for tests that end them."""

from __future__ import annotations

import time
from pathlib import Path

LIMIT = 60.0  # seconds; a safety limit


def runs(process: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(*processes: int) -> bool:
    """Return whether none of them runs, as soon as none does."""
    end = time.monotonic() + LIMIT
    while any(map(runs, processes)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(runs, processes))
