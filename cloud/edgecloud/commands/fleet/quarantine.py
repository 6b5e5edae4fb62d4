"""`edgecloud quarantine`: what waits for the operator, and what was refused; of the latter the bytes are gone."""

from __future__ import annotations

import argparse
import re
import sys

from edgecloud.registry import Refusal, SqliteStore, WaitingMessage
from edgecommon.arguments import never_with
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column, add_limit, most
from modelwire.errors import BadArgument
from modelwire.wire.keys import fingerprint

from ..answer import Document, ago, facts, now, registry_of, sentences, table, when
from ..sealing import expires_type, parse_expires
from ..sizes import of_bytes
from ..verb import Verb

NAME = "quarantine"
HELP = "What waits for the operator, and what was refused: by whom it came, why, how often."
EXAMPLES = ("edgecloud quarantine", "edgecloud quarantine list pi-7", "edgecloud quarantine purge --older-than 30d")
KINDS = ("waits", "refused")
DIGITS = 16  # of a refused message's digest that name it
_NEXT = {
    "unknown-key": "edgecloud devices add {device}, once its fingerprint is compared with the board's; or edgecloud devices reject",
    "unknown-base": "edgecloud bases add with the file that the board was set up with",
}


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="only what came in the name of one device")
    add_listing(parser)


def add_listing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", choices=KINDS, help="only what waits, or only what was refused")
    add_limit(parser, "the newest N")


def list_held(args: argparse.Namespace) -> Answer:
    limit = most(args)
    with registry_of(args) as store:
        rows = _rows(store, getattr(args, "device", None), args.kind)
    shown = rows if limit is None else rows[:limit]
    columns = (
        Column("id"), Column("device"), Column("model", 2), Column("what"), Column("bytes", 3), Column("times", 1), Column("last", 4),
        Column("why", words=True),
    )  # fmt: skip
    cells = [(r["id"], r["device"], r["model"], r["what"], r["size"], r["times"], ago(r["last_at"], now()), r["why"]) for r in rows]
    held = sum(r["size"] for r in rows if r["kind"] == "waits")
    text = table(columns, cells, limit=limit)
    if rows:
        text += f"\n{sum(r['kind'] == 'waits' for r in rows):,} wait, {of_bytes(held)}; of what was refused no byte is kept"
    return Answer({"messages": shown, "more": len(rows) - len(shown)}, text)


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="as edgecloud quarantine list shows it")


def show_held(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        row = _found(store, args.id)
    shown = [
        ("id", row["id"]), ("device", row["device"]), ("model", row["model"]), ("what", row["what"]), ("why", row["why"]),
        ("key", row["fingerprint"]), ("version", row["version"]), ("bytes", row["size"]), ("times", row["times"]),
        ("first", when(row["first_at"])), ("last", when(row["last_at"])), ("digest", row["digest"]), ("next", row["next"]),
    ]  # fmt: skip
    return Answer(row, facts(shown))


def _drop_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="+", help="as edgecloud quarantine list shows them")


def drop_held(args: argparse.Namespace) -> Answer:
    with registry_of(args, readonly=False) as store, store.transaction():
        rows = list({row["id"]: row for row in (_found(store, id) for id in args.ids)}.values())
        for row in rows:
            _drop(store, row)
    return _dropped(rows)


def _purge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="only what came in the name of one device")
    parser.add_argument("--older-than", type=expires_type("--older-than", 0), metavar="TIME", help="only what last came before: 12h or 30d")
    parser.add_argument("--kind", choices=KINDS, help="only what waits, or only what was refused")
    parser.add_argument("--all", action="store_true", help="everything, however new")
    never_with(parser, "--all", "--older-than")
    parser.add_argument("--yes", action="store_true", help="ask nothing; what is dropped does not come back by itself")


def purge_held(args: argparse.Namespace) -> Answer:
    if args.older_than is None and args.device is None and not args.all:
        raise BadArgument(reason="what is to be dropped is not said", fix="name a DEVICE, or --older-than 30d, or --all")
    before = now() - parse_expires(args.older_than, "--older-than", 0) if args.older_than is not None else None
    with registry_of(args, readonly=False) as store:
        chosen = _chosen(store, args, before)
        if chosen:
            _confirm(args, chosen)
        with store.transaction():
            # Looked up anew: an ingester went on while the operator was asked. What has come since is not what was shown.
            known = {row["id"]: row["times"] for row in chosen}
            rows = [row for row in _chosen(store, args, before) if known.get(row["id"]) == row["times"]]
            for row in rows:
                _drop(store, row)
    return _dropped(rows)


