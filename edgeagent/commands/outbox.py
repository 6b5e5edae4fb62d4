"""`edgeagent outbox`: what waits for the centre, and what can be done about it."""

from __future__ import annotations

import argparse

from edgeagent.state.folder import LOCK, open_folder
from edgecommon import files
from edgecommon.arguments import given, rule
from edgecommon.printing import Answer, lines_of
from edgecommon.tables import Column, add_limit, more, most, table

from .answer import add_folder, chosen, load, short

NAME = "outbox"
HELP = "List what waits for the centre, newest first; send it again now; or make all updates that never left into one."
EXAMPLES = ("edgeagent outbox", "edgeagent outbox list digits --json", "edgeagent outbox retry", "edgeagent outbox coalesce digits")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", default="list", choices=("list", "retry", "coalesce"), help="(default: list)")
    parser.add_argument("model", nargs="*", metavar="MODEL", help="which models (default: all)")
    add_limit(parser)
    add_folder(parser)
    rule(parser, lambda args: f"--limit does nothing beside {args.action}" if given(args, "--limit") and args.action != "list" else "")


def run(args: argparse.Namespace) -> Answer:
    loaded = load(args)
    if args.action == "coalesce":
        with open_folder(loaded, alone=True) as device:
            done = {m.name: m.coalesce() for m in chosen(device, args.model)}
            heads = {name: device.lineages[name].head().version for name in done}
        lines = [f"{n}: {len(c) + 1} updates became @{heads[n]}" if c else f"{n}: nothing to join" for n, c in done.items()]
        return Answer({"carried": done}, lines_of(lines))
    with open_folder(loaded, alone=False) as device:
        lineages = chosen(device, args.model)
        if args.action == "retry":
            for m in lineages:
                m.plans.release()
            device.nudge()
            running = files.holder(loaded.state / LOCK) is not None
            text = "the agent sends again what has no receipt" if running else "everything goes again when the agent starts"
            return Answer({"agent_running": running}, text)
        rows = [(m.name, w) for m in lineages for w in reversed(m.outbox.waiting())]
    held = len(rows)
    rows = rows[: most(args)]
    document = [
        {
            "model": name, "version": w.version, "epoch": w.epoch, "state": w.state, "kind": w.kind, "bytes": w.size,
            "commit": w.commit.hex(), "parent": w.parent.hex(),
        }
        for name, w in rows
    ]  # fmt: skip
    cells = [(n, f"@{w.version}", w.state, w.kind, w.size, short(w.commit), short(w.parent)) for n, w in rows]
    text = table(_HEAD, cells) if rows else "nothing waits"
    return Answer({"waiting": document, "more": held - len(rows)}, lines_of([*text.split("\n"), *filter(None, [more(held - len(rows))])]))


_HEAD = (
    Column("model"), Column("version"), Column("state"), Column("kind", 2), Column("bytes", 1), Column("commit", 3), Column("parent", 4),
)  # fmt: skip
