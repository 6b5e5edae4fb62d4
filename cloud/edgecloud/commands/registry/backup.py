"""`edgecloud backup`: a copy of the registry while it is in use."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud import keys
from edgecloud.registry.backup import backup
from edgecloud.settings import registry_path
from edgecommon.printing import Answer, lines_of

from ..answer import Document, progress

NAME = "backup"
HELP = "Copy the registry as of one moment while it is in use."
EXAMPLES = ("edgecloud backup monday.db", "edgecloud backup monday.db --db fleet.db --force")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="file to write")
    parser.add_argument("--force", action="store_true", help="replace OUT when it is there")


def run(args: argparse.Namespace) -> Answer:
    source, target = registry_path(args.db), Path(args.out)
    size = backup(source, target, progress=progress("pages"), replace=args.force)
    document: Document = {"registry": str(source), "backup": str(target), "bytes": size, "integrity": "ok", "keys_included": False}
    secret = ", ".join(keys.SECRET)
    lines = [f"{target}: {size} bytes, integrity ok", f"The fleet's keys are not in it: keep a copy of {secret} apart."]
    return Answer(document, lines_of(lines))
