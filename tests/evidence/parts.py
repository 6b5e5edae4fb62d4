"""Measures the parts of a topic, each a module with a `measure` of its own, and says how long each took.

What is measured at the sizes of a promise takes hours. Its last figures are kept in the tree, part by part, with their date and commit:
tests/evidence/full/TOPIC.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from edgecommon.files import write

Figures = dict[str, int | float | str]
ROOT = Path(__file__).resolve().parents[2]
FULL = Path(__file__).parent / "full"


def measured(package: str, parts: Sequence[str], full: bool) -> Figures:
    """Return the figures of all parts of a package. full: the sizes that the promise names, which take long."""
    figures: Figures = {}
    for part in parts:
        figures |= _measured(package.rpartition(".")[2], part, import_module(f"{package}.{part}").measure, full)
    return figures


def alone(topic: str, part: str, measure: Callable[[bool], Figures]) -> None:
    """Measure one part as a command, and print its figures. FULL=1 in the environment: the sizes of the promise."""
    print(json.dumps(_measured(topic, part, measure, wants_full()), indent=1))


def wants_full() -> bool:
    """Return whether the environment asks for the sizes of the promise."""
    return os.environ.get("FULL", "") not in ("", "0")


def last_full(topic: str) -> list[str]:
    """Return a line for each part whose figures at full size are kept: when they were measured, on what, and what they were."""
    kept = _kept(topic)
    return [f"FULL=1 {part}, {one['date']}, {one['commit']}: {json.dumps(one['figures'])[1:-1]}" for part, one in kept.items()]


def _measured(topic: str, part: str, measure: Callable[[bool], Figures], full: bool) -> Figures:
    started = time.monotonic()
    print(f"{part}: measuring", file=sys.stderr)
    figures = measure(full)
    print(f"{part}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    if full:
        row = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit(), "figures": figures}
        FULL.mkdir(exist_ok=True)
        write(FULL / f"{topic}.json", (json.dumps(dict(sorted({**_kept(topic), part: row}.items())), indent=1) + "\n").encode())
    return figures


def _kept(topic: str) -> dict[str, dict[str, object]]:
    file = FULL / f"{topic}.json"
    rows: dict[str, dict[str, object]] = json.loads(file.read_text()) if file.exists() else {}
    return rows


def commit() -> str:
    """Return the commit that is measured; with a plus sign where files of it were changed."""
    if not (ROOT / ".git").exists():
        return "no commit"
    # Its own figures are no change of what is measured.
    said = ["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "--", ":!tests/evidence/full"]
    head, changed = (subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() for words in said)
    return head + "+" * bool(changed)
