"""Simulate a fleet for some days, audit all of its versions, and say what it came to; and what a million devices would for a month.

    python -m tests.simulator.fleet --devices 1000 --days 7 --link lte
    python -m tests.simulator.fleet --devices 10000 --days 7 --keep /tmp/fleet     # the size that the project promises
    make simulate DEVICES=10000 DAYS=7 LINK=lte
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from modelwire.errors import BadArgument, ModelWireError

from . import told
from .links import LINKS
from .paper import constants_of, foretold
from .script import FleetScript
from .simulated import FleetReport, simulated

OUT = Path("build/simulate")
TENTH, LEAST = 10, 30  # of the devices, in the run that foretells the whole one; and the fewest it has


def main(argv: list[str] | None = None) -> int:
    """Run it, print what came of it, and return 1 when a version is not exact or a device never got its answer."""
    args = _parser().parse_args(argv)
    try:
        script = FleetScript(args.devices, args.days, args.link, args.seed, rollout=not args.no_rollout)
        with nullcontext(_empty(args.keep)) if args.keep else tempfile.TemporaryDirectory(prefix="fleet-") as folder:
            said, failures = _run(args, script, Path(folder))
    except ModelWireError as error:
        print(f"{error.message}\nnext: {error.next_step}", file=sys.stderr)
        return 2
    print(json.dumps(said, indent=1) if args.json else "\n".join(told.lines(said)))
    for one in failures[:20]:
        print(f"FAILED: {one}", file=sys.stderr)
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulator.fleet", description="Simulate a fleet for some days, and audit all of its versions.",
        epilog="example: python -m tests.simulator.fleet --devices 1000 --days 7 --link nb-iot --json",
    )  # fmt: skip
    parser.add_argument("--devices", type=int, default=300, help="in the fleet (default 300)")
    parser.add_argument("--days", type=int, default=2, help="that it lives; each device makes a round a day (default 2)")
    parser.add_argument("--link", default="lte", help=f"of all devices: {', '.join(LINKS)} (default lte)")
    parser.add_argument("--seed", type=int, default=1, help="of everything that happens (default 1)")
    parser.add_argument("--no-rollout", action="store_true", help="roll no variant out meanwhile")
    parser.add_argument("--no-paper", action="store_true", help="leave out the run of a tenth that foretells this one, and the million")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for the registry, which stays: DIR/fleet.db")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="folder of the charts and figures (default build/simulate)")
    parser.add_argument("--no-charts", action="store_true", help="draw none")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def _run(args: argparse.Namespace, script: FleetScript, folder: Path) -> tuple[told.Figures, list[str]]:
    """Return the figures and the failures of a run, and of the smaller one before it."""
    small: FleetReport | None = None
    count = max(LEAST, script.devices // TENTH)
    if not args.no_paper and count < script.devices:
        print(f"first {count} devices, to foretell {script.devices}", file=sys.stderr)
        smaller = FleetScript(count, script.days, script.link, script.seed, rollout=script.rollout)
        with tempfile.TemporaryDirectory(prefix="fleet-") as beside:
            small = simulated(smaller, Path(beside), progress=True)
    run = simulated(script, folder, progress=True)
    said = told.figures(run)
    if small is not None:
        said["foretold"] = told.compared(foretold(constants_of(small), script.devices, script.days), run)
    if not args.no_paper:
        said["paper"] = told.on_paper(run, folder)
    said["kept"] = str(folder / "fleet.db") if args.keep else ""
    said["charts"] = told.charts(run, args.out) if not args.no_charts else []
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "simulate.json").write_text(json.dumps(said, indent=1) + "\n")
    return said, [*(small.failures if small is not None else ()), *run.failures]


def _empty(folder: Path) -> Path:
    """Return a folder that is there and empty. Raises BadArgument."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadArgument(reason=f"{folder} is there and not empty", fix="name a folder that is not there yet")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


if __name__ == "__main__":
    sys.exit(main())
