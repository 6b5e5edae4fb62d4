"""`python -m hw.deb.trial`: install, train, publish, upgrade in the middle of a round, remove and purge, in a root of an architecture.

With --systemd: both packages in one Debian whose PID 1 is systemd, by their real units.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hw import foreign

from ..building import build
from ..running import NotMade
from ..targets import ARCHITECTURES, MADE, OWN
from . import booted, centre
from .course import tried


def main(words: Sequence[str] | None = None) -> int:
    example = "examples: sudo python -m hw.deb.trial --arch arm64; sudo python -m hw.deb.trial --systemd"
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m hw.deb.trial", description=__doc__, epilog=example, formatter_class=shape)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--arch", choices=sorted(ARCHITECTURES), help="of the root and of the package")
    kind.add_argument("--systemd", action="store_true", help="boot a Debian of this machine's own")
    parser.add_argument("--package", choices=sorted(MADE), default="edgeagent", help="which one (default: %(default)s)")
    parser.add_argument("--deb", type=Path, metavar="FILE", help="of --arch: try this package (default: one built now)")
    parser.add_argument("--json", action="store_true", help="print what was seen as one JSON document")
    args = parser.parse_args(words)
    if args.systemd:
        return _booted(args.json)
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


def _booted(as_json: bool) -> int:
    """Live a life under systemd, a line for each check; return 0 where all hold."""
    own = OWN.get(os.uname().machine, "")
    try:
        if own not in MADE["edgecloud"]:
            raise NotMade("both packages are made for amd64 and arm64")
        if why := booted.obstacle(own):
            raise NotMade(why)
        with tempfile.TemporaryDirectory(prefix="edge-life-") as folder:
            packages = {name: build(name, own, out=Path(folder, "deb"), packing="none") for name in ("edgecloud", "edgeagent")}
            life = booted.lived(packages, own, Path(folder), lambda line: print(line, file=sys.stderr, flush=True))
    except (NotMade, foreign.CannotRun) as error:
        print(f"python -m hw.deb.trial: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps({"checks": len(life.checks), "failed": life.failed, "seen": life.seen}, indent=1))
    else:
        print(f"{len(life.checks)} checks under {life.seen['systemd']}, {len(life.failed)} failed")
    return 1 if life.failed else 0


if __name__ == "__main__":
    sys.exit(main())
