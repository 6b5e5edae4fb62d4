"""Makes a flashable image: python -m hw.image --board qemu-arm64

    build/hw/image/BOARD/disk.img       the card: boot partition, system A, room for system B, data; write it with dd or an imager
                         vmlinuz, initrd   the same as on the boot partition, for an emulator
                         root.squashfs     the system, as it goes into a slot or a bundle
                         image.json        what was made, of what, how large, how long each step took
                         sbom.cdx.json     all that is in it (CycloneDX), and sources.json: what it was made from, with hashes

The same commit, the same Debian: the same bytes. Needs root, mmdebstrap, qemu-user-static, squashfs-tools, mtools, dosfstools.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hw import foreign

from . import building
from .disk import CardTooSmall
from .targets import TARGETS

EXAMPLE = "example: python -m hw.image --board qemu-arm64"


def main(arguments: Sequence[str] | None = None) -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="hw.image", description=__doc__, epilog=EXAMPLE, formatter_class=shape)
    parser.add_argument("--board", required=True, choices=TARGETS, help="the board that it is for")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: build/hw/image/BOARD)")
    parser.add_argument("--deb", type=Path, metavar="FILE", help="the agent's package (default: made now, by hw.deb)")
    parser.add_argument("--no-agent", action="store_true", help="leave the agent out, to try the system alone")
    parser.add_argument("--fresh", action="store_true", help="fetch Debian's part anew; its last one is kept in HW_CACHE")
    args = parser.parse_args(arguments)
    target = TARGETS[args.board]
    if os.geteuid() != 0:
        print("hw.image: a system has files of more than one owner: run it as root", file=sys.stderr)
        return 1
    if reason := building.obstacle() or foreign.obstacle(target.arch):
        print(f"hw.image: {reason}", file=sys.stderr)
        return 1
    out = args.out or building.ROOT / "build/hw/image" / target.name
    try:
        building.build(target, out, deb=args.deb, agent=not args.no_agent, fresh=args.fresh)
    except (RuntimeError, LookupError, CardTooSmall, OSError) as error:
        print(f"hw.image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
