"""`python -m hw.deb.trial`: install, train, publish, upgrade in the middle of a round, remove and purge, in a root of an architecture."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hw import foreign

from ..building import build
from ..running import NotMade
from ..targets import ARCHITECTURES, MADE
from . import centre
from .course import tried


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hw.deb.trial", description=__doc__, epilog="example: sudo python -m hw.deb.trial --arch arm64"
    )
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), required=True, help="of the root and of the package")
    parser.add_argument("--package", choices=sorted(MADE), default="edgeagent", help="which one (default: %(default)s)")
    parser.add_argument("--deb", type=Path, metavar="FILE", help="try this package (default: one built now)")
    parser.add_argument("--json", action="store_true", help="print what was seen as one JSON document")
    args = parser.parse_args(words)
    try:
        if why := foreign.obstacle(args.arch):
            raise NotMade(why)
        package = args.deb or build(args.package, args.arch)
        course = tried if args.package == "edgeagent" else centre.tried
        with tempfile.TemporaryDirectory(prefix="edge-trial-") as folder:
            trial = course(package, args.arch, Path(folder), lambda line: print(line, file=sys.stderr, flush=True))
    except (NotMade, foreign.CannotRun) as error:
        print(f"python -m hw.deb.trial: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({"architecture": trial.architecture, "seconds": trial.seconds, "seen": trial.seen}, indent=1))
    elif "equal" in trial.seen:
        print(trial.seen["doctor"])
        print(f"{trial.architecture}: upgraded at {trial.seen['interrupted']}; the same bits as an uninterrupted twin and as the centre's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
