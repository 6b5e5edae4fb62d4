"""`edgecloud snapshot`: a device is asked for its whole state."""

from __future__ import annotations

import argparse

from edgecloud.versions import naming
from edgecommon.printing import Answer, visible
from modelwire.errors import BadArgument

from ..answer import Document, registry_of, when
from ..sealing import add_expires, add_key, ask, command_key, open_request, parse_expires, unlock
from ..verb import Verb

NAME = "snapshot"
HELP = "Ask devices for their whole state."
EXAMPLES = ("edgecloud snapshot request pi-7",)


def _request_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]", help="a model; of a device that has several, with its name")
    add_expires(parser)
    add_key(parser)


def request_snapshot(args: argparse.Namespace) -> Answer:
    expires, name = parse_expires(args.expires), naming.parse(args.name)
    if name.version is not None:
        raise BadArgument(reason=f"{args.name} is one version: a device is asked for what it has now", fix=f"leave out @{name.version}")
    with registry_of(args, readonly=False) as store, unlock(args, store), store.transaction():
        lineage = naming.find_lineage(store, name)
        asked = open_request(store, lineage, NAME) or ask(store, lineage, command_key(args, store), NAME, {}, expires=expires)
    document: Document = {
        "number": asked.number, "model": str(lineage), "verb": NAME, "created_at": asked.created_at, "expires_at": asked.expiry,
    }  # fmt: skip
    return Answer(document, visible(f"{lineage}: snapshot requested, number {asked.number}, until {when(asked.expiry)}"))


VERBS = (
    Verb(
        "request", "Ask a device for its whole state; the running ingester passes it on until the device has answered.",
        ("edgecloud snapshot request pi-7/digits", "edgecloud snapshot request pi-7 --expires 12h"), request_snapshot, _request_arguments,
    ),
)  # fmt: skip
