"""The power of an emulated board is cut while it trains, publishes and updates its system: how often, and how often that cost something.

    python -m tests.evidence.flash.cuts        what was done so far, and one cut more; FULL=1: thirty cuts and both bundles

The cuts of a run are kept in build/hw/cuts, and taken up there. Needs an image, root, qemu-system-aarch64, mtools, rauc and squashfs-tools.
"""

from __future__ import annotations

import json
import os
import sys

from hw.boot import __main__ as booting
from hw.boot.cuts import Ordeal
from tests.evidence.parts import Figures, alone

FEW, MANY = 10, 30


def measure(full: bool) -> Figures:
    """Return how many cuts there were, how many cost something, and whether a broken system was left by itself."""
    if why := booting.obstacle() or ("a system's files have owners: only root can change one" if os.geteuid() else ""):
        print(f"cuts: not measured: {why}", file=sys.stderr)
        return {}
    work = booting.ROOT / "build/hw/cuts"
    ordeal = Ordeal(booting.default_image(), work, 18)
    print(f"cuts: {json.dumps(ordeal.figures())} so far, in {work}", file=sys.stderr)
    ordeal.run(MANY if full else min(FEW, len(ordeal.rows) + 1), updates=full)
    return dict(ordeal.figures())


if __name__ == "__main__":
    alone("flash", "cuts", measure)
