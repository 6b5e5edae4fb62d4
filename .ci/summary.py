"""Print a line for each JUnit file of one folder, and `N passed, N failed` over all: the closing lines of `make test` and of .ci/run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True)
class Run:
    """What one run of tests came to; errors count as failed. wall, cpu: seconds, as timed.py wrote them down, or 0."""

    name: str
    passed: int
    failed: int
    skipped: int
    wall: float
    cpu: float


def read(file: Path) -> Run:
    """Return what a JUnit file says, and FILE.seconds beside it."""
    total = failed = skipped = 0
    for suite in ElementTree.parse(file).getroot().iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    seconds = file.with_suffix(".seconds")
    wall, cpu = map(float, seconds.read_text().split()) if seconds.exists() else (0.0, 0.0)
    return Run(file.stem, total - failed - skipped, failed, skipped, wall, cpu)


def summed(runs: list[Run]) -> Run:
    """Return all runs as one."""
    return Run(
        "all", sum(r.passed for r in runs), sum(r.failed for r in runs), sum(r.skipped for r in runs), sum(r.wall for r in runs),
        sum(r.cpu for r in runs),
    )  # fmt: skip


if __name__ == "__main__":
    runs = [read(file) for file in sorted(Path(sys.argv[1]).glob("*.xml"))]
    total = summed(runs)
    print(f"{'run':16}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}{'of processor':>14}")
    for run in (*runs, total):
        print(f"{run.name:16}{run.passed:8}{run.failed:8}{run.skipped:9}{run.wall:9.0f}{run.cpu:14.0f}")
    print(f"{total.passed} passed, {total.failed} failed" + (f", {total.skipped} skipped" if total.skipped else ""))
    sys.exit(total.failed > 0 or total.passed == 0)
