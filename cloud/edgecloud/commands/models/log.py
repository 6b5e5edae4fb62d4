"""`edgecloud log`: a model's versions, the newest first."""

from __future__ import annotations

import argparse

from edgecloud.feasibility import fitness
from edgecloud.versions import naming
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column, add_limit, more, most
from modelwire.errors import BadArgument

from .. import losses
from ..alarms import open_alarms
from ..answer import Document, registry_of, table, when
from .described import carried, describe, made_of, other_base, thinned

NAME = "log"
HELP = "List a model's versions, newest first, refused and lost ones too, and what else its device sent that was refused."
EXAMPLES = ("edgecloud log pi-7", "edgecloud log pi-7 -n 10", "edgecloud log pi-7/digits --json")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]", help="a model; of a device that has several, with its name")
    add_limit(parser)


def run(args: argparse.Namespace) -> Answer:
    name, limit = naming.parse(args.name), most(args)
    if name.version is not None:
        raise BadArgument(reason=f"{args.name} is one version, and log lists those of a model", fix=f"edgecloud show {args.name}")
    with registry_of(args) as store:
        lineage = naming.find_lineage(store, name)
        lost = losses.lost_of(store, lineage)
        held = store.versions.count(lineage.id)
        versions = list[Document]()
        rows = store.versions.newest(lineage.id, limit)
        unfit = fitness.unfit(store, [v.id for v in rows])
        for v in rows:
            versions.append(describe(store, lineage, v, versions[-1] if versions else None))
            versions[-1]["unfit"] = unfit[v.id].words if v.id in unfit else None
        refusals: list[Document] = [
            {"version": r.version, "epoch": r.epoch, "error": r.error, "reason": r.reason, "at": r.at, "commit": r.commit,
             "repeats": r.repeats}
            for r in store.refusals.last(min(50, limit or 50), lineage.device, lineage.model)
        ]  # fmt: skip
        alarms = [one for one in open_alarms(store) if (one["device"], one["model"]) == (lineage.device, lineage.model)]
        epoch = store.lineages.current(lineage.id)
        origin = made_of(store, epoch.base) if epoch is not None else ""
        parked = [{"version": o.version, "parent": o.parent} for o in store.inbox.orphans(lineage.device) if o.lineage == lineage.id]
    cells = [
        (f"@{v['version']}", v["epoch"], v["kind"], v["status"], v["bytes"], _change(v, "loss"), _change(v, "accuracy"),
         when(v["received_at"]), v["commit"].hex()[:12], _note(v))
        for v in versions
    ]  # fmt: skip
    for one in lost:
        told = losses.HELD if one["held"] else losses.GIVEN_UP
        cells.append((f"@{one['version']}", one["epoch"], "", "lost", None, "", "", when(one["at"]), "", told))
    cells.sort(key=lambda row: (row[1], int(row[0][1:])), reverse=True)
    cells = cells[:limit]
    hidden = held + len(lost) - len(cells)
    text = table(_HEAD, cells, title=str(lineage))
    text += f"\n{more(hidden)}" if hidden else ""
    text += f"\n{visible(origin)}" if origin else ""
    for one in alarms:
        text += f"\nALARM {visible(one['says'])}\n  {visible(one['next'])}"
    if parked:
        text += f"\n{len(parked)} updates wait for the one before them: " + ", ".join(f"@{p['version']}" for p in parked)
    if refusals:
        text += "\n" + table(
            (Column("refused"), Column("error", 1), Column("reason", words=True), Column("at", 2)),
            [(f"@{r['version']}" if r["version"] else "a message", r["error"], r["reason"], when(r["at"])) for r in refusals],
        )
    document = {"device": lineage.device, "model": lineage.model, "versions": versions, "refusals": refusals, "parked": parked}
    return Answer({**document, "lost": lost, "base_made_of": origin, "alarms": alarms, "more": held - len(versions)}, text)


_HEAD = (
    Column("version"), Column("epoch", 5), Column("kind", 6), Column("status"), Column("bytes", 1), Column("loss", 4),
    Column("accuracy", 2), Column("received", 3), Column("commit", 7), Column("note", 2, words=True),
)  # fmt: skip


def _change(version: Document, what: str) -> str:
    before, after = (version["metrics"].get(f"{what}_{end}") for end in ("before", "after"))
    if not isinstance(before, float) or not isinstance(after, float):
        return ""
    if what == "accuracy" and not (0 <= before <= 1 and 0 <= after <= 1):
        return ""  # a figure out of its range counts as not there
    return f"{before:.3f} -> {after:.3f}"


def _note(version: Document) -> str:
    """Return why a version was refused, or what it carries and what the device says of it."""
    said = version["metrics"].get("note")
    held = [version["unfit"] or "", thinned(version), other_base(version), carried(version["skipped"])]
    words = [*held, said[:80] if isinstance(said, str) else ""]
    return version["reason"] or "; ".join(word for word in words if word)
