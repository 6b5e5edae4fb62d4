"""Processes that work for another one: they end with it, and go first where memory is short."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

# One thread's buffers, one heap: a process that computes in one thread would take megabytes for each further one.
_LEAN = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def lean_environment() -> dict[str, str]:
    """Return the environment of this process, and what lets one that works for it take no more memory than it needs."""
    return {**_LEAN, **os.environ}


def end_with(parent: int) -> None:
    """Let the kernel end this process when its parent ends, however that comes to be. parent: its id, as it said itself."""
    with contextlib.suppress(AttributeError, OSError):  # another C library, or another kernel
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before this was said
        os._exit(1)


def go_first() -> None:
    """Where memory is short, let the kernel end this process before all others; it leaves no core."""
    import resource

    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
