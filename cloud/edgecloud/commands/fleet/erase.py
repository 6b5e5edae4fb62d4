"""`edgecloud erase`: all that is held of a device goes."""

from __future__ import annotations

import argparse
import sys

from edgecloud.keeping import erasing
from edgecloud.registry import SqliteStore
from edgecommon.printing import Answer, visible
from modelwire.errors import BadArgument
from modelwire.names import check_name

from ..answer import Document, now, progress, registry_of, sentences
from ..sealing import add_key, command_key, decided_number, unlock

NAME = "erase"
HELP = "Erase a device by law: all that is held of it, its name too; no other device is touched, and no key of it speaks again."
EXAMPLES = ("edgecloud erase pi-7", "edgecloud erase pi-7 --yes")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="the device, with all its models")
    parser.add_argument("--yes", action="store_true", help="ask nothing; what is erased does not come back")
    add_key(parser)


def run(args: argparse.Namespace) -> Answer:
    device = args.device
    check_name("device name", device)
    with registry_of(args, readonly=False) as store:
        going_on = device in store.erasures.under_way()
        said = erasing.held(store, device) if not going_on else None
        if said is not None:
            _confirm(args, store, said)
            with unlock(args, store), store.transaction():
                erasing.begin(store, command_key(args, store), device, decided_number(store), now())
        numbers = erasing.resume(store, progress=progress("entries and rows"))
    document: Document = {"number": max(numbers, default=0), "went_on": going_on}
    lines = ["the erasure that was cut off is finished" if going_on else "erased: nothing of the device is held here any more"]
    if said is not None:
        document |= {
            "models": said.models, "versions": said.versions, "bytes": said.size, "states": said.states, "waiting": said.waiting,
            "notes": said.notes, "entries": said.entries,
        }  # fmt: skip
        lines.append(f"{said.versions} versions, {said.size} bytes and {said.entries} entries of the log went")
    lines.append(f"the log says that the operator erased a device, number {document['number']}, and not which one")
    lines.append("not reached from here: backups, files of anchors, exports, the device's certificate (edgecloud ca), and the board itself")
    return Answer(document, sentences(lines))


def _confirm(args: argparse.Namespace, store: SqliteStore, said: erasing.Held) -> None:
    """Say what would go, and go on only when the operator repeats the name. Raises BadArgument."""
    if args.yes:
        return
    what = (
        f"{args.device}: {said.models} models, {said.versions} versions, {said.size} bytes, {said.states} kept states, "
        f"{said.waiting} messages that wait, {said.notes} notes, {said.entries} entries of the log"
    )
    if getattr(args, "json", False) or not sys.stdin.isatty():
        raise BadArgument(reason=f"this erases {what}; it does not come back", fix="say --yes if it is to be so")
    print(visible(f"This erases {what}. It does not come back."), file=sys.stderr)
    print(visible(f"Write the device's name to go on [{args.device}]: "), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != args.device:
        raise BadArgument(reason="the name was not repeated: nothing was erased", fix=f"edgecloud erase {args.device}")
