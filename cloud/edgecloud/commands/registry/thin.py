"""`edgecloud thin`: the policy is carried out, now."""

from __future__ import annotations

import argparse

from edgecloud.keeping.thinning import Thinner
from edgecloud.registry import LineageRow, SqliteStore
from edgecloud.settings import registry_path
from edgecloud.versions import naming
from edgecommon.printing import Answer
from modelwire.errors import BadArgument, RegistryDamaged

from ..answer import Document, progress, registry_of, sentences

NAME = "thin"
HELP = "Let go what the policy does not keep; what stays comes back bit for bit, what goes stays listed and provable."
EXAMPLES = ("edgecloud thin --dry-run", "edgecloud thin", "edgecloud thin pi-7")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="DEVICE[/MODEL]", help="a device or a model (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and change nothing")


def run(args: argparse.Namespace) -> Answer:
    with registry_of(args, readonly=args.dry_run) as store:
        thinner = Thinner(store)
        number, keep = thinner.policy()
        lineages = _chosen(store, args.name)
        document: Document = {"policy": number, "keep": str(keep), "dry_run": args.dry_run}
        if keep.everything:
            if not args.dry_run:
                thinner.run([])  # bytes that an earlier policy let go, and a kill left here
            return Answer({**document, "gone": 0, "squashed": 0, "failed": {}}, "all is kept: edgecloud policy --keep says what is to stay")
        if args.dry_run:
            plans = {str(lineage): sum(len(job.gone) for job in thinner.plan(lineage, keep)) for lineage in lineages}
            plans = {name: count for name, count in plans.items() if count}
            lines = [f"policy {number} keeps {keep}: {sum(plans.values())} versions would go"]
            lines += [f"  {name}: {count}" for name, count in plans.items()]
            return Answer({**document, "gone": sum(plans.values()), "models": plans}, sentences(lines))
        done = thinner.run(lineages, progress("versions"))
        free = store.database.number("PRAGMA freelist_count") * store.database.number("PRAGMA page_size")
    document |= {"gone": done.gone, "squashed": done.squashed, "dropped": done.dropped, "free_bytes": free, "failed": done.failed}
    lines = [f"policy {number} keeps {keep}: {done.gone} versions are gone, {done.squashed} updates were squashed"]
    lines.append(f"{free} bytes are free in the registry's file for what comes next; the file itself does not shrink")
    lines += [f"LEFT AS IT IS {name}: {reason}" for name, reason in done.failed.items()]
    error = None
    if done.failed:
        error = RegistryDamaged(path=registry_path(args.db), reason=f"{len(done.failed)} models can't be rebuilt, so nothing of them went")
    return Answer(document, sentences(lines), error=error)


def _chosen(store: SqliteStore, text: str | None) -> list[LineageRow]:
    if text is None:
        return store.lineages.all()
    name = naming.parse(text)
    if name.version is not None:
        raise BadArgument(reason=f"{text} is one version", fix=f"edgecloud thin {name.device}")
    all_models = [] if name.model else store.lineages.of(name.device)
    return all_models or [naming.find_lineage(store, name)]
