"""`make soak`: a fleet of real processes is killed, paused and slowed down for half an hour, and then both sides' lists must be equal.

    make soak                                 30 minutes
    make soak MINUTES=2 SEED=7                shorter, and another course of things
    python -m tests.soak --minutes 2 --agents 6 --real 2 --slow 3

mosquitto (it keeps nothing on disk, and 100 messages for a client), `edgecloud ingest`, and agents: `--real` of them are `edgeagent` with a
TFLite runtime, the others all of `edgeagent` but that. `--slow` of them reach the broker by a link that is slow, stalls and breaks. Broker,
ingester and agents are killed with SIGKILL, all three about equally often; after a third of the time the ingester is stopped for up to a
minute, and the broker's queue for it overflows. When the time is over, agents make no more updates, and send what waits.

The exit code is 0 when each version of each agent is at the centre once, verified, and rebuilt there to the very file that ran on the
agent; 1 when one is not, or a process ended that should not have. The fleet's folder with all logs then stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests import broker
from tests.soak.ordeal import Fallen, Outcome, Plan, endure
from tests.system import telling

FOLDER = Path("build/soak")
EVERY = 6.0  # seconds on the mean between two kills
FREEZE = 60.0  # seconds, at the most
QUEUE = 100
LONGEST = 10_000.0  # minutes: a week
NAMED = 20  # differences that are printed; the file has all
LOOK = """\
soak: {what}
  {folder}/fleet/ingester.log, {folder}/fleet/pi-N.log, {folder}/broker/mosquitto.log    what each one said
  edgecloud log pi-N --db {folder}/fleet/centre/fleet.db       what the centre holds, and what it refused
  edgeagent log --dir {folder}/fleet/devices/pi-N              what the device has made, and how far each version came
  the same course again: make soak MINUTES={minutes:g} SEED={seed}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Soak, show what came of it, and return 0 when nothing is lost, doubled or another."""
    args = _arguments(argv)
    if broker.program() is None:
        print(f"soak: {broker.MISSING}", file=sys.stderr)
        return 1
    folder: Path = args.folder.resolve()
    work = folder / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say, seconds = _clock(), 60.0 * args.minutes
    plan = Plan(
        agents=args.agents, seconds=seconds, kills=max(3, int(seconds / EVERY)), seed=args.seed, real=args.real, slow=args.slow,
        queue=QUEUE, freeze=min(FREEZE, seconds / 4), pause=0.25,
    )  # fmt: skip
    who = f"{plan.agents} agents, {plan.real} with a TFLite runtime, {plan.slow} behind a slow link"
    say(f"{who}; {args.minutes:g} minutes, seed {args.seed}")
    try:
        came = endure(work, plan, say)
    except KeyboardInterrupt:
        print(f"\nsoak: stopped by the keyboard; what there is lies in {work}", file=sys.stderr)
        return 130
    except Fallen as fallen:
        print(fallen, file=sys.stderr)
        print(LOOK.format(what="a process fell, or hung", folder=work, minutes=args.minutes, seed=args.seed), file=sys.stderr)
        return 1
    (folder / "soak.json").write_text(json.dumps(_document(came, args), indent=1) + "\n")
    if args.json:
        print(json.dumps(_document(came, args), indent=1))
    else:
        _show(came)
    if not came.books.balanced:
        print("\n".join(came.books.wrong[:NAMED]), file=sys.stderr)
        print(LOOK.format(what="the books do not balance", folder=work, minutes=args.minutes, seed=args.seed), file=sys.stderr)
        return 1
    shutil.rmtree(work)
    say(f"nothing is lost, doubled or another; wrote {folder / 'soak.json'}")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = os.environ
    parser.add_argument("--minutes", type=float, default=given.get("MINUTES") or "30", help="how long (default 30; MINUTES)")
    parser.add_argument("--seed", type=int, default=given.get("SEED") or "1", help="of all that is left to chance (default 1; SEED)")
    parser.add_argument("--agents", type=int, default=6, help="how many boards (default 6)")
    parser.add_argument("--real", type=int, default=2, help="of them train by a TFLite runtime (default 2)")
    parser.add_argument("--slow", type=int, default=3, help="of them are behind a slow link (default 3)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where all is kept (default {FOLDER})")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON document instead of a table")
    args = parser.parse_args(argv)
    few = args.agents < 1 or not 0 <= args.real <= args.agents or not 0 <= args.slow <= args.agents
    if few or not 0 < args.minutes <= LONGEST:
        parser.error(f"it takes 0 to {LONGEST:g} minutes and an agent at least; --real and --slow are at most as many as --agents")
    return args


def _clock() -> Callable[[str], None]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    return say


def _document(came: Outcome, args: argparse.Namespace) -> dict[str, object]:
    return {**came.figures(), "seed": args.seed, "minutes": args.minutes, "balanced": came.books.balanced, "wrong": came.books.wrong}


def _show(came: Outcome) -> None:
    rows = [(name.replace("_", " "), value) for name, value in came.figures().items()]
    telling.show(telling.table("the books of both sides", ("", "count"), rows))


if __name__ == "__main__":
    raise SystemExit(main())
