"""`edgecloud restore`: a backup becomes the registry."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud import keys
from edgecloud.registry.backup import restore
from edgecloud.settings import registry_path
from edgecommon.printing import Answer, lines_of

from ..answer import Document, progress, registry_of

NAME = "restore"
HELP = "Put a backup in the place of the registry."
EXAMPLES = ("edgecloud restore monday.db --db fleet.db --force",)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("backup", metavar="BACKUP", help="file that `edgecloud backup` wrote")
    parser.add_argument("--force", action="store_true", help="move a registry that is there aside")


def run(args: argparse.Namespace) -> Answer:
    source, target = Path(args.backup), registry_path(args.db)
    aside = restore(source, target, progress=progress("pages"), replace=args.force)
    with registry_of(args, readonly=False) as store:  # a copy of an older release's is brought to this one
        fleet, identity = store.fleet, store.identity
    document: Document = {"registry": str(target), "backup": str(source), "fleet": fleet, "replaced": str(aside) if aside else None}
    lines = [f"{target}: restored from {source}, integrity ok"]
    if aside:
        lines.append(f"the registry before it lies in {aside}")
    lines.append("what boards have sent since this copy was made is not in it: each tells by number what is lost, when it says hello;")
    lines.append("edgecloud devices lists that, and a snapshot of what the board has now comes by itself")
    missing = [name for name in keys.SECRET if not (target.parent / name).exists()]
    document["keys_missing"] = missing
    if missing:
        lines.append(f"the fleet's keys are not in a backup: put {', '.join(missing)} to {target.parent} (fleet id {identity.id.hex()})")
    return Answer(document, lines_of(lines))
