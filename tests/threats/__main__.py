"""Run the threat model: every row's tests. A row without a test fails.

    python -m tests.threats            make threats
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.threats.table import ROOT, Threat, threats


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a test, and what came of it."""

    file: str
    name: str  # of the function
    came: str  # "passed", "failed" or "skipped"


def run(tests: Sequence[str], jobs: int) -> list[Case]:
    """Run tests, each once, and return what came of each case."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), "-o", "junit_family=xunit1", f"--junitxml={report}"]
        subprocess.run([*command, *dict.fromkeys(tests)], cwd=ROOT, check=False)
        return [
            Case(case.get("file", ""), case.get("name", "").partition("[")[0], _came(case))
            for case in ElementTree.parse(report).iter("testcase")
        ]


def _came(case: ElementTree.Element) -> str:
    words = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    return next((word for tag, word in words.items() if case.find(tag) is not None), "passed")


def verdict(threat: Threat, cases: Sequence[Case]) -> tuple[str, Counter[str]]:
    """Return the word for a row, and how its cases came out."""
    counts: Counter[str] = Counter()
    if threat.untested:
        return "NO TEST", counts
    for test in threat.tests:
        of_it = [c.came for c in cases if c.file.startswith(test.path) and test.name in ("", c.name)]
        counts.update(of_it or ["failed"])  # what nobody has run shows nothing
    return "held" if not counts["failed"] and counts["passed"] else "BROKE", counts


def main(argv: list[str] | None = None) -> int:
    """Run all rows, or check alone that each has its tests."""
    parser = argparse.ArgumentParser(prog="python -m tests.threats", description="Run the threat model's table.")
    parser.add_argument("--list", action="store_true", help="only say which rows have no test")
    parser.add_argument("-n", "--jobs", type=int, default=2, help="processes (default 2)")
    args = parser.parse_args(argv)
    rows = threats()
    if args.list:
        without = [row for row in rows if row.untested]
        for row in without:
            print(f"NO TEST  {row.who}: {row.cannot}")
        print(f"{len(rows)} rows, {len(without)} without a test")
        return 1 if without else 0
    cases = run([str(test) for row in rows for test in row.tests if test.is_there], args.jobs)
    words = Counter[str]()
    for row in rows:
        word, counts = verdict(row, cases)
        words[word] += 1
        print(f"{word:8} {counts['passed']:5} passed {counts['failed']:3} failed  {row.who}: {row.cannot[:90]}")
    print(f"{len(rows)} rows: {words['held']} held, {words['BROKE']} broke, {words['NO TEST']} without a test")
    return 0 if words["held"] == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
