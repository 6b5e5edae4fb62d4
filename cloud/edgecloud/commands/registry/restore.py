"""`edgecloud restore`: a backup becomes the registry."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud import keys
from edgecloud.registry.backup import restore
from edgecloud.registry.encrypted import is_encrypted, read_identities, restore_encrypted
from edgecloud.settings import from_environment, registry_path
from edgecommon.printing import Answer, lines_of
from modelwire.errors import BadArgument

from ..answer import Document, progress, registry_of

NAME = "restore"
HELP = "Put a backup in the place of the registry."
EXAMPLES = (
    "edgecloud restore monday.db --db fleet.db --force", "edgecloud restore monday.age --backup-key backup.key --db fleet.db --force",
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("backup", metavar="BACKUP", help="file that `edgecloud backup` wrote")
    parser.add_argument("--force", action="store_true", help="move a registry that is there aside")
    parser.add_argument("--backup-key", metavar="FILE", help="private key of an encrypted backup; EDGECLOUD_BACKUP_KEY")


def run(args: argparse.Namespace) -> Answer:
    source, target = Path(args.backup), registry_path(args.db)
    key = args.backup_key or from_environment("BACKUP_KEY", "")
    if is_encrypted(source):
        if not key:
            raise BadArgument(reason=f"{source} is an encrypted backup", fix="name its private key with --backup-key")
        identities = read_identities(Path(key))
        aside = restore_encrypted(source, target, identities, progress=progress("pages"), replace=args.force)
    elif args.backup_key:  # somebody may have put another one in its place
        raise BadArgument(reason=f"{source} is not encrypted, and --backup-key says that it is", fix="leave --backup-key out if that is so")
    else:
        aside = restore(source, target, progress=progress("pages"), replace=args.force)
    with registry_of(args, readonly=False) as store:  # a copy of an older release's is brought to this one
        fleet, identity = store.fleet, store.identity
    document: Document = {"registry": str(target), "backup": str(source), "fleet": fleet, "replaced": str(aside) if aside else None}
    lines = [f"{target}: restored from {source}, integrity ok"]
    if aside:
        lines.append(f"the registry before it lies in {aside}")
    missing = [name for name in keys.SECRET if not (target.parent / name).exists()]
    document["keys_missing"] = missing
    if missing:
        lines.append(f"the fleet's keys are not in a backup: put {', '.join(missing)} to {target.parent} (fleet id {identity.id.hex()})")
    return Answer(document, lines_of(lines))
