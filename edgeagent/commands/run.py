"""`edgeagent run`: the service."""

from __future__ import annotations

import argparse
import random
import signal

from edgeagent import __version__
from edgeagent.board.sensors import Sensors
from edgeagent.link.certificate import OwnCertificate
from edgeagent.link.mqtt import MqttLink
from edgeagent.rounds.reports import as_document, as_text
from edgeagent.service.agent import Agent
from edgeagent.service.disk_wait import wait_at_start
from edgeagent.service.goal import Goal
from edgeagent.service.opener import opener
from edgeagent.settings.reading import Loaded
from edgeagent.state.folder import LOCK, open_folder
from edgeagent.system.clock import Clock
from edgecommon import disk
from edgecommon.arguments import only_with, whole
from edgecommon.printing import Answer, lines_of
from edgecommon.systemd import Systemd
from modelwire.errors import DiskUnwritable

from .answer import add_folder, load, seconds

NAME = "run"
HELP = "Run the service: connect, train when due, publish, until it is stopped; or until a number of rounds is done."
EXAMPLES = (
    "edgeagent run",
    "edgeagent run --dir /var/lib/edgeagent/agent --set link.resend=10s",
    "edgeagent run --once --timeout 2min",
    "edgeagent run --rounds 6 --pause 2s --timeout 5min --json",
    "edgeagent run --rounds 6 --fresh --set train.min_new_samples=100",
)


def add(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--once", action="store_true", help="one round of each model; end when its update is stored")
    group.add_argument(
        "--rounds", type=whole(1), metavar="N", help="end when each model has had N rounds since init and all its updates are verified"
    )
    parser.add_argument("--fresh", action="store_true", help="with --rounds: each round waits for train.min_new_samples new samples")
    parser.add_argument("--pause", type=seconds(), default=0.0, metavar="TIME", help="with --rounds: at least so long between two rounds")
    what = "give up after so long (default: never; --once: 5min)"
    parser.add_argument("--timeout", type=seconds(), default=0.0, metavar="TIME", help=what)
    add_folder(parser)
    only_with(parser, "--fresh", "--rounds")
    only_with(parser, "--pause", "--rounds")


def run(args: argparse.Namespace) -> Answer:
    goal = Goal(
        rounds=args.rounds, fresh=args.fresh, pause=args.pause, once=args.once, timeout=args.timeout or (300.0 if args.once else 0.0)
    )
    return serve(load(args), goal)


def serve(loaded: Loaded, goal: Goal) -> Answer:
    """Run the agent until its goal, SIGTERM or SIGINT, and say what it did. One that may wait waits for a disk that takes nothing more."""
    systemd = Systemd()
    try:
        while True:
            try:
                return _serve(loaded, goal, systemd)
            except (DiskUnwritable, OSError) as e:
                full = e if isinstance(e, DiskUnwritable) else disk.unwritable(e)
                if full is None or goal.publish or goal.timeout:
                    raise
                wait_at_start(full, loaded.state / LOCK, Clock(), say=systemd.starting)
    finally:
        systemd.stopping()


def _serve(loaded: Loaded, goal: Goal, systemd: Systemd) -> Answer:
    with open_folder(loaded, alone=True) as device:
        board = device.board
        link = MqttLink(device.settings.link, loaded.folder, f"{board.fleet}.{board.device}")
        models = opener(device, eager=not goal.publish)
        own = OwnCertificate(device.settings.link, loaded.folder, board.device)
        agent = Agent(
            device, link, models, __version__, rng=random.Random(), sensors=Sensors(zones=device.settings.board.thermal_zones),
            extractors=models.extractors, certificate=own, systemd=systemd,
        )  # fmt: skip
        stopped_by: list[int] = []

        def on_signal(number: int, frame: object) -> None:
            stopped_by.append(number)
            agent.stop(signal.Signals(number).name)

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            agent.run(goal)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        document = {
            "stopped": agent.stopping,
            "rounds": [as_document(r) for r in agent.reports],
            "models": [
                {
                    "name": name,
                    "rounds": lineage.head().rounds,
                    "version": lineage.head().version,
                    "verified": lineage.known()[0],
                    "stored": lineage.known()[1],
                    "waiting": len(lineage.outbox.waiting("queued", "offered")),
                    "lost": lineage.doubts.lost(confirmed=True),
                }
                for name, lineage in device.lineages.items()
            ],
        }
        text = lines_of(as_text(r) for r in agent.reports) if not goal.endless else ""
        return Answer(document, text, 130 if signal.SIGINT in stopped_by else 0)

