"""`edgecloud nearest`: which versions are most like one."""

from __future__ import annotations

import argparse

from edgecloud.searching import nearest
from edgecloud.searching.nearest import Search
from edgecloud.versions import naming
from edgecommon.arguments import whole
from edgecommon.printing import Answer
from edgecommon.tables import Column

from ..answer import Document, progress, registry_of, sentences, table

NAME = "nearest"
HELP = "Say which other versions are most like one, by exact distance."
EXAMPLES = ("edgecloud nearest pi-7@3", "edgecloud nearest pi-7 --all-versions --count 20 --json")
COUNT_MAX = 1000


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", metavar="DEVICE[/MODEL][@VERSION]")
    parser.add_argument("--count", type=whole(1, COUNT_MAX), default=5, metavar="N", help="how many to name (default: 5)")
    parser.add_argument("--all-versions", action="store_true", help="look among all versions, not the newest of each other model alone")
    parser.add_argument("--exact", action="store_true", help="measure every one of them, and leave nothing to sketches; takes long")


def run(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        place = naming.find(store, naming.parse(args.version))
        found = nearest.nearest(
            store, place, count=args.count, every=args.all_versions, exact=args.exact, progress=progress("versions")
        )
    document: Document = {"of": str(place), **documented(found)}
    lines = [said_of(found, most=None if args.exact else nearest.shortlisted(args.count), every=args.all_versions), *notes(found)]
    return Answer(document, "\n".join([table(COLUMNS, rows(found), title=f"nearest to {place}"), "", sentences(lines)]))


COLUMNS = (Column("version", 0), Column("distance", 0), Column("of base", 1), Column("weights apart", 2), Column("by sketch", 3))


def documented(found: Search) -> Document:
    """Return a search as a document."""
    return {
        "base": found.base, "on_lattice": found.on_lattice, "distance_from_base": round(found.from_base, 3),
        "compared": found.compared, "measured": found.measured, "unsketched": found.unsketched, "elsewhere": found.elsewhere,
        "unmeasured": [{"version": name, "reason": reason} for name, reason in found.unmeasured],
        "nearest": [
            {"version": str(one), "device": one.lineage.device, "model": one.lineage.model, "number": one.version.version,
             "distance": round(one.apart.distance, 3), "changed": one.apart.changed, "by_sketch": round(one.guessed, 3)}
            for one in found.neighbours
        ],
    }  # fmt: skip


def rows(found: Search) -> list[tuple[object, ...]]:
    """Return the rows of a search under COLUMNS."""
    return [
        (str(one), f"{one.apart.distance:.1f}", _share(one.apart.distance, found.from_base), one.apart.changed, f"{one.guessed:.1f}")
        for one in found.neighbours
    ]


def said_of(found: Search, *, most: int | None, every: bool) -> str:
    """Return among what was looked, and how sure that is. most: how many the sketches were to choose; None: all."""
    what = "versions" if every else "newest versions"
    chosen = found.measured + len(found.unmeasured)
    how = "measured exactly, in units of its lattice"
    if not chosen:
        return f"No other of the {what} is on the base {found.base!r}."
    if most is None or chosen < most or chosen == found.compared:
        all_of = f"All {found.measured}" if not found.unmeasured else f"{found.measured} of {chosen}"
        return f"{all_of} {what} on the base {found.base!r} were {how}."
    which = "which were" if not found.unmeasured else f"of which {found.measured} were"
    return (
        f"Of {found.compared} {what} on the base {found.base!r} sketches chose {chosen}, {which} {how};"
        " a nearer one may be among the others: --exact measures them all."
    )


def notes(found: Search) -> list[str]:
    """Return what was not compared, and why."""
    out = [f"{name} was not measured: {reason}" for name, reason in found.unmeasured[:3]]
    if len(found.unmeasured) > 3:
        out.append(f"{len(found.unmeasured) - 3} more were not measured: --json names them")
    if found.unsketched:
        out.append(f"{found.unsketched} versions have no sketch and can't be rebuilt: edgecloud verify --all says why")
    if found.elsewhere:
        models = ", ".join(f"{n} on {name!r}" for name, n in sorted(found.elsewhere.items()))
        out.append(f"Models of other bases can't be compared with it: {models}.")
    return out


def _share(distance: float, whole: float) -> str:
    """Return a distance as a share of how far the version is from its base."""
    return f"{100 * distance / whole:.0f} %" if whole else ""
