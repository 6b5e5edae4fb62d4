"""`edgecloud annotate`: a note for people on anything that the registry knows."""

from __future__ import annotations

import argparse

from edgecloud.registry import SqliteStore
from edgecloud.versions import naming
from edgecommon.printing import Answer, visible
from modelwire.errors import BadArgument, UnknownDevice

from ..answer import now, registry_of

NAME = "annotate"
HELP = "Keep a free note on a device, a model, a version or a base."
EXAMPLES = ("edgecloud annotate pi-7@12 'sensor was covered that week'", "edgecloud annotate base:digits 'trained on the 2024 set'")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="OBJECT", help="DEVICE, DEVICE/MODEL, DEVICE[/MODEL]@VERSION or base:NAME")
    parser.add_argument("text", metavar="TEXT")


def run(args: argparse.Namespace) -> Answer:
    if not args.text.strip() or len(args.text) > 4000:
        raise BadArgument(reason="a note has 1 to 4000 characters", fix="put longer ones elsewhere and note where")
    if any("\ud800" <= c <= "\udfff" for c in args.text):  # what a command line gives for bytes that are no UTF-8
        raise BadArgument(reason="a note is text", fix="write it in UTF-8")
    with registry_of(args, readonly=False) as store, store.transaction():
        kind, object = _object(store, args.name)
        note = store.annotations.add(kind, object, args.text, now())
    document = {"id": note.id, "kind": kind, "object": object, "text": note.text, "at": note.at}
    return Answer(document, visible(f"{kind} {object}: {note.text}"))


def _object(store: SqliteStore, text: str) -> tuple[str, str]:
    if text.startswith("base:"):
        if store.bases.named(text[5:]) is None:
            raise BadArgument(reason=f"there is no base {text[5:]!r}", fix="edgecloud bases list")
        return "base", text[5:]
    name = naming.parse(text)
    if name.version is not None:
        return "version", str(naming.find(store, name))
    if name.model is not None:
        return "model", str(naming.find_lineage(store, name))
    if name.device not in store.devices.names():
        raise UnknownDevice(device=name.device)
    return "device", name.device
