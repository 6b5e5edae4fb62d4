"""`python -m hw.deb`: Debian packages of agent and centre in build/deb."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edgecommon import __version__
from hw.foreign import CannotRun

from .building import build, digest
from .running import NotMade
from .targets import ARCHITECTURES, MADE, OUT

EPILOG = """examples:
  python -m hw.deb
  python -m hw.deb --arch arm64 --package edgeagent
"""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hw.deb", description="Build Debian 12 packages; the same commit gives the same bytes.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), help="for this architecture alone")
    parser.add_argument("--package", choices=sorted(MADE), help="this package alone")
    parser.add_argument("--version", default=__version__, metavar="V", help="another version, to try an upgrade (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="where to (default: build/deb)")
    args = parser.parse_args(words)
    wanted = [(name, a) for name, made in MADE.items() for a in made if args.package in (None, name) and args.arch in (None, a)]
    try:
        for name, architecture in wanted:
            began = time.monotonic()
            print(f"{name} for {architecture} ...", file=sys.stderr, flush=True)
            made = build(name, architecture, version=args.version, out=args.out)
            size = made.stat().st_size
            print(f"{made}  {size:,} bytes  {time.monotonic() - began:.0f} s  sha256:{digest(made)}", flush=True)
    except (NotMade, CannotRun) as error:
        print(f"python -m hw.deb: {error}", file=sys.stderr)
        return 1
    return 0 if wanted else 2


if __name__ == "__main__":
    sys.exit(main())
