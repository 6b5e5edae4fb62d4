"""CPU time of short calls, told apart from a busy machine: interleaved, the least of many; and the memory that a call takes beside."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

Call = Callable[[], object]


@dataclass(frozen=True)
class Timed:
    """A call to be timed. `before` puts back what the call changes, and is not counted."""

    call: Call
    before: Call | None = None
    clock: Callable[[], float] = time.thread_time  # process_time for what starts threads of its own


def fastest(calls: Mapping[str, Timed], repeats: int) -> dict[str, float]:
    """Return the least seconds of each call; all take turns, so that a slow minute of the machine meets them all."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for name, timed in calls.items():
            if timed.before:
                timed.before()
            start = timed.clock()
            timed.call()
            least[name] = min(least[name], timed.clock() - start)
    return least


def of_command(command: Sequence[str]) -> float:
    """Run a command to its end and return its CPU seconds, user and system, its start included. Raises CalledProcessError."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=said)
    return usage.ru_utime + usage.ru_stime


def temporary_bytes(call: Call) -> int:
    """Return the most bytes that a call held beyond what its result keeps; Python's and numpy's memory, not a library's own."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = call()
        after, peak = tracemalloc.get_traced_memory()
        del result
        return peak - max(before, after)
    finally:
        tracemalloc.stop()


def peak_rss(call: Call) -> int | None:
    """Return by how many bytes a call raised the most that its process had in memory, the result included; None off Linux.

    It runs in a child, so that it may change what it likes; memory that the parent had freed is given back there, for it would hide some.
    """
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return None
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc alone has it
                trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
            before = _high_water()
            call()
            os.write(writing, str(_high_water() - before).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise ChildProcessError(f"the measured call ended with {os.waitstatus_to_exitcode(status)}")
    return int(said)


def _high_water() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def threads_speedup(work: Sequence[Call], repeats: int) -> float:
    """Return how many times faster `work` is done by a thread each than by one for all; wall-clock time, so an idle machine matters."""
    alone = together = float("inf")
    with ThreadPoolExecutor(len(work)) as pool:
        for _ in range(repeats):
            start = time.perf_counter()
            for call in work:
                call()
            alone = min(alone, time.perf_counter() - start)
            start = time.perf_counter()
            for done in [pool.submit(call) for call in work]:
                done.result()
            together = min(together, time.perf_counter() - start)
    return alone / together
