"""`edgecloud audit`: who did what, from the registry's log."""

from __future__ import annotations

import argparse
import json
import socket

from edgecloud.audit import telling
from edgecommon.printing import Answer, lines_of
from modelwire.errors import BadArgument

from ..answer import registry_of, table, when

NAME = "audit"
HELP = "Say who did what: enrolments, revocations, commands, epochs, heads and verdicts, from the signed log."
EXAMPLES = (
    "edgecloud audit",
    "edgecloud audit --about pi-7",
    "edgecloud audit --after 812 --lines",
    "edgecloud audit --after 812 --syslog logs.example:514",
)
PORT = 514


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--after", type=int, default=0, metavar="N", help="only entries behind this number: what was not exported yet")
    parser.add_argument("--about", metavar="DEVICE", help="only what is about this device")
    parser.add_argument("--lines", action="store_true", help="one JSON document a line, for a log server")
    parser.add_argument("--syslog", metavar="HOST[:PORT]", help="send each as a line of JSON to a log server by syslog over TCP")


def run(args: argparse.Namespace) -> Answer:
    if args.after < 0:
        raise BadArgument(reason=f"--after: {args.after} is no number of an entry", fix="write 0 or more")
    with registry_of(args) as store:
        told = [one for one in telling.tell(store.log, store.identity, args.after) if _about(one, args.about)]
        fleet = store.fleet
    if args.syslog is not None:
        _send(args.syslog, [json.dumps({"fleet": fleet, **one}) for one in told])
        return Answer({"sent": len(told), "to": args.syslog}, f"{len(told)} entries sent to {args.syslog}")
    if args.lines:
        return Answer({"entries": told}, lines_of(json.dumps({"fleet": fleet, **one}) for one in told))
    rows = [(one["number"], when(one["at"]), one["who"], one["about"], one["text"]) for one in told]
    return Answer({"entries": told}, table(("entry", "at", "who", "about", "what"), rows))


def _about(one: telling.Told, device: str | None) -> bool:
    return device is None or one["about"].partition("/")[0] == device


def _send(where: str, lines: list[str]) -> None:
    """Send lines to a syslog server. Raises BadArgument when it can't be reached, or goes away in the middle."""
    host, _, port = where.partition(":")
    if not host or (port and not port.isdigit()):
        raise BadArgument(reason=f"--syslog: {where!r} is no HOST[:PORT]", fix=f"write logs.example or logs.example:{PORT}")
    try:
        with socket.create_connection((host, int(port or PORT)), timeout=10) as connection:
            for line in lines:
                # RFC 6587: a frame with its length in front; facility 13 (log audit), severity 6 (informational).
                message = f"<110>1 - - edgecloud - - - {line}".encode()
                connection.sendall(b"%d %s" % (len(message), message))
    except (OSError, OverflowError) as error:
        fix = "check that a log server listens there; entries that came may come again"
        raise BadArgument(reason=f"{where}: {error}", fix=fix) from None
