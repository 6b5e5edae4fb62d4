"""`edgecloud freeze`: a device is left out of rollouts; without one, who is."""

from __future__ import annotations

import argparse

from edgecloud.registry import SqliteStore
from edgecloud.registry.rollout_rows import FrozenRow
from edgecloud.versions import naming
from edgecommon.arguments import rule
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column
from modelwire.errors import BadArgument, UnknownDevice, UnknownVersion

from ..answer import Document, now, registry_of, table, when
from .asking import REASON_MAX, add_person, person, plain_type

NAME = "freeze"
HELP = "Leave a device out of all rollouts from now on; without one, list who is left out."
EXAMPLES = ("edgecloud freeze pi-7 --reason 'on the test bench until May'", "edgecloud freeze pi-7/digits", "edgecloud freeze")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]", nargs="?", help="a device, or one model of it")
    parser.add_argument("--reason", type=plain_type(REASON_MAX), metavar="TEXT", help="why, for who reads it later")
    add_person(parser)
    rule(parser, lambda args: "" if args.name or not (args.reason or args.by) else "--reason and --by do nothing without DEVICE")


def run(args: argparse.Namespace) -> Answer:
    if args.name is None:
        return _listed(args)
    with registry_of(args, readonly=False) as store, store.transaction():
        device, model = known(store, args.name)
        row = FrozenRow(device, model, args.reason or "", person(args), now())
        store.rollouts.freeze(row)
        under_way = [
            store.rollouts.by_id(one.rollout_id).name for lineage in store.lineages.of(device) if model in ("", lineage.model)
            for one in store.rollouts.assigned(lineage.id) if one.state in _UNDER_WAY
        ]  # fmt: skip
    text = f"{args.name} is left out of rollouts until edgecloud unfreeze {args.name}"
    if under_way:
        text += f"; what it was offered in {', '.join(under_way)} goes on: edgecloud rollout halt or rollback ends that"
    return Answer({**_described(row), "under_way": under_way}, visible(text))


def known(store: SqliteStore, text: str) -> tuple[str, str]:
    """Return the device and the model that a name stands for; no model: all of them. Raises UnknownDevice or UnknownVersion."""
    name = naming.parse(text)
    if name.version is not None:
        raise BadArgument(reason=f"{text} is one version: a device is left out with all it has", fix=f"leave out @{name.version}")
    if not store.devices.keys(name.device):
        raise UnknownDevice(device=name.device)
    if name.model is not None and store.lineages.get(name.device, name.model) is None:
        raise UnknownVersion(name=text)
    return name.device, name.model or ""


def _listed(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        rows = store.rollouts.frozen()
    columns = (Column("device"), Column("model"), Column("since", 1), Column("by", 2), Column("reason", words=True, wrapped=True))
    lines = [(row.device, row.model or "all", when(row.at), row.by, row.reason) for row in rows]
    return Answer({"frozen": [_described(row) for row in rows]}, table(columns, lines) if rows else "no device is frozen")


def _described(row: FrozenRow) -> Document:
    return {"device": row.device, "model": row.model or None, "reason": row.reason, "by": row.by, "at": row.at}


_UNDER_WAY = frozenset({"offered", "fetching", "staged", "probing", "soaking"})
