"""`edgecloud init`: a registry, the fleet's keys beside it, and its first trust record."""

from __future__ import annotations

import argparse

from edgecloud import keys
from edgecloud.registry import FILES_FROM, TrustRow, create_registry
from edgecloud.settings import registry_path
from edgecommon.arguments import whole
from edgecommon.printing import Answer
from modelwire.errors import BadArgument
from modelwire.names import check_own_name

from ..answer import Document, facts, now
from ..passphrases import add_passphrase, new_passphrase, passphrase_file

NAME = "init"
HELP = "Make a registry and the fleet's keys beside it."
EXAMPLES = ("edgecloud init --fleet orchard", "edgecloud init --db /var/lib/edgecloud/fleet.db", "edgecloud init --protect")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fleet", default="fleet", help="name of the fleet, the first level of its topics (default: fleet)")
    parser.add_argument(
        "--files-from", type=whole(0), default=FILES_FROM, metavar="BYTES",
        help=f"keep bases and updates of this size and more as files beside the registry (default: {FILES_FROM})",
    )  # fmt: skip
    what = "keep the root, command and director keys by a passphrase; the receipt key is for a service to open"
    parser.add_argument("--protect", action="store_true", help=what)
    add_passphrase(parser)


def run(args: argparse.Namespace) -> Answer:
    path = registry_path(args.db)
    if path.exists():
        raise BadArgument(reason=f"{path} is there already", fix="a registry is never overwritten; name another with --db")
    if not path.absolute().parent.is_dir():
        raise BadArgument(reason=f"{path.parent} is no folder", fix=f"mkdir -p {path.parent}")
    check_own_name("fleet name", args.fleet)
    at, files = now(), {name: path.parent / name for name in (*keys.SECRET, keys.PUBLIC)}
    protect = args.protect or passphrase_file(args) is not None
    passphrase = new_passphrase(args, "the root, command and director keys") if protect else b""
    with keys.made_keys(path.absolute().parent, passphrase) as made:
        trust = TrustRow(1, made.trust(args.fleet, at))
        create_registry(path, fleet=args.fleet, identity=made.fleet, trust=trust, now=at, files_from=args.files_from)
    document: Document = {
        "registry": str(path), "fleet": args.fleet, "fleet_id": made.fleet.id, "root_public_key": made.root.public, "trust": 1,
        "fleet_pub": str(files[keys.PUBLIC]), "protected": bool(passphrase),
        "keys": {word: str(files[f"{word}.key"]) for word in ("root", "receipt", "command", "director")},
    }  # fmt: skip
    text = facts([
        ("registry", path), ("fleet", f"{args.fleet}, id {made.fleet.id.hex()}"),
        ("fleet.pub", f"{files[keys.PUBLIC]}  (give it to every board: edgeagent init --fleet-key {keys.PUBLIC})"),
        ("root key", f"{files[keys.ROOT]}  (names the other keys: keep it off line, and a copy elsewhere)"),
        ("receipt key", f"{files[keys.RECEIPT]}  (the ingester's)"),
        ("command key", f"{files[keys.COMMAND]}  (yours: seals what devices are asked for, and who is let in)"),
        ("director key", f"{files[keys.DIRECTOR]}  (seals what devices are to run)"),
    ])
    return Answer(document, text)
