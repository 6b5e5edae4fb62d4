"""Runs one rehearsal in a process of its own, with limits on its memory, its processor time and its patience; says how it ended.

Both sides are here: `told_by` in the program, `limit` in the other process.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LINES = 1024 * 1024  # bytes that the other process may say; what is longer is none of ours
STDERR_MAX = 256 * 1024  # bytes that it may write to standard error: a runtime that complains once an operator fills no disk
_WORDS = 300  # characters of a runtime's own message


@dataclass(frozen=True, slots=True)
class RehearsalLimits:
    """What one rehearsal may take."""

    memory: int = 2 << 30  # bytes of address space beyond those of a process that has loaded the runtime
    seconds: float = 120.0  # by the clock, and of processor time, without the range test
    rates: float = 10.0  # seconds of the range test


@dataclass(frozen=True, slots=True)
class Ended:
    """How the other process ended."""

    said: dict[str, Any]  # its last word; empty when it had none
    stage: str  # the last one that it began
    reason: str  # why there is no last word; "" otherwise
    runtime: str  # package and version, as soon as it was loaded


def told_by(words: Sequence[str], *, folder: Path, seconds: float, said: Callable[[str], None]) -> Ended:
    """Return what `python -m edgecloud.rehearsal.child WORDS` found out, or how it ended without a word.

    folder: for what it writes to standard error. seconds: until it is killed, with all that it started. said: told each stage.
    """
    command = [sys.executable, "-m", "edgecloud.rehearsal.child", *words]
    with (folder / "stderr").open("wb") as complaints:
        child = subprocess.Popen(  # a session of its own, so that nothing it starts outlives it
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, start_new_session=True
        )
    try:
        told, late = _listened(child, time.monotonic() + seconds, said)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    lines = [line for line in map(_line, told.split(b"\n")) if line]
    stage = next((str(line["stage"]) for line in reversed(lines) if "stage" in line), "start")
    runtime = next((str(line["runtime"]) for line in lines if "runtime" in line), "")
    last = next((line for line in reversed(lines) if "end" in line), None)
    if last is not None and isinstance(last["end"], dict) and not late:
        return Ended(last["end"], stage, "", runtime)
    return Ended({}, stage, how_it_ended(child.returncode, late, seconds, folder / "stderr"), runtime)


def _listened(child: subprocess.Popen[bytes], until: float, said: Callable[[str], None]) -> tuple[bytes, bool]:
    """Return all that the process said, and whether its time ran out before it was done."""
    assert child.stdout is not None
    told, handle, known = bytearray(), child.stdout.fileno(), 0
    while len(told) < _LINES:
        left = until - time.monotonic()
        if left <= 0 or not select.select([handle], [], [], left)[0]:
            return bytes(told), True
        some = os.read(handle, 65536)
        if not some:  # its descriptors are closed: how it ends is settled, and no later signal changes that
            return bytes(told), False
        told += some
        for line in bytes(told[known:]).split(b"\n")[:-1]:
            known += len(line) + 1
            stage = _line(line).get("stage")
            if isinstance(stage, str):
                said(stage)
    return bytes(told), False


def _line(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def how_it_ended(code: int, late: bool, seconds: float, stderr: Path) -> str:
    """Return why a process had no last word. stderr: the file that holds what it complained of."""
    if late:
        return f"it was not done after {seconds:g} s, and was stopped"
    words = _complaint(stderr)
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and not words):
        return "it took all the processor time or memory that it was allowed, and was stopped"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"the runtime crashed ({signal.Signals(-code).name})" + (f": {words}" if words else "")
    return f"its process ended with {code}" + (f": {words}" if words else "")


def _complaint(stderr: Path) -> str:
    """Return the last line that is no chatter."""
    with stderr.open("rb") as file:
        text = file.read(STDERR_MAX).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("INFO:", "VERBOSE:", "WARNING:"))]
    return " ".join("".join(c if c.isprintable() else " " for c in lines[-1]).split())[:_WORDS] if lines else ""


def limit(limits: RehearsalLimits) -> None:
    """Take the limits on, in the other process: the runtime is loaded, the file is not yet."""
    limit_memory(limits.memory)
    _set(resource.RLIMIT_CPU, int(limits.seconds + limits.rates) + 5)


def allow_seconds(seconds: float) -> None:
    """Let this process take so many more seconds of processor time, and end it then, whoever still waits for it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    most = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def limit_memory(memory: int) -> None:
    """Let this process take so many bytes of address space beyond what it has now, write no large file and leave no core."""
    _set(resource.RLIMIT_AS, _status("VmSize") + memory)
    _set(resource.RLIMIT_FSIZE, STDERR_MAX)
    _set(resource.RLIMIT_CORE, 0)


def _set(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def peak() -> int:
    """Return the most resident memory of this process since `forget_peak`, in bytes; 0 where the system does not tell."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak begin at what is resident now."""
    with contextlib.suppress(OSError):  # a system without it tells the peak since the start: larger, and still a bound
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