def _chosen(store: SqliteStore, args: argparse.Namespace, before: int | None) -> list[Document]:
    return [row for row in _rows(store, args.device, args.kind) if before is None or row["last_at"] < before]


def _confirm(args: argparse.Namespace, rows: list[Document]) -> None:
    """Say what would go, and go on only when the operator says so. Raises BadArgument."""
    if args.yes:
        return
    waiting = sum(row["kind"] == "waits" for row in rows)
    what = f"{waiting} messages that wait for you, and {len(rows) - waiting} notes of refusals"
    if getattr(args, "json", False) or not sys.stdin.isatty():
        raise BadArgument(reason=f"this drops {what}", fix="say --yes if it is to be so")
    print(visible(f"This drops {what}. Write yes to go on: "), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != "yes":
        raise BadArgument(reason="nobody said yes: nothing was dropped", fix="edgecloud quarantine list")


def _dropped(rows: list[Document]) -> Answer:
    waiting = sum(row["kind"] == "waits" for row in rows)
    document: Document = {"dropped": [row["id"] for row in rows], "waited": waiting, "refused": len(rows) - waiting}
    lines = [f"{waiting} messages that waited and {len(rows) - waiting} notes of refusals are dropped"]
    if waiting:
        lines.append("a board whose hello waited says hello again; an update that waited comes again as long as its board has no receipt")
    return Answer(document, sentences(lines))


def _drop(store: SqliteStore, row: Document) -> None:
    if row["kind"] == "waits":
        store.inbox.release(int(row["id"]))
    else:
        store.refusals.drop(bytes.fromhex(row["digest"]))


def _rows(store: SqliteStore, device: str | None = None, kind: str | None = None) -> list[Document]:
    """Return what is held, what came last first."""
    waiting = [] if kind == "refused" else [_of_waiting(one) for one in store.inbox.held(device)]
    refused = [] if kind == "waits" else [_of_refusal(one) for one in store.refusals.last(store.refusals.count(), device)]
    return sorted(waiting + refused, key=lambda row: (-row["last_at"], row["id"]))


def _found(store: SqliteStore, id: str) -> Document:
    """Return one message. Raises BadArgument unless just one is meant."""
    rows = [row for row in _rows(store) if row["id"] == id]
    if not rows and re.fullmatch("[0-9a-f]{8,64}", id):
        rows = [row for row in _rows(store, kind="refused") if row["digest"].startswith(id)]
    if len(rows) != 1:
        many = "is more than one" if rows else "is none"
        raise BadArgument(reason=f"of the messages in quarantine {id[:64]!r} {many}", fix="edgecloud quarantine list")
    return rows[0]


def _of_waiting(m: WaitingMessage) -> Document:
    return {
        "id": str(m.id), "kind": "waits", "device": m.device, "model": m.model, "what": m.kind, "why": m.reason, "size": len(m.bytes),
        "times": m.times, "first_at": m.first_at, "last_at": m.received_at, "version": None,
        "digest": m.mark.hex() if m.kind == "update" else None, "fingerprint": fingerprint(m.mark) if m.kind == "hello" else None,
        "next": _NEXT.get(m.reason, "").format(device=m.device),
    }  # fmt: skip


def _of_refusal(r: Refusal) -> Document:
    return {
        "id": r.digest.hex()[:DIGITS], "kind": "refused", "device": r.device, "model": r.model, "what": "refused",
        "why": f"{r.error}: {r.reason}", "size": r.size, "times": r.repeats + 1, "first_at": r.first_at or r.at, "last_at": r.at,
        "version": r.version or None, "digest": r.digest.hex(), "fingerprint": None,
        "next": f"edgecloud log {r.device}/{r.model}" if r.version else "",
    }  # fmt: skip


VERBS = (
    Verb(
        "list", "List what waits and what was refused, what came last first.",
        ("edgecloud quarantine list", "edgecloud quarantine list pi-7 --kind refused -n 5"), list_held, _list_arguments,
    ),
    Verb(
        "show", "Show one message: whose it is, why it is held, and what to do next.",
        ("edgecloud quarantine show 12", "edgecloud quarantine show 3fa94c01b2d4e6f8 --json"), show_held, _show_arguments,
    ),
    Verb("drop", "Drop some messages.", ("edgecloud quarantine drop 12 13",), drop_held, _drop_arguments),
    Verb(
        "purge", "Drop all that is old, or all of a device; asks before it does.",
        ("edgecloud quarantine purge --older-than 30d", "edgecloud quarantine purge pi-7 --yes"), purge_held, _purge_arguments,
    ),
)  # fmt: skip
run, add = list_held, add_listing
