"""`edgecloud devices list`: the fleet in a table, what waits for the operator, and an exit code for scripts where boards are silent."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from edgecloud.audit import entries
from edgecloud.audit.admissions import Admissions
from edgecloud.registry import SqliteStore
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column, add_limit, more, most, wrapped
from modelwire.errors import ModelWireError, RegistryDamaged

from .. import losses, waiting
from ..alarms import open_alarms
from ..answer import Document, ago, now, registry_of, table, when
from ..sealing import expires_type, parse_expires
from ..waiting import ADMITTED, REVOKED
from .claim import preauthorised, replayed
from .overview import describe_all

SUSPICIOUS = 3  # epochs of a model in a day, above which the list says so: a board is rarely set up anew more often
LONG = 20_000  # entries of a log, above which only what operators sealed is looked at: all of it is for `verify`
SILENT = 1  # exit code of --stale, where a device is
STATES = ("on-line", "off-line", ADMITTED, REVOKED)


def add_listing(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which devices are listed, and in which order."""
    parser.add_argument("--name", metavar="GLOB", help="only devices of such names: 'pi-*'")
    parser.add_argument("--model", metavar="GLOB", help="only models of such names")
    parser.add_argument("--status", choices=STATES, help="only devices that are so")
    what = f"only admitted devices of which nothing came for so long: 90s, 30m, 24h or 7d; exits {SILENT} when there are any, else 0"
    parser.add_argument("--stale", type=expires_type("--stale"), metavar="TIME", help=what)
    parser.add_argument("--sort", choices=tuple(_ORDERS), help="by what (default: seen, the newest first; numbers: the largest first)")
    add_limit(parser, "the first N rows")


def list_devices(args: argparse.Namespace) -> Answer:
    at, limit = now(), most(args)
    with registry_of(args) as store:
        everything = describe_all(store)
        expected, fault = _expected(store, args)
        alarms, namesakes = open_alarms(store), losses.namesakes_of(store, at)
        keys, messages, rejected = waiting.waiting_keys(store), waiting.waiting_messages(store), waiting.rejected_keys(store)
    some = list(_chosen(everything, args, at))
    rows = _sorted([(d, m) for d in some for m in d["models"] or [{}]], args.sort or "seen")
    shown = rows if limit is None else rows[:limit]
    text = table(_HEAD, [_cells(d, m, at) for d, m in shown])
    remarks = list(_remarks(some))
    hidden = "" if limit is None or len(remarks) <= limit else f"and of {len(remarks) - limit:,} more: -n 0 shows all"
    text += "".join(f"\n{line}" for line in (more(len(rows) - len(shown)), _totals(some, at), *remarks[:limit], hidden) if line)
    for one in alarms:
        text += f"\nALARM {visible(one['says'])}\n  {visible(one['next'])}"
    text += "".join(f"\n{visible(losses.namesake_line(one))}" for one in namesakes)
    plain = not any((args.name, args.model, args.status, args.stale))
    if plain:
        text += _waiting(messages, keys, expected, rejected, fault, limit)
    said = _unique([d for d, _ in shown])
    document: Document = {
        "devices": said, "more": len(some) - len(said), "totals": _sums(some), "waiting": keys, "quarantine": messages,
        "rejected": rejected, "preauthorised": expected, "fault": fault or None, "alarms": alarms,
        "of_another_fleet": namesakes,
    }  # fmt: skip
    return Answer(document, text, code=SILENT if args.stale and some else 0)


_HEAD = (
    Column("device"), Column("model", 1), Column("head"), Column("verified", 6), Column("epoch", 9), Column("versions", 5),
    Column("bytes", 4), Column("accuracy", 3), Column("link", 7), Column("heard", 1), Column("seen", 8), Column("key", 2),
)  # fmt: skip


def _cells(d: Document, m: Document, at: int) -> tuple[object, ...]:
    accuracy = m.get("accuracy")
    return (
        d["device"], m.get("model"), m.get("head"), m.get("verified"), m.get("epoch"), m.get("versions"), m.get("bytes"),
        None if accuracy is None else f"{accuracy:.3f}", m.get("state"), ago(m.get("seen_at"), at), when(m.get("seen_at")), d["status"],
    )  # fmt: skip


_ORDERS: dict[str, Callable[[Document, Document], Any]] = {  # all but the name: the largest first
    "seen": lambda d, m: m.get("seen_at") or 0,
    "name": lambda d, m: 0,
    "head": lambda d, m: m.get("head") or 0,
    "versions": lambda d, m: m.get("versions") or 0,
    "bytes": lambda d, m: m.get("bytes") or 0,
    "accuracy": lambda d, m: -1.0 if m.get("accuracy") is None else m["accuracy"],
}


def _sorted(rows: list[tuple[Document, Document]], order: str) -> list[tuple[Document, Document]]:
    """Return rows by name, and then by an order: what is equal in it stays by name."""
    return sorted(rows, key=lambda row: _ORDERS[order](*row), reverse=True)


