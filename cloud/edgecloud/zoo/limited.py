"""Runs one module of this package in a child process that can't take the machine with it: bounded in memory, time and what it says."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

SAID_MAX = 4 << 20  # bytes of an answer that are read
MARGIN = 20.0  # seconds for a process to start, on a machine that does other things
ENDS = {signal.SIGKILL: "was killed: out of memory or out of time", signal.SIGXCPU: "took too much processor time"}


@dataclass(frozen=True, slots=True)
class ChildBounds:
    """What one child may take."""

    seconds: float = 60.0  # of processor time, and MARGIN more by the clock
    memory: int = 3 << 30  # bytes of address space


@dataclass(frozen=True, slots=True)
class ChildAnswer:
    """How a child ended: with an answer, or with a reason why there is none."""

    answer: object
    reason: str
    crashed: bool = False  # a signal ended it that nobody here sent


def run(module: str, words: Sequence[str], bounds: ChildBounds) -> ChildAnswer:
    """Run `python -m module words...` and return the JSON document that it prints, or why there is none."""
    limits = [str(bounds.memory), str(max(1, round(bounds.seconds)))]
    child = subprocess.Popen(
        [sys.executable, "-m", module, *limits, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, told = child.communicate(timeout=bounds.seconds + MARGIN)
    except subprocess.TimeoutExpired:
        return ChildAnswer(None, f"took longer than {bounds.seconds + MARGIN:g} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=10)
    if child.returncode < 0:
        number = signal.Signals(-child.returncode)
        return ChildAnswer(None, ENDS.get(number, f"crashed ({number.name})"), number not in (signal.SIGKILL, signal.SIGXCPU))
    if child.returncode:
        last = told.decode("utf-8", "replace").strip().splitlines()[-1:]
        return ChildAnswer(None, f"failed: {last[0][:300] if last else f'exit code {child.returncode}'}")
    try:
        return ChildAnswer(json.loads(said[:SAID_MAX]), "")
    except ValueError:
        return ChildAnswer(None, "gave no answer")


def bound(words: Sequence[str]) -> list[str]:
    """Take this process's limits from the front of its words, and return the others. Called first of all by what `run` starts."""
    memory, seconds = (int(word) for word in words[:2])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return list(words[2:])
