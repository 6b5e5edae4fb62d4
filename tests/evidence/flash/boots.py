"""The image boots in an emulator and does the main job: time from power on to the first verified version, memory of the agent on the board.

    python -m tests.evidence.flash.boots       to the first verified version; FULL=1: every mode of training, and what each takes

Needs an image (make image BOARD=qemu-arm64), qemu-system-aarch64, mtools and squashfs-tools. Without them it says so and has no figures.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hw.boot import __main__ as booting
from tests.evidence.parts import Figures, alone

KEYS = ("boot_to_verified_s", "boot_to_verified_features_s", "rss_idle_mib", "rss_features_mib", "rss_all_mib", "pss_all_mib", "file_equal")


def measure(full: bool) -> Figures:
    """Return time to the first verified version and, at full size, memory. full: all modes of training."""
    if why := booting.obstacle():
        print(f"boots: not measured: {why}", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as name:
        figures = booting.boot(booting.default_image(), Path(name), short=not full)
    return {key: figures[key] for key in KEYS if key in figures}


if __name__ == "__main__":
    alone("flash", "boots", measure)
