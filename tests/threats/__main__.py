"""Run the threat model: every row's tests. A row without a test fails.

    python -m tests.threats            make threats
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from tests.threats.table import ROOT, Shown, Threat, threats


def run(tests: list[Shown], jobs: int) -> dict[tuple[str, str], str]:
    """Run tests, each once, and return what came of each by file and function: "passed", "failed" or "skipped"."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), "-o", "junit_family=xunit1", f"--junitxml={report}"]
        subprocess.run([*command, *dict.fromkeys(map(str, tests))], cwd=ROOT, check=False)
        out: dict[tuple[str, str], str] = {}
        for case in ElementTree.parse(report).iter("testcase"):
            place = case.get("file", ""), case.get("name", "").partition("[")[0]
            came = {"failure": "failed", "error": "failed", "skipped": "skipped"}
            now = next((word for tag, word in came.items() if case.find(tag) is not None), "passed")
            if out.get(place) != "failed":
                out[place] = now
        return out


def verdict(threat: Threat, came: dict[tuple[str, str], str]) -> tuple[str, Counter[str]]:
    """Return the word for a row, and how its tests came out."""
    if threat.untested:
        return "NO TEST", Counter()
    counts: Counter[str] = Counter()
    for test in threat.tests:
        of_it = [c for (file, name), c in came.items() if file.startswith(test.path) and test.name in ("", name)]
        if not of_it:
            counts["failed"] += 1  # it was collected by nobody
        counts.update(of_it)
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
    came = run([test for row in rows for test in row.tests if test.is_there], args.jobs)
    words = Counter[str]()
    for row in rows:
        word, counts = verdict(row, came)
        words[word] += 1
        print(f"{word:8} {counts['passed']:5} passed {counts['failed']:3} failed  {row.who}: {row.cannot[:90]}")
    print(f"{len(rows)} rows: {words['held']} held, {words['BROKE']} broke, {words['NO TEST']} without a test")
    return 0 if words["held"] == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