def _chosen(devices: list[Document], args: argparse.Namespace, at: int) -> Iterator[Document]:
    """Yield the devices that the command line asks for, with those of their models."""
    longest = parse_expires(args.stale) if args.stale else None
    for d in devices:
        models = [m for m in d["models"] if not args.model or fnmatchcase(m["model"], args.model)]
        if (args.name and not fnmatchcase(d["device"], args.name)) or (args.model and not models):
            continue
        if args.status in (ADMITTED, REVOKED) and d["status"] != args.status:
            continue
        if args.status in ("on-line", "off-line"):
            models = [m for m in models if m["state"] == args.status.replace("-", " ")]
            if not models:
                continue
        if longest is not None and (d["status"] != ADMITTED or at - (d["seen_at"] or d["admitted_at"] or 0) < longest):
            continue
        yield {**d, "models": models}


def _unique(devices: list[Document]) -> list[Document]:
    """Return devices in the order of their first row, each once."""
    return list({d["device"]: d for d in devices}.values())


def _sums(devices: list[Document]) -> Document:
    models = [m for d in devices for m in d["models"]]
    return {
        "devices": len(devices), "admitted": sum(d["status"] == ADMITTED for d in devices), "models": len(models),
        "on_line": sum(m["state"] == "on line" for m in models), "versions": sum(m["versions"] for m in models),
        "bytes": sum(m["bytes"] for m in models),
    }  # fmt: skip


def _totals(devices: list[Document], at: int) -> str:
    """Return the fleet in a line."""
    if not devices:
        return ""
    t = _sums(devices)
    gone = t["devices"] - t["admitted"]
    newest = max((d["seen_at"] for d in devices if d["seen_at"] is not None), default=None)
    parts = [
        f"{t['devices']:,} {'device' if t['devices'] == 1 else 'devices'}" + (f", {gone:,} of them revoked" if gone else ""),
        f"{t['on_line']:,} of {t['models']:,} {'model' if t['models'] == 1 else 'models'} on line",
        f"{t['versions']:,} versions of {t['bytes']:,} bytes in all", f"the last word {ago(newest, at)}" if newest is not None else "",
    ]  # fmt: skip
    return wrapped("; ".join(part for part in parts if part))


def _remarks(devices: list[Document]) -> Iterator[str]:
    """Yield what is to be said of some devices besides their rows."""
    each = [(d, m) for d in devices for m in d["models"]]
    for d, m in each:
        if (version := m["would_resume"]) is not None:
            which = f"{d['device']}/{m['model']} would like its last model @{version} back"
            yield visible(f"{which}; `edgecloud devices resume` with its name allows it")
    yield from (visible(told) for d, m in each if (told := losses.line(f"{d['device']}/{m['model']}", m["lost"])))
    yield from (visible(losses.witness_line(seen)) for d in devices for seen in d["witness"])
    yield from (visible(words) for d, m in each if (words := _burning(d["device"], m)))


def _waiting(
    messages: list[Document], keys: list[Document], expected: list[Document], rejected: list[Document], fault: str, limit: int | None
) -> str:  # fmt: skip
    """Return what waits for the operator."""
    text = ""
    for one in messages[:limit]:
        what = f"{one['device']}/{one['model']} waits: {one['hellos']} hello, {one['updates']} updates"
        text += f"\n{visible(what)}; {one['what']}" + (f"\n  {visible(one['next'])}" if one["next"] else "")
    if limit is not None and len(messages) > limit:
        text += f"\n{more(len(messages) - limit)}"
    if keys:
        text += "\n\n" + waiting.waiting_keys_text(keys, limit)
    if fault:
        text += f"\n\n{visible(fault)}: edgecloud verify"
    if expected:
        text += f"\n\n{sum(one['left'] for one in expected)} boards are preauthorised by claims: edgecloud claim list"
    if rejected:
        text += f"\n\n{len(rejected)} rejected {'key' if len(rejected) == 1 else 'keys'} not shown; --json lists them"
    return text


def _burning(device: str, model: Document) -> str:
    """Return what is to be said of a model that opens epochs as no sound board does; empty for the others."""
    opened, free_at = model["epochs_of_a_day"], model["epochs_free_at"]
    if opened <= SUSPICIOUS:
        return ""
    until = f", and opens no more before {when(free_at)}" if free_at else ""
    way = "edgecloud devices reset, or revoke where its key may be in other hands" if free_at else "is it sound, or has somebody its key?"
    return f"{device}/{model['model']} has opened {opened} epochs in a day{until}: {way}"


def _expected(store: SqliteStore, args: argparse.Namespace) -> tuple[list[Document], str]:
    """Return which boards claims let in, or what is wrong with the log: the other lists are of use all the same."""
    try:
        end = store.log.end()
        if end is None or end.number <= LONG:
            return preauthorised(replayed(store, args), now()), ""
        return preauthorised(_sealed(store), now()), ""
    except RegistryDamaged as error:
        return [], error.message
    except ModelWireError as error:
        return [], f"the log holds what nobody sealed: {error.message}"


def _sealed(store: SqliteStore) -> Admissions:
    """Return what operators sealed, from a log that is too long to be followed link by link for a list."""
    held = Admissions(store.identity)
    rows = [entries.parse(row) for row in store.log.about_none()]
    if any(entry.kind == entries.CLAIM for entry in rows):
        for entry in rows:
            held.take(entry)
    return held
