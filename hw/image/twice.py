"""Makes an image twice from one commit, all of it anew, and compares: python -m hw.image.twice --board qemu-arm64

Debian's part is fetched and installed twice, the agent's package is built twice.
Exit code 1 where a byte differs, 2 where no image can be made.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hw import foreign
from hw.deb import building as deb

from . import building
from .targets import TARGETS


def compare(board: str, *, fresh: bool = True, package: Path | None = None) -> dict[str, Any]:
    """Return whether two builds are equal, the SHA-256 of each file in both, and its bytes. Raises as building.build does.

    fresh: Debian's part is fetched twice; else it is taken as it was kept. package: the agent's, made already; else it is built twice.
    """
    target = TARGETS[board]
    place = building.ROOT / "build/hw/twice"
    place.mkdir(parents=True, exist_ok=True)
    sums: list[dict[str, str]] = []
    os.environ["SOURCE_DATE_EPOCH"] = str(building.commit_time())  # whatever is committed meanwhile
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for name in ("first", "second"):
            built = package or deb.build("edgeagent", target.arch, out=Path(folder, f"{name}-deb"))
            made = building.build(target, Path(folder, name), deb=built, fresh=fresh)
            sums.append(made["sha256"])
            sizes = made["bytes"]
            shutil.rmtree(Path(folder, name))
    files = {name: [one[name] for one in sums] for name in sums[0]}
    return {"board": board, "commit": building.commit(), "equal": all(a == b for a, b in files.values()), "sha256": files, "bytes": sizes}


def main(arguments: Sequence[str] | None = None) -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="hw.image.twice", description=__doc__, formatter_class=shape)
    parser.add_argument("--board", default="qemu-arm64", choices=TARGETS, help="the board that it is for (default: %(default)s)")
    parser.add_argument("--kept", action="store_true", help="take Debian's part from HW_CACHE: compares our own steps, in minutes")
    parser.add_argument("--deb", type=Path, metavar="FILE", help="the agent's package (default: built twice)")
    args = parser.parse_args(arguments)
    if reason := building.obstacle() or foreign.obstacle(TARGETS[args.board].arch):
        print(f"hw.image.twice: {reason}", file=sys.stderr)
        return 2
    found = compare(args.board, fresh=not args.kept, package=args.deb)
    (building.ROOT / "build/hw/twice.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, (first, second) in found["sha256"].items():
        print(f"{name:<16}{first}  {'equal' if first == second else f'DIFFERS: {second}'}")
    return 0 if found["equal"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
