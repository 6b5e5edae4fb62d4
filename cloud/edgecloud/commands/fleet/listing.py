"""`edgecloud devices list`: the fleet in a table, what waits for the operator, and an exit code for scripts where boards are silent."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from edgecloud.audit.admissions import Admissions
from edgecloud.intake import epochs
from edgecloud.registry import ModelOutline, SqliteStore
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column, add_limit, more, most, wrapped
from modelwire.errors import ModelWireError, RegistryDamaged

from .. import losses, waiting
from ..alarms import open_alarms
from ..answer import Document, ago, now, registry_of, table, when
from ..sealing import expires_type, parse_expires
from ..waiting import ADMITTED, REVOKED
from .claim import listed, preauthorised
from .overview import describe_all, describe_some

SUSPICIOUS = 3  # epochs of a model in a day, above which the list says so: a board is rarely set up anew more often
AT_ONCE = 200  # devices above which all are looked at together, which costs the same as some hundreds one by one
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
    at, limit, order = now(), most(args), args.sort or "seen"
    with registry_of(args) as store:
        chosen = _chosen(store.tallies.outlines(order if order in ("head", "accuracy") else ""), args, at)
        rows = _sorted(chosen, order)
        shown = rows if limit is None else rows[:limit]
        described = _described(store, shown, chosen)
        remarks, hidden = _remarks(store, chosen, limit)
        odd = [(f"{d['device']}/{m['model']}", m) for d in described.values() for m in d["models"] if m["unfit"]]
        remarks = [*(visible(f"{name}@{m['head']} is {m['unfit']}") for name, m in odd), *remarks]
        log, fault = _log(store, args)
        expected = preauthorised(log, at) if log is not None else []
        alarms, namesakes = open_alarms(store), losses.namesakes_of(store, at)
        keys, messages, rejected = waiting.waiting_keys(store, log, at), waiting.waiting_messages(store), waiting.rejected_keys(store)
    sums = _sums(chosen)
    text = table(_HEAD, [_cells(described[o.device], _model_of(described[o.device], o), at) for o in shown])
    told = f"and of {hidden:,} more: -n 0 shows all" if hidden else ""
    text += "".join(f"\n{line}" for line in (more(len(rows) - len(shown)), _totals(chosen, sums, at), *remarks, told) if line)
    for one in alarms:
        text += f"\nALARM {visible(one['says'])}\n  {visible(one['next'])}"
    text += "".join(f"\n{visible(losses.namesake_line(one))}" for one in namesakes)
    plain = not any((args.name, args.model, args.status, args.stale))
    if plain:
        text += _waiting(messages, keys, expected, rejected, fault, limit)
    document: Document = {
        "devices": list(described.values()), "more": sums["devices"] - len(described), "totals": sums, "waiting": keys,
        "quarantine": messages, "rejected": rejected, "preauthorised": expected, "fault": fault or None, "alarms": alarms,
        "of_another_fleet": namesakes,
    }  # fmt: skip
    return Answer(document, text, code=SILENT if args.stale and chosen else 0)


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


_ORDERS: dict[str, Callable[[ModelOutline], Any]] = {  # all but the name: the largest first
    "seen": lambda o: o.seen_at or 0,
    "name": lambda o: 0,
    "head": lambda o: o.rank,
    "versions": lambda o: o.versions,
    "bytes": lambda o: o.size,
    "accuracy": lambda o: o.rank,
}


def _sorted(rows: list[ModelOutline], order: str) -> list[ModelOutline]:
    """Return rows by name, and then by an order: what is equal in it stays by name."""
    return sorted(rows, key=_ORDERS[order], reverse=True)


def _chosen(rows: list[ModelOutline], args: argparse.Namespace, at: int) -> list[ModelOutline]:
    """Return the models that the command line asks for, and the devices without one; by name."""
    if args.name:
        rows = [o for o in rows if fnmatchcase(o.device, args.name)]
    if args.stale:  # of all its models: one that speaks is no silent device
        spoke: dict[str, int] = {}
        for o in rows:
            if (seen := o.seen_at or 0) >= spoke.get(o.device, 0):
                spoke[o.device] = seen
        longest = parse_expires(args.stale)
        rows = [o for o in rows if o.admitted_at is not None and at - (spoke[o.device] or o.admitted_at) >= longest]
    if args.model:
        rows = [o for o in rows if o.lineage is not None and fnmatchcase(o.model, args.model)]
    if args.status in (ADMITTED, REVOKED):
        rows = [o for o in rows if (o.admitted_at is not None) == (args.status == ADMITTED)]
    elif args.status:
        rows = [o for o in rows if o.online is not None and bool(o.online) == (args.status == STATES[0])]
    return rows


def _described(store: SqliteStore, shown: list[ModelOutline], chosen: list[ModelOutline]) -> dict[str, Document]:
    """Return what a document says of the devices of a page, in the order of their first row, and of their chosen models."""
    names = dict.fromkeys(o.device for o in shown)
    models = {(o.device, o.model) for o in chosen if o.device in names}
    if len(names) > AT_ONCE:
        everything = {d["device"]: d for d in describe_all(store)}
        found = {name: everything[name] for name in names}
    else:
        found = describe_some(store, names)
    return {name: {**d, "models": [m for m in d["models"] if (name, m["model"]) in models]} for name, d in found.items()}


def _model_of(device: Document, row: ModelOutline) -> Document:
    return next((m for m in device["models"] if m["model"] == row.model), {})


def _sums(rows: list[ModelOutline]) -> Document:
    models = [o for o in rows if o.lineage is not None]
    return {
        "devices": len({o.device for o in rows}), "admitted": len({o.device for o in rows if o.admitted_at is not None}),
        "models": len(models), "on_line": sum(bool(o.online) for o in models), "versions": sum(o.versions for o in models),
        "bytes": sum(o.size for o in models),
    }  # fmt: skip


def _totals(rows: list[ModelOutline], t: Document, at: int) -> str:
    """Return the fleet in a line. t: its sums."""
    if not rows:
        return ""
    gone = t["devices"] - t["admitted"]
    newest = max((o.seen_at for o in rows if o.seen_at is not None), default=None)
    parts = [
        f"{t['devices']:,} {'device' if t['devices'] == 1 else 'devices'}" + (f", {gone:,} of them revoked" if gone else ""),
        f"{t['on_line']:,} of {t['models']:,} {'model' if t['models'] == 1 else 'models'} on line",
        f"{t['versions']:,} versions of {t['bytes']:,} bytes in all", f"the last word {ago(newest, at)}" if newest is not None else "",
    ]  # fmt: skip
    return wrapped("; ".join(part for part in parts if part))


def _remarks(store: SqliteStore, rows: list[ModelOutline], limit: int | None) -> tuple[list[str], int]:
    """Return what is to be said of some models besides their rows, `limit` lines of it, and of how many more nobody looked."""
    some = store.lineages.remarkable(now() - epochs.DAY, SUSPICIOUS + 1)
    few = [o for o in rows if o.lineage in some]
    each = {kind: [o for o in few if kind in some[o.lineage or 0]] for kind in ("wish", "lost", "epochs")}
    witnesses = losses.witnesses_of(store)
    names = {o.device for o in rows} if witnesses else set()
    seen = [one for one in witnesses if one["device"] in names]
    looks: list[Callable[[], str]] = [partial(_wish, store, o) for o in each["wish"]]
    looks += [partial(_loss, store, o) for o in each["lost"]]
    looks += [partial(losses.witness_line, one) for one in seen]
    looks += [partial(_burning, store, o) for o in each["epochs"]]
    lines: list[str] = []
    for done, look in enumerate(looks):
        if limit is not None and len(lines) >= limit:
            return lines, len(looks) - done
        lines += [visible(said)] if (said := look()) else []
    return lines, 0


def _wish(store: SqliteStore, row: ModelOutline) -> str:
    from .resuming import wished  # few models ask, and it loads what makes the way back

    version = wished(store, store.lineages.by_id(row.lineage or 0))
    which = f"{row.device}/{row.model} would like its last model @{version} back"
    return f"{which}; `edgecloud devices resume` with its name allows it" if version else ""


def _loss(store: SqliteStore, row: ModelOutline) -> str:
    return losses.line(f"{row.device}/{row.model}", losses.lost_of(store, store.lineages.by_id(row.lineage or 0)))


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


def _burning(store: SqliteStore, row: ModelOutline) -> str:
    """Return what is to be said of a model that opens epochs as no sound board does; empty for the others."""
    model = _model_of(describe_some(store, [row.device])[row.device], row)
    opened, free_at = model["epochs_of_a_day"], model["epochs_free_at"]
    if opened <= SUSPICIOUS:
        return ""
    until = f", and opens no more before {when(free_at)}" if free_at else ""
    way = "edgecloud devices reset, or revoke where its key may be in other hands" if free_at else "is it sound, or has somebody its key?"
    return f"{row.device}/{row.model} has opened {opened} epochs in a day{until}: {way}"


def _log(store: SqliteStore, args: argparse.Namespace) -> tuple[Admissions | None, str]:
    """Return what the log comes to as far as claims go, or what is wrong with it: the other lists are of use all the same."""
    try:
        return listed(store, args), ""
    except RegistryDamaged as error:
        return None, error.message
    except ModelWireError as error:
        return None, f"the log holds what nobody sealed: {error.message}"
