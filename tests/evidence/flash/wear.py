"""Bytes that a day of four trainings and twenty-four publishes writes to the disk, counted block by block on an ext4 file system.

    python -m tests.evidence.flash.wear             FULL=1: three days of each

It needs root and a loop device: where it can't have them it leaves the figures out.
"""

from __future__ import annotations

import sys

from tests.evidence.parts import Figures, alone
from tests.wear import loop
from tests.wear.day import measured

PROMISED = 20.0  # MB


def measure(full: bool) -> Figures:
    """Return the figures, in MB (10^6 bytes) a day: of the worst day. full: three days."""
    if lacking := loop.lacking():
        print(f"  left out: {lacking}", file=sys.stderr)
        return {}
    figures: Figures = {}
    for name, board, words in CASES:
        said = measured(board, "--days", "3" if full else "1", *words)
        figures[f"written_mb_a_day_{name}"] = round(max(said["bytes"]) / 1e6, 2)
        for part, size in sorted(said["parts"].items()):
            figures[f"written_mb_a_day_{name}_{part}"] = round(size / 1e6, 2)
    figures["written_mb_a_day"] = max(float(figures["written_mb_a_day_digits"]), float(figures["written_mb_a_day_last3"]))
    figures["written_mb_promised"] = PROMISED
    return figures


# digits_24: an update leaves each hour, twenty of them snapshots that the operator asks for.
CASES = (("digits", "digits", ()), ("digits_24", "digits", ("--snapshots",)), ("last3", "last3", ()))

if __name__ == "__main__":
    alone("flash", "wear", measure)
