"""`edgecloud audit`: who did what, from the registry's log."""

from __future__ import annotations

import argparse
import json
import socket

from edgecloud.audit import telling
from edgecommon.arguments import never_with, whole
from edgecommon.printing import Answer, lines_of
from edgecommon.tables import Column, add_limit, most
from modelwire.errors import BadArgument

from ..answer import registry_of, table, when

NAME = "audit"
HELP = "Say who did what, newest first: enrolments, revocations, commands, epochs, heads and verdicts, from the signed log."
EXAMPLES = (
    "edgecloud audit",
    "edgecloud audit --about pi-7",
    "edgecloud audit --after 812 --lines",
    "edgecloud audit --after 812 --syslog logs.example:514",
)
PORT = 514


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--after", type=whole(0), default=0, metavar="N", help="only entries behind this number: what was not exported yet")
    parser.add_argument("--about", metavar="DEVICE", help="only what is about this device")
    parser.add_argument("--lines", action="store_true", help="one JSON document a line, oldest first, for a log server")
    parser.add_argument("--syslog", metavar="HOST[:PORT]", help="send each as a line of JSON to a log server by syslog over TCP")
    add_limit(parser)
    never_with(parser, "--lines", "--syslog")
    never_with(parser, "--limit", "--lines", "--syslog")


def run(args: argparse.Namespace) -> Answer:
    host = None if args.syslog is None else _host_of(args.syslog)
    with registry_of(args) as store:
        told = [one for one in telling.tell(store.log, store.identity, args.after) if _about(one, args.about)]
        fleet = store.fleet
    if host is not None:
        _send(host, args.syslog, [json.dumps({"fleet": fleet, **one}) for one in told])
        return Answer({"sent": len(told), "to": args.syslog}, f"{len(told)} entries sent to {args.syslog}")
    if args.lines:
        return Answer({"entries": told}, lines_of(json.dumps({"fleet": fleet, **one}) for one in told))
    limit = most(args)
    told.reverse()
    rows = [(one["number"], when(one["at"]), one["who"], one["about"], one["text"]) for one in told]
    return Answer({"entries": told[:limit], "more": len(told) - len(told[:limit])}, table(_HEAD, rows, limit=limit))


_HEAD = (Column("entry"), Column("at"), Column("who", 2), Column("about", 1), Column("what", words=True))


def _about(one: telling.Told, device: str | None) -> bool:
    return device is None or one["about"].partition("/")[0] == device


def _host_of(where: str) -> tuple[str, int]:
    host, _, port = where.partition(":")
    if not host or (port and not (port.isascii() and port.isdigit() and len(port) <= 5)):
        raise BadArgument(reason=f"--syslog: {where!r} is no HOST[:PORT]", fix=f"write logs.example or logs.example:{PORT}")
    return host, int(port or PORT)


def _send(host: tuple[str, int], where: str, lines: list[str]) -> None:
    """Send lines to a syslog server. Raises BadArgument when it can't be reached, or goes away in the middle."""
    try:
        with socket.create_connection(host, timeout=10) as connection:
            for line in lines:
                # RFC 6587: a frame with its length in front; facility 13 (log audit), severity 6 (informational).
                message = f"<110>1 - - edgecloud - - - {line}".encode()
                connection.sendall(b"%d %s" % (len(message), message))
    except (OSError, OverflowError) as error:
        fix = "check that a log server listens there; entries that came may come again"
        raise BadArgument(reason=f"{where}: {error}", fix=fix) from None
