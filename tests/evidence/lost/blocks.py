"""Block-level power cuts: crash states of a board's and a centre's disks, recorded under QEMU, of which each must open and agree.

    python -m tests.evidence.lost.blocks           30 states
    FULL=1 python -m tests.evidence.lost.blocks    1,000 states

Beside them, on disks that lie about their flushes: how many were told by name, mended without a word, or lost without one.
"""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests.evidence.parts import Figures, alone
from tests.power.states import SIDES, crashes, missing, moments
from tests.power.trace import load

FEW, MANY = 30, 1000
LYING = 12  # one lying state beside so many honest ones


def measure(full: bool) -> Figures:
    """Return the figures. full: 1,000 states."""
    if missing():
        return {"crash_states_missing": f"not measured: {', '.join(missing())} is not here (Debian: e2fsprogs)"}
    count, began, bad = MANY if full else FEW, time.monotonic(), 0
    for one in crashes([(moment, i, ()) for i, moment in enumerate(moments(load(), count))]):
        bad += bool(one.bad)
        for text in one.bad[:3]:
            print(f"moment {one.moment} seed {one.seed}: {text}", file=sys.stderr, flush=True)
    took = time.monotonic() - began
    figures: Figures = {"crash_states": count, "crash_states_bad": bad, "crash_states_a_minute": round(60 * count / took)}
    return figures | _lying(max(6, count // LYING))


def _lying(count: int) -> Figures:
    """Let the board's disk lie, the centre's, or both; nothing is promised then, and what came of it is counted."""
    came, sides = Counter[str](), (("board",), ("centre",), SIDES)
    for one in crashes([(moment, i, sides[i % 3]) for i, moment in enumerate(moments(load(), count, seed=2))]):
        came["fault" if one.fault else "named" if one.named else "silent" if one.bad else "whole"] += 1
        if one.fault:
            print(f"moment {one.moment} seed {one.seed}, lying: {one.fault}", file=sys.stderr, flush=True)
    return {"lying_states": count, **{f"lying_{what}": came[what] for what in ("whole", "named", "silent", "fault")}}


if __name__ == "__main__":
    alone("lost", "blocks", measure)
