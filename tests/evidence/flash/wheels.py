"""How many wheels are built, checked and run on a Debian of their processor, and whether their kernels compute the same on all of them.

With FULL=1 each is built a second time in another folder, the same bytes or it fails, and the kernels' slow tests run there, too.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from hw import foreign
from hw.roots import cache
from hw.wheels.__main__ import Run, agreement
from hw.wheels.targets import TARGETS
from tests.evidence.parts import Figures, alone


def measure(full: bool) -> Figures:
    """Return the figures; none where wheels can't be built and run, and says why."""
    if why := missing():
        print(f"wheels: not measured here: {why}", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=cache()) as folder:
        run = Run(Path(folder), Path(folder) / "out")
        run.configuration()
        run.build(list(TARGETS.values()), twice=full)
        run.try_all(every=full)
        sizes = {f"wheel_bytes_{machine}": wheel.stat().st_size for (machine, libc), wheel in run.wheels.items() if libc == "glibc"}
        built = len(run.wheels)
    equal, count = agreement([one.digests for one in run.tried])
    figures: Figures = {"wheels": len(run.tried), "wheels_built": built, **sizes}
    figures |= {"wheel_hashes": count, "wheel_hashes_equal": equal / count}
    for one in run.tried:
        figures[f"installed_bytes_{one.machine}"] = one.own
        figures[f"wheel_tests_{one.machine}"] = one.passed
        # Of an emulator these say nothing of a board, so they are not called by its name.
        suffix = f"{one.machine}{'_emulated' * one.emulated}"
        figures[f"import_ms_{suffix}"], figures[f"version_ms_{suffix}"] = round(one.import_ms), round(one.version_ms)
    return figures


def missing() -> str:
    """Return what this machine lacks; empty where all is there."""
    if os.geteuid():
        return "the boards' files have owners: it needs root"
    for program in ("mmdebstrap", *(target.compiler for target in TARGETS.values())):
        if shutil.which(program) is None:
            return f"no {program}"
    return next((why for target in TARGETS.values() if (why := foreign.obstacle(target.debian))), "")


if __name__ == "__main__":
    alone("flash", "wheels", measure)
