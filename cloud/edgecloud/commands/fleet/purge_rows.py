"""`edgecloud purge-rows`: the rows of recipes go, what they came to stays."""

from __future__ import annotations

import argparse

from edgecloud.keeping import deciding, purging
from edgecloud.versions import naming
from edgecommon.printing import Answer
from modelwire.errors import BadArgument

from ..answer import Document, now, registry_of, sentences
from ..sealing import add_key, command_key, decided_number, unlock

NAME = "purge-rows"
HELP = "Drop the feature rows of a device's recipes that hold forgotten samples; each version stays recoverable, and is replayed no more."
EXAMPLES = ("edgecloud purge-rows pi-7", "edgecloud purge-rows pi-7/digits --all")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL]", help="a device or a model")
    parser.add_argument("--all", action="store_true", help="of all recipes, whether a sample of theirs was forgotten or not")
    add_key(parser)


def run(args: argparse.Namespace) -> Answer:
    name = naming.parse(args.name)
    if name.version is not None:
        raise BadArgument(reason=f"{args.name} is one version", fix=f"edgecloud purge-rows {name.device}")
    with registry_of(args, readonly=False) as store:
        all_models = [] if name.model else store.lineages.of(name.device)
        found = [(lineage, purging.find(store, lineage, every=args.all)) for lineage in all_models or [naming.find_lineage(store, name)]]
        purged = {str(lineage): [v.version for v in one.recipes] for lineage, one in found if one.recipes}
        nameless = {str(lineage): list(one.nameless) for lineage, one in found if one.nameless}
        waiting = {str(lineage): list(one.waiting) for lineage, one in found if one.waiting}
        number = 0
        if not purged and store.thinnings.discards(1):
            purging.purge(store, found[0][0], number, ())  # what a kill has left of the last time
        if purged:
            with unlock(args, store), store.transaction():
                number = deciding.decide_purge(store, command_key(args, store), name.device, decided_number(store), now()).number
            for lineage, one in found:
                purging.purge(store, lineage, number, one.recipes)
    document: Document = {"number": number, "purged": purged, "nameless": nameless, "waiting": waiting}
    lines = [f"{model}: the rows of {_listed(versions)} are gone; what they came to is kept" for model, versions in purged.items()]
    lines += [f"{model}: {_listed(versions)} say not which samples their rows are of; --all drops them, too" for model, versions in
              nameless.items()]  # fmt: skip
    lines += [f"{model}: {_listed(versions)} wait to be judged, and stay until then" for model, versions in waiting.items()]
    none, beside = "no recipe holds rows of forgotten samples", "not reached from here: backups, and what the board itself holds"
    lines.append(beside if purged else none)
    return Answer(document, sentences(lines))


def _listed(versions: list[int]) -> str:
    return ", ".join(f"@{version}" for version in versions)
