"""`edgeagent publish`: send what waits, and end when the centre holds it."""

from __future__ import annotations

import argparse

from edgeagent.service.goal import Goal
from edgeagent.state.folder import open_folder
from edgeagent.state.outcome import said as listed
from edgecommon.printing import Answer, lines_of

from .answer import add_folder, load, seconds
from .run import serve

NAME = "publish"
HELP = "Connect, let the centre welcome this device, send what waits, and end when all of it is stored there."
EXAMPLES = ("edgeagent publish", "edgeagent publish --timeout 30s --json", "edgeagent publish --new-epoch")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=seconds(), default=120.0, metavar="TIME", help="give up after so long (default: 2min)")
    what = "leave the history that the centre holds to others: what is served here goes on in a new epoch, as a snapshot"
    parser.add_argument("--new-epoch", action="store_true", help=what)
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    loaded = load(args)
    if args.new_epoch:
        with open_folder(loaded, alone=True) as device:
            device.renew_state()
    answer = serve(loaded, Goal(publish=True, timeout=args.timeout))
    lines = [f"{m['name']}: stored up to @{m['stored']}, verified up to @{m['verified']}" for m in answer.document["models"]]
    lines += [f"{m['name']}: lost at the centre: {listed(m['lost'])}, which it once held" for m in answer.document["models"] if m["lost"]]
    return Answer(answer.document, lines_of(lines), answer.code)
