"""First pages of a registry with a million versions, and a plan of its whole store: how long each takes.

    python -m tests.evidence.centre.queries            a tenth of that; FULL=1 in the environment for a million versions
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgecloud import commands, program
from edgecloud.registry.sqlite.tallies import wrong_tallies
from tests.edgecloud.bulk import make

SHAPES = ((1, 1000), (1000, 1), (10_000, 0.1))  # devices, and thousands of versions of each, of the million
PAGES = (
    "log {device} -n 20", "devices -n 20", "devices -n 20 --stale 24h", "show {device}", "show {device}@{version}",
    "why {device}@{version}", "stats", "stats {device}",
)  # fmt: skip
PLAN = ("whatif", "--policy", "recover_within=3 states", "--policy", "recover_within=2 states, keep=last 50")
TIMES = 5  # the fastest counts: whatever else the machine does only adds


def measure(full: bool) -> dict[str, float]:
    """Return the slowest first page in milliseconds, the slowest whole command and a plan of the store in seconds."""
    share, mark = (1.0, "") if full else (0.1, "_100k")
    slowest, command, planned = 0.0, 0.0, 0.0
    for devices, thousands in SHAPES:
        # A tenth has a tenth of the devices, or of the one device's versions.
        some = devices if devices == 1 else int(devices * share)
        each = int(thousands * 1000 * (share if devices == 1 else 1))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fleet.db"
            began = time.monotonic()
            store = make(path, some, each, say=_say)
            _say(f"made in {time.monotonic() - began:.0f} s")
            wrong = wrong_tallies(store.database)
            assert not wrong, wrong
            store.close()
            for words in _pages(f"pi-{some // 2:05}", each // 2):
                page, whole = in_process(path, words), alone(path, words)
                print(f"{some:>6} x {each:<9,} {' '.join(words):32} {1000 * page:8.1f} ms, the whole command {whole:.2f} s")
                slowest, command = max(slowest, page), max(command, whole)
            planned = in_process(path, PLAN, times=2)
            print(f"{some:>6} x {each:<9,} {'whatif, four stores compared':32} {planned:8.2f} s")
    return {f"slowest_query_ms{mark}": round(1000 * slowest, 1), f"slowest_command_s{mark}": round(command, 3),
            f"whatif_s{mark}": round(planned, 2)}  # fmt: skip


def in_process(path: Path, words: tuple[str, ...], *, times: int = TIMES) -> float:
    """Return the seconds of one command within a process that has run it before."""
    best = float("inf")
    for _ in range(times):
        args = program.read([*words, "--db", str(path)])
        with contextlib.redirect_stdout(io.StringIO()) as said:
            began = time.perf_counter()
            code = program.run(args)
            best = min(best, time.perf_counter() - began)
        if not said.getvalue():
            raise SystemExit(f"{' '.join(words)} said nothing (exit code {code})")
    return best


def alone(path: Path, words: tuple[str, ...]) -> float:
    """Return the seconds of a whole command, from its start to its end."""
    best = float("inf")
    for _ in range(2):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "edgecloud", *words, "--db", str(path)], stdout=subprocess.DEVNULL, check=False)
        best = min(best, time.perf_counter() - began)
    return best


def _pages(device: str, version: int) -> list[tuple[str, ...]]:
    told = [tuple(page.format(device=device, version=version).split()) for page in PAGES]
    return [words for words in told if words[0] in commands.NAMES]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(measure(bool(os.environ.get("FULL"))), indent=1))
