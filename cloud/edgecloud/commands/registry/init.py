"""`edgecloud init`: a registry, and the fleet's keys beside it."""

from __future__ import annotations

import argparse

from edgecloud import keys
from edgecloud.registry import FILES_FROM, create_registry
from edgecloud.settings import registry_path
from edgecommon.printing import Answer
from modelwire.errors import BadArgument

from ..answer import Document, now

NAME = "init"
HELP = "Make a registry and the fleet's keys beside it."
EXAMPLES = ("edgecloud init --fleet orchard", "edgecloud init --db /var/lib/edgecloud/fleet.db")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fleet", default="fleet", help="name of the fleet, the first level of its topics (default: fleet)")
    parser.add_argument(
        "--files-from", type=int, default=FILES_FROM, metavar="BYTES",
        help=f"keep bases and updates of this size and more as files beside the registry (default: {FILES_FROM})",
    )  # fmt: skip


def run(args: argparse.Namespace) -> Answer:
    path = registry_path(args.db)
    if path.exists():
        raise BadArgument(reason=f"{path} is there already", fix="a registry is never overwritten; name another with --db")
    if not path.absolute().parent.is_dir():
        raise BadArgument(reason=f"{path.parent} is no folder", fix=f"mkdir -p {path.parent}")
    if args.files_from < 0:
        raise BadArgument(reason=f"{args.files_from} is no number of bytes", fix="write 0 or more after --files-from")
    key = keys.make_keys(path.absolute().parent)
    create_registry(path, fleet=args.fleet, public_key=key.public, now=now(), files_from=args.files_from)
    private, public = path.parent / keys.PRIVATE, path.parent / keys.PUBLIC
    document: Document = {
        "registry": str(path), "fleet": args.fleet, "private_key": str(private), "public_key_file": str(public), "public_key": key.public,
    }  # fmt: skip
    text = (
        f"registry     {path}\nfleet        {args.fleet}\nprivate key  {private}  (keep it secret, and keep a copy elsewhere)\n"
        f"public key   {public}  (give it to every board: edgeagent init --fleet-key {public.name})"
    )
    return Answer(document, text)
