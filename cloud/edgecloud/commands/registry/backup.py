"""`edgecloud backup`: a copy of the registry while it is in use."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecloud import keys
from edgecloud.registry.backup import backup
from edgecloud.registry.encrypted import backup_encrypted, read_recipients
from edgecloud.settings import registry_path
from edgecommon.printing import Answer

from ..answer import Document, progress, sentences

NAME = "backup"
HELP = "Copy the registry as of one moment while it is in use."
EXAMPLES = (
    "edgecloud backup monday.db", "edgecloud backup monday.db --db fleet.db --force", "edgecloud backup monday.age --encrypt-to backup.pub",
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="file to write")
    parser.add_argument("--force", action="store_true", help="replace OUT when it is there")
    parser.add_argument(
        "--encrypt-to", action="append", default=[], metavar="KEY",
        help="only the holder of its private key can read the backup: age1..., or a file with such lines; more than one may be named",
    )  # fmt: skip


def run(args: argparse.Namespace) -> Answer:
    source, target = registry_path(args.db), Path(args.out)
    if args.encrypt_to:
        recipients = read_recipients(args.encrypt_to)
        size = backup_encrypted(source, target, recipients, progress=progress("pages"), replace=args.force)
    else:
        size = backup(source, target, progress=progress("pages"), replace=args.force)
    document: Document = {
        "registry": str(source), "backup": str(target), "bytes": size, "integrity": "ok", "keys_included": False,
        "encrypted": bool(args.encrypt_to),
    }  # fmt: skip
    secret = ", ".join(keys.SECRET)
    lines = [f"{target}: {size} bytes, integrity ok", f"The fleet's keys are not in it: keep a copy of {secret} apart."]
    if args.encrypt_to:
        lines.append("Only the private keys of --encrypt-to open it: edgecloud restore --backup-key FILE, or the program age.")
    return Answer(document, sentences(lines))
