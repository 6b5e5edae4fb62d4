"""What `python -m tests.simulator` does with schedules."""

from __future__ import annotations

import argparse

from .many import everywhere, replayed, shortest, total
from .planted import BUGS
from .playing import Played
from .schedule import Schedule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what asks for schedules."""
    group = parser.add_argument_group("schedules", "short lives of two boards and a centre on a disk whose power is cut")
    group.add_argument("--schedules", type=int, default=0, metavar="N", help="play so many, from --seed on")
    group.add_argument("--every-write", action="store_true", help="cut the power of centre and board at each write of a quiet life")
    group.add_argument("--replay", default="", metavar="SCHEDULE", help="play one that was printed")
    group.add_argument("--planted", default="", choices=sorted(BUGS), help="with a bug that they must find")
    group.add_argument("--jobs", type=int, default=0, metavar="N", help="processes (default: one for each processor)")


def run(args: argparse.Namespace) -> int:
    """Play what was asked for; return 1 when a schedule failed, or when none found the bug that is planted."""
    if args.replay:
        one = replayed(Schedule.read(args.replay), bug=args.planted)
        print("\n".join([f"{one.schedule}", *_told(one), f"  digest {one.digest}"]))
        return int(bool(one.failures))
    if args.every_write:
        found = everywhere(seed=args.seed, jobs=args.jobs, progress=True)
    else:
        found = total(args.seed, args.schedules, bug=args.planted, jobs=args.jobs, progress=True, enough=int(bool(args.planted)))
    print("\n".join(found.lines()))
    for one in found.failed[:3]:
        print(f"seed {one.schedule.seed} fails:", *_told(one), sep="\n", flush=True)
        short = shortest(one, bug=args.planted)
        bug = f" --planted {args.planted}" if args.planted else ""
        left, had = len(short.schedule.troubles), len(one.schedule.troubles)
        print(f"  the shortest that was found has {left} of its {had} troubles:", *_told(short), sep="\n")
        print(f"  again: python -m tests.simulator{bug} --replay '{short.schedule}'")
    if args.planted:
        print(f"{args.planted}: {f'found by schedule {found.schedules}' if found.failed else 'not found'}")
        return int(not found.failed)
    return int(bool(found.failed))


def _told(one: Played) -> list[str]:
    return [f"  {what}" for what in one.failures] or ["  all is well"]
