"""`edgecloud why`: why a version came as it did, and how it is stored here."""

from __future__ import annotations

import argparse
import textwrap

from edgecloud.registry import SqliteStore, Status, VersionRow
from edgecloud.versions import naming, plans
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column, cut
from modelwire.errors import BadArgument
from modelwire.planning import Choice, PlanNote

from ..answer import Document, registry_of, table, when
from .described import carried

NAME = "why"
HELP = "Say why a version came as a delta, a snapshot or a recipe: what its board weighed, and how the version is stored here."
EXAMPLES = ("edgecloud why pi-7@12", "edgecloud why pi-7/digits@latest --json")
WIDTH = 80


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]@VERSION", help="one version: a number or latest")


def run(args: argparse.Namespace) -> Answer:
    name = naming.parse(args.name)
    with registry_of(args) as store:
        place = naming.find(store, name)
        if place.version is None:
            raise BadArgument(reason=f"{place} was not sent by a board: there is nothing to say of why", fix=f"edgecloud show {place}")
        document = explain(store, str(place), place.version)
    return Answer(document, _text(document))


def explain(store: SqliteStore, name: str, v: VersionRow) -> Document:
    """Return all that is known of why a version is as it is, by a few look-ups in indices, however many versions there are."""
    told = plans.plan_of(v)
    parent = store.versions.by_id(v.parent_id) if v.parent_id is not None else None
    kept, thinned, squash = store.states.row(v.id), store.thinnings.get(v.id), store.thinnings.squash(v.id)
    near = store.thinnings.nearest(v.lineage, v.version) if thinned is not None and thinned.gone else (None, None)
    return {
        "name": name, "version": v.version, "kind": v.kind, "bytes": v.size, "status": v.status.value, "received_at": v.received_at,
        "skipped": store.versions.skipped(v.id), "plan": None if told.note is None else _plan(told.note),
        "reason": _reason(told, v), "trouble": told.trouble,
        "stored": {
            "as": v.kind, "bytes": v.size, "on": None if parent is None else parent.version,
            "squash": None if squash is None else {"kind": squash.kind, "bytes": squash.size},
            "gone": thinned is not None and thinned.gone, "nearest": [n for n in near if n is not None],
            "kept_state": None if kept is None else {"bytes": kept.size, "kept_at": kept.kept_at},
            "recover_within": store.policies.current().recover_within,
        },
    }  # fmt: skip


def _reason(told: plans.ToldPlan, v: VersionRow) -> str:
    if told.note is not None:
        return plans.reason_of(told.note, v.kind)
    if told.trouble:
        return f"what its board says of why can't be read, and nothing else stands on it: {told.trouble}"
    return f"its board was told: {v.kind}"


def _plan(note: PlanNote) -> Document:
    return {
        "choice": note.choice.name.lower(), "form": None if note.form is None else note.form.name.lower(), "density_ppm": note.density_ppm,
        "updates": note.updates, "sources": {name: origin.name.lower() for name, origin in note.origins.items()},
        "kinds": [
            {"kind": choice.name.lower(), "total": total, "why_not": why}
            for choice in Choice
            for total, why in (plans.row_of(note, choice),)
        ],
    }  # fmt: skip


def _text(d: Document) -> str:
    """Return the document as one screen: 80 columns, 24 lines."""
    out = [f"{d['name']}: {d['kind']} of {d['bytes']:,} bytes, {d['status']}, received {when(d['received_at'])}"]
    out += textwrap.wrap(visible(d["reason"]), WIDTH, max_lines=4, placeholder=" ...")
    if d["skipped"]:
        out.append(cut(carried(d["skipped"]), WIDTH))
    if (plan := d["plan"]) is not None:
        out.append(table(_HEAD, [_cells(row, plan) for row in plan["kinds"]]))
        if plan["updates"] > 1:
            out.append(f"{plan['updates']} updates waited then, this one among them")
        if plan["sources"]:
            out += textwrap.wrap("by " + ", ".join(f"{name} ({origin})" for name, origin in plan["sources"].items()), WIDTH, max_lines=3)
    return "\n".join([*out, *_stored(d)])


_HEAD = (Column("kind"), Column("cost"), Column("note", 1, words=True))


def _cells(row: Document, plan: Document) -> tuple[object, ...]:
    goes = ("chosen" if plan["choice"] == row["kind"] else "what it had to send" if plan["form"] == row["kind"] else "")
    density = f", {plan['density_ppm'] / 10_000:.3g} % of the weights at most" if goes and row["kind"] == "delta" else ""
    return row["kind"], "-" if row["total"] is None else f"{row['total']:.3g}", f"{goes}{density}" or row["why_not"]


def _stored(d: Document) -> list[str]:
    stored = d["stored"]
    if d["status"] == Status.REFUSED.value:
        return ["stored as it came, and refused: it is never served"]
    on = f", on @{stored['on']}" if stored["on"] is not None else ", on its base"
    state, squash = stored["kept_state"], stored["squash"]
    if stored["gone"]:
        near = " and ".join(f"@{n}" for n in stored["nearest"])
        said = f"thinned: no longer recoverable, its header and digests are kept{f'; nearest are {near}' if near else ''}"
        return textwrap.wrap(said, WIDTH)
    if squash is not None:
        said = f"its own bytes were dropped; a squash leads to it, a {squash['kind']} of {squash['bytes']:,} bytes"
        return textwrap.wrap(said, WIDTH)
    beside = f"; its state is kept too, {state['bytes']:,} bytes" if state is not None else "; its state is not kept"
    said = f"stored as it came{on if stored['as'] != 'snapshot' else ''}{beside}; any version comes back within {stored['recover_within']}"
    return textwrap.wrap(visible(said), WIDTH)
