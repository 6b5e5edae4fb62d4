"""What holds for all tests: where their folders lie, how Hypothesis looks for examples here, and that a slow test says why it is one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadlines: the machine may be a small one under load, and a slow example is no wrong one.
COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("desk", COMMON)
# CI looks at the same examples each time: what fails there, fails at the desk, and fails because of the change.
settings.register_profile("ci", COMMON, derandomize=True)
# A second environment looks at fewer: what it is there for shows in each of them, and the first has looked at all.
settings.register_profile("again", COMMON, max_examples=40, derandomize=True)
# `make quick` looks at fewer, and leaves the rest to `make test`.
settings.register_profile("quick", COMMON, max_examples=20)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes; the largest tests take a tenth of it


def in_memory() -> bool:
    """Return whether the tests' folders can lie in memory: it is there, may hold programs, and has room."""
    if not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(MEMORY).free >= ROOM


# A commit waits for the disk, and the tests make a hundred thousand of them. No test cuts the power: a process that is killed
# loses nothing that it wrote, on a disk as in memory.
if "TMPDIR" not in os.environ and in_memory():
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)  # the first for the processes that tests start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let slow tests begin first, the slowest before the others: a worker that met one at the end would be waited for.

    Raises UsageError when a test is kept to one environment and does not say why.
    """
    items.sort(key=seconds, reverse=True)
    for item in items:
        mark = item.get_closest_marker("one_environment")
        if mark is not None and not (mark.args and str(mark.args[0]).strip()):
            raise pytest.UsageError(f"{item.nodeid}: says why one environment is enough: @pytest.mark.one_environment('...')")


def seconds(item: pytest.Item) -> float:
    """Return what a test says that it takes, about; 0 when it is not slow. Raises UsageError when a slow one does not say why."""
    mark = item.get_closest_marker("slow")
    if mark is None:
        return 0.0
    if not (mark.args and str(mark.args[0]).strip()):
        raise pytest.UsageError(f"{item.nodeid}: a slow test says why: @pytest.mark.slow('...')")
    return float(mark.kwargs.get("seconds", 1))
