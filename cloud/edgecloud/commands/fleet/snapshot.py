"""`edgecloud snapshot`: a device is asked for its whole state."""

from __future__ import annotations

import argparse
import secrets

from edgecloud.registry import Request
from edgecloud.versions import naming
from edgecommon.printing import Answer

from ..answer import Document, now, registry_of
from ..verb import Verb

NAME = "snapshot"
HELP = "Ask devices for their whole state."
EXAMPLES = ("edgecloud snapshot request pi-7",)


def _request_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]")


def request_snapshot(args: argparse.Namespace) -> Answer:
    with registry_of(args, readonly=False) as store, store.transaction():
        lineage = naming.find_lineage(store, naming.parse(args.name))
        asked = [r for r in store.requests.open(lineage.id) if r.verb == "snapshot"]
        if not asked:
            # Random, not counted: a restored registry must not give a number again that a board has answered.
            request = Request(secrets.randbits(62), lineage.id, "snapshot", now(), None, None, "")
            store.requests.add(request)
            asked = [request]
    document: Document = {"id": asked[0].id, "model": str(lineage), "verb": "snapshot", "created_at": asked[0].created_at}
    return Answer(document, f"{lineage}: snapshot requested, id {asked[0].id}")


VERBS = (
    Verb(
        "request", "Ask a device for its whole state; the running ingester passes it on until the device has answered.",
        ("edgecloud snapshot request pi-7/digits",), request_snapshot, _request_arguments,
    ),
)  # fmt: skip
