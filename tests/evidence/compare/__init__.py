"""What comparing promises: search by sketches, feasibility of models for others, bias found and no false alarm, merges, intermediates.

Each part measures its own figures and can be run alone: python -m tests.evidence.compare.PART; FULL=1 for the sizes of the promise.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module

PARTS: tuple[str, ...] = ("nearest", "cohorts", "intermediates", "feasibility", "matrix", "bias", "merging")
Figures = dict[str, int | float | str]


def measure(full: bool) -> Figures:
    """Return the figures of all parts. full: the sizes that the promise names, which take long."""
    figures: Figures = {}
    for part in PARTS:
        started = time.monotonic()
        print(f"{part}: measuring", file=sys.stderr)
        figures |= import_module(f"{__name__}.{part}").measure(full)
        print(f"{part}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return figures
