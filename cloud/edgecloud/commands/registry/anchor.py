"""`edgecloud anchor`: where the registry's log ends, written to another place."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud.audit import anchors
from edgecommon.printing import Answer
from modelwire.errors import BadArgument

from ..answer import Document, now, registry_of

NAME = "anchor"
HELP = "Write where the log ends to a file elsewhere, or to standard output for another host; verify and restore take the file."
EXAMPLES = (
    "edgecloud anchor /mnt/elsewhere/fleet.anchors",
    "edgecloud anchor -",
    "edgecloud anchor /mnt/elsewhere/fleet.anchors --restored",
)


def add(parser: argparse.ArgumentParser) -> None:
    what = "a line is added to it, with all that was sealed since the last one; - prints the line, for: | ssh HOST 'cat >> FILE'"
    parser.add_argument("out", metavar="FILE", help=what)
    parser.add_argument(
        "--restored", action="store_true", help="the lines before it count no more: you know that an older backup was restored"
    )


def run(args: argparse.Namespace) -> Answer:
    path = None if args.out == "-" else Path(args.out)
    with registry_of(args) as store:
        held = anchors.read(path, store.identity.id) if path is not None and path.exists() else []
        missed = [] if args.restored else anchors.missed(store, held)
        if missed:
            fix = "edgecloud verify --anchor FILE tells more; if you restored an older backup, say --restored"
            raise BadArgument(reason=missed[0], fix=fix)
        one = anchors.anchor(store, now(), held[-1] if held else None, restored=args.restored)
    if path is None:
        return Answer({"line": one.line()}, one.line())
    anchors.append(path, one)
    document: Document = {"anchors": str(path), "number": one.link.number, "link": one.link.digest, "sealed": len(one.sealed)}
    return Answer(document, f"{path}: the log ends at entry {one.link.number}, {one.link.digest.hex()}")
