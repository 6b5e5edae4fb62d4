"""A board's own troubles: how many ways were tried, named, got over or asked about, and what became of the centre's versions.

    python -m tests.evidence.lost.troubles          half of the ways and 10 flipped bits; FULL=1: all of them, and 100
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

from edgeagent.troubles.table import TABLE
from tests.evidence.parts import Figures, alone
from tests.system import troubles
from tests.system.troubles import CASES


def measure(full: bool) -> Figures:
    """Return the figures. full: each way, and any bit of any file a hundred times."""
    logging.disable(logging.CRITICAL)  # the boards say a lot, each time
    try:
        return _ways(full) | _flips(100 if full else 10)
    finally:
        logging.disable(logging.NOTSET)


def _ways(full: bool) -> Figures:
    named = alone = asked = wrong = changed = 0
    cases = CASES if full else CASES[::2]
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            made = troubles.measure(Path(folder), case)
        well = made.named == ({case.id} if case.id else set()) and made.sound
        named, alone, asked = named + bool(made.named), alone + made.alone, asked + made.asked
        changed += made.overwritten + made.doubled + made.taken_back
        wrong += not well
        print(f"  {case.name}: {'got over' if made.alone else 'asked'}{'' if well else f', NOT WELL: {made}'}", file=sys.stderr)
    return {
        "troubles": len(TABLE), "trouble_ways": len(cases), "troubles_named": named, "troubles_recovered": alone, "troubles_asked": asked,
        "troubles_wrong": wrong, "trouble_versions_overwritten": changed,
    }  # fmt: skip


def _flips(count: int) -> Figures:
    unnamed = touched = silent = 0
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            made = troubles.flipped(Path(folder), 1000 + seed)
        unnamed, touched, silent = unnamed + bool(made.unnamed), touched + made.touched, silent + made.silent
        if made.unnamed or made.touched or made.silent:
            print(f"  {made}", file=sys.stderr)
    return {
        "board_bits_flipped": count, "board_flips_unnamed": unnamed, "board_flips_silent": silent, "board_flips_overwritten": touched,
    }  # fmt: skip


if __name__ == "__main__":
    alone("lost", "troubles", measure)
