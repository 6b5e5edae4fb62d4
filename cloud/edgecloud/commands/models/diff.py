"""`edgecloud diff`: how far two versions are from each other."""

from __future__ import annotations

import argparse

from edgecloud.versions import comparing, materialise, naming
from edgecommon.printing import Answer
from edgecommon.tables import Column

from ..answer import Document, registry_of, table
from ..distances import described, share, units

NAME = "diff"
HELP = "Say how far two versions are from each other, tensor by tensor."
EXAMPLES = ("edgecloud diff pi-7@3 pi-8@7", "edgecloud diff pi-7@base pi-7@latest --json")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A@VERSION")
    parser.add_argument("second", metavar="B@VERSION")


def run(args: argparse.Namespace) -> Answer:
    with registry_of(args) as store:
        bases = materialise.LoadedBases(store)
        places = [naming.find(store, naming.parse(n)) for n in (args.first, args.second)]
        states = [materialise.rebuild(store, p.version, bases) if p.version else bases[p.base].state() for p in places]
    apart = comparing.distance(states[0], states[1])
    document: Document = {"first": str(places[0]), "second": str(places[1]), "same_base": apart.same_base, **described(apart)}
    rows = [(t.name, t.entries, t.changed, units(t), f"{t.largest:.6g}", f"{t.l2:.6g}", share(t.relative)) for t in apart.tensors]
    rows.append(("all", apart.entries, apart.changed, "", f"{apart.largest:.6g}", f"{apart.l2:.6g}", ""))
    title = f"{places[0]} -> {places[1]}"
    return Answer(document, table(_HEAD, rows, title=title))


_HEAD = (
    Column("tensor"), Column("entries", 4), Column("changed"), Column("lattice units", 1), Column("max |dw|", 1), Column("l2", 3),
    Column("relative", 2),
)  # fmt: skip
