"""`edgecloud limits`: how much each device may take of the centre, and what it has taken."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

from edgecloud.registry import QuotaRow, SqliteStore
from edgecloud.registry.quota_rows import NAMES, USUAL
from edgecommon.arguments import whole
from edgecommon.printing import Answer
from edgecommon.tables import Column, add_limit, most
from modelwire.errors import BadArgument, UnknownDevice
from modelwire.names import check_name

from ..answer import Document, now, registry_of, table
from ..sizes import of_bytes, size_type
from ..verb import Verb

NAME = "limits"
HELP = "How much each device may take of the centre; one that has used it up is asked to wait, and loses nothing."
EXAMPLES = ("edgecloud limits", "edgecloud limits show pi-7", "edgecloud limits set --all --versions-an-hour 600")
EVERYBODY = ""
_SAID = {
    "bytes_a_day": "bytes a day", "versions_an_hour": "versions an hour", "cpu_an_hour": "seconds of work an hour",
    "open_transfers": "open transfers", "disk_bytes": "bytes on disk",
}  # fmt: skip
_USED = {
    "bytes_a_day": "bytes", "versions_an_hour": "versions", "cpu_an_hour": "cpu", "open_transfers": "transfers", "disk_bytes": "disk",
}  # fmt: skip
_SIZES = ("bytes_a_day", "disk_bytes")


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="one device; without it those that have limits of their own")
    add_limit(parser, "the first N devices")


def show_limits(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        if (device := getattr(args, "device", None)) is not None:  # the bare command takes none
            return _of_one(store, _known(store, device))
        of_all = store.quotas.of(EVERYBODY)
        own = {device: row for device, row in store.quotas.rows().items() if device != EVERYBODY}
        limit = most(args)
        shown = list(own)[:limit]
        used = {device: store.quotas.used(device, now()) for device in shown}
        set_for_all = store.quotas.own(EVERYBODY)
    document: Document = {
        "all": _fields(of_all), "set_for_all": _fields(set_for_all or QuotaRow()), "usual": _fields(USUAL),
        "devices": [{"device": device, "set": _fields(own[device]), "used": _used(used[device])} for device in shown],
        "more": len(own) - len(shown),
    }  # fmt: skip
    rows = [(_SAID[name], _cell(name, getattr(of_all, name)), _source(name, None, set_for_all)) for name in NAMES]
    text = table([Column("each device may take"), Column("limit"), Column("set", 1)], rows)
    lines = [[device, *(_cell(name, getattr(own[device], name)) for name in NAMES)] for device in own]
    if own:
        text += "\n\n" + table([Column("device"), *(Column(_SAID[name], n + 1) for n, name in enumerate(NAMES))], lines, limit=limit)
    return Answer(document, text)


def _set_arguments(parser: argparse.ArgumentParser) -> None:
    _whom(parser)
    parser.add_argument("--bytes-a-day", type=size_type, metavar="SIZE", help="of updates and their parts: 512MiB, 2GB, or bytes")
    parser.add_argument("--versions-an-hour", type=whole(), metavar="N", help="updates that are taken in")
    parser.add_argument("--cpu-an-hour", type=whole(), metavar="SECONDS", help="work on what it sent: taking in, rebuilding, training")
    parser.add_argument("--open-transfers", type=whole(most=16), metavar="N", help="large updates that come in parts, at a time; up to 16")
    parser.add_argument("--disk-bytes", type=size_type, metavar="SIZE", help="of its updates that are held, those that wait included")


def set_limits(args: argparse.Namespace) -> Answer:
    given = {name: value for name in NAMES if (value := getattr(args, name)) is not None}
    if not given:
        raise BadArgument(reason="no limit is given", fix="name one, such as --versions-an-hour 600")
    return _change(args, lambda row: replace(row, **given))


def _whom(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="one device, or")
    parser.add_argument("--all", action="store_true", help="all that have no limit of their own")


def reset_limits(args: argparse.Namespace) -> Answer:
    return _change(args, lambda row: QuotaRow())


def _change(args: argparse.Namespace, new: Callable[[QuotaRow], QuotaRow]) -> Answer:
    if args.all == (args.device is not None):
        raise BadArgument(reason="whose limits is not said" if args.device is None else "DEVICE and --all together", fix="name one of both")
    with registry_of(args, readonly=False) as store, store.transaction():
        device = EVERYBODY if args.all else _known(store, args.device)
        store.quotas.set(device, new(store.quotas.own(device) or QuotaRow()), now())
        return _of_one(store, device)


def _known(store: SqliteStore, device: str) -> str:
    check_name("device name", device)
    if not store.devices.keys(device):
        raise UnknownDevice(device=device)
    return device


def _of_one(store: SqliteStore, device: str) -> Answer:
    """Return what a device may take and has taken, or what all may that have no limit of their own."""
    quota, own, of_all = store.quotas.of(device), store.quotas.own(device), store.quotas.own(EVERYBODY)
    used = store.quotas.used(device, now()) if device else None
    document: Document = {"device": device or None, "limits": _fields(quota), "set": _fields(own or QuotaRow())}
    document["used"] = None if used is None else _used(used)
    rows = [
        (_SAID[name], "" if used is None else _cell(name, getattr(used, _USED[name])), _cell(name, getattr(quota, name)),
         _source(name, own if device else None, of_all))
        for name in NAMES
    ]  # fmt: skip
    columns = [Column(device or "each device"), Column("used", 1), Column("limit"), Column("set", 2)]
    return Answer(document, table(columns if used is not None else [columns[0], *columns[2:]],
                                  rows if used is not None else [(row[0], *row[2:]) for row in rows]))  # fmt: skip


def _source(name: str, own: QuotaRow | None, of_all: QuotaRow | None) -> str:
    if own is not None and getattr(own, name) is not None:
        return "for it"
    return "for all" if of_all is not None and getattr(of_all, name) is not None else "as usual"


def _cell(name: str, value: float | None) -> str | None:
    if value is None:
        return None
    return of_bytes(value) if name in _SIZES else f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _fields(row: QuotaRow) -> Document:
    return {name: getattr(row, name) for name in NAMES}


def _used(row: object) -> Document:
    return {name: getattr(row, field) for name, field in _USED.items()}


VERBS = (
    Verb(
        "show", "Show limits, and what a device has used of the day and the hour that it is, in UTC.",
        ("edgecloud limits show", "edgecloud limits show pi-7 --json"), show_limits, _show_arguments,
    ),
    Verb(
        "set", "Set limits of a device or of all; what is not named stays as it is.",
        ("edgecloud limits set pi-7 --bytes-a-day 2GiB", "edgecloud limits set --all --versions-an-hour 600 --disk-bytes 8GiB"),
        set_limits, _set_arguments,
    ),
    Verb(
        "reset", "Take back what was set for a device, or for all.", ("edgecloud limits reset pi-7", "edgecloud limits reset --all"),
        reset_limits, _whom,
    ),
)  # fmt: skip
run, add = show_limits, add_limit
