"""Two images from one commit have the same bytes, and how large an image is.

    python -m tests.evidence.flash.image         our own steps twice, Debian's part as it was kept; FULL=1: all of it twice, fetched anew

Needs root, mmdebstrap, qemu-user-static, squashfs-tools and mtools. Without them it says so and has no figures.
"""

from __future__ import annotations

import os
import sys

from hw import foreign
from hw.image import building, twice
from hw.image.targets import TARGETS
from tests.evidence.parts import Figures, alone

BOARD = "qemu-arm64"


def measure(full: bool) -> Figures:
    """Return image_reproducible (1 or 0) and sizes in MiB. full: Debian's part is fetched and installed twice, too."""
    why = "it needs root" if os.geteuid() != 0 else building.obstacle() or foreign.obstacle(TARGETS[BOARD].arch)
    if why:
        print(f"image: not measured: {why}", file=sys.stderr)
        return {}
    found = twice.compare(BOARD, fresh=full)
    names = {"image_system_mib": "root.squashfs", "image_initrd_mib": "initrd", "image_package_mib": "package"}
    return {"image_reproducible": int(found["equal"]), **{key: round(found["bytes"][name] / 2**20, 1) for key, name in names.items()}}


if __name__ == "__main__":
    alone("flash", "image", measure)
