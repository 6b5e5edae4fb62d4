"""The pages of a firmware team, typed: how many files hw/porting.md installs, and what the ways of docs/board-setup.md cost."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from hw import foreign, paths, porting, roots
from tests import broker
from tests.evidence.parts import Figures, alone


def measure(full: bool) -> Figures:
    """Return how many files a root holds by the page, all of them listed on it, for this machine's processor.

    full: for arm64 as well, where the agent runs in a Debian whose root can't be written; and bytes and seconds from an empty Debian to
    doctor's word, of each way of setting up. Left out, and said, where they can't be had.
    """
    own = next((target for target in porting.TARGETS.values() if not target.foreign), None)
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="flash-pages-") as name:
        folder = Path(name)
        if own is None:
            print("pages: this machine's processor is none that the page is tried for", file=sys.stderr)
        else:
            figures["porting_files"] = porting.ported(own, folder / own.arch, here=True)
        if not full:
            return figures
        missing = foreign.obstacle("arm64") or (os.geteuid() and "not root") or ("" if shutil.which("mmdebstrap") else "no mmdebstrap")
        if missing:
            print(f"pages: no Debian can be made here: {missing}", file=sys.stderr)
            return figures
        figures["porting_files_arm64"] = porting.ported(porting.TARGETS["arm64"], folder / "arm64", here=False)
        if own is None or broker.program() is None:
            return figures
        roots.archive(own.arch)  # not a step of the page
        for way in paths.WAYS.values():
            cost = paths.typed(way, own.arch, folder / way.name)
            figures |= {f"{way.name}_fetched_mb": round(cost.fetched / 1e6, 1), f"{way.name}_on_disk_mb": round(cost.on_disk / 1e6, 1)}
            figures[f"{way.name}_to_doctor_s"] = round(sum(cost.seconds.values()), 1)
    return figures


if __name__ == "__main__":
    alone("flash", "pages", measure)
