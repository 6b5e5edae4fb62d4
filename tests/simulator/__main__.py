"""Run a simulated fleet, and say what became of every version; or play many short schedules, and cut down one that fails.

    python -m tests.simulator --updates 100000 --seed 1
    python -m tests.simulator --schedules 1000 --seed 1
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.conftest import MEMORY, in_memory
from tests.simulator.schedules import command as schedules
from tests.simulator.script import Script, scripted, shrunk
from tests.simulator.simulation import Report, simulate


def main(argv: list[str] | None = None) -> int:
    """Run it, print what came of it, and return 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description="Run a simulated fleet and audit all of its versions.")
    parser.add_argument("--updates", type=int, default=5000, help="updates that the fleet makes (default 5000)")
    parser.add_argument("--seed", type=int, default=1, help="of everything that happens (default 1)")
    parser.add_argument("--seeds", type=int, default=1, help="so many runs, each with the next seed")
    parser.add_argument("--devices", type=int, default=0, help="in the fleet (default: a fiftieth of the updates, at most 1000)")
    parser.add_argument("--boards", type=int, default=4, help="real agents among them (default 4)")
    parser.add_argument("--faults", type=int, help="planned faults (default: 20, and one every 100 updates, at most 120)")
    parser.add_argument("--rots", type=int, default=0, help="bits that flip in the bytes that the centre keeps")
    parser.add_argument("--shrink", action="store_true", help="look for a smaller script that fails, too")
    schedules.add_arguments(parser)
    args = parser.parse_args(argv)
    if args.schedules or args.replay or args.every_write:
        return schedules.run(args)
    failed = 0
    for seed in range(args.seed, args.seed + args.seeds):
        script = scripted(seed, args.updates, devices=args.devices, boards=args.boards, faults=args.faults, rots=args.rots)
        report = run(script, progress=True)
        print("\n".join(report.lines()), flush=True)
        if report.failures:
            failed = 1
            said = " ".join(f"--{name} {getattr(args, name)}" for name in ("updates", "devices", "boards", "rots") if getattr(args, name))
            said += f" --faults {args.faults}" if args.faults is not None else ""
            print(f"again: python -m tests.simulator --seed {seed} {said}")
            if args.shrink:
                print(f"the smallest that was found, to be simulated in a test: {shrunk(script, lambda one: bool(run(one).failures))!r}")
    return failed


def run(script: Script, *, progress: bool = False) -> Report:
    """Run a script in memory where that is possible."""
    with tempfile.TemporaryDirectory(prefix="simulator-", dir=MEMORY if in_memory() else None) as folder:
        return simulate(script, Path(folder) / "fleet", progress=progress)


if __name__ == "__main__":
    sys.exit(main())
