"""`edgecloud verify`: every version is what its device published, or is named."""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from edgecloud.audit import anchors
from edgecloud.proving import sampling
from edgecloud.registry import LineageRow, SqliteStore, Status
from edgecloud.settings import registry_path
from edgecloud.versions import materialise, naming
from edgecommon.arguments import never_with, whole
from edgecommon.printing import Answer, visible
from modelwire.errors import BadArgument, ModelWireError, RegistryDamaged

from ..answer import Document, problems, progress, registry_of, sentences
from ..model_files import read_model

NAME = "verify"
HELP = "Prove versions: bytes, signature, commit, fingerprint and root; and that the registry holds what its signed log says."
EXAMPLES = (
    "edgecloud verify --all",
    "edgecloud verify pi-7",
    "edgecloud verify pi-7/digits@12 --json",
    "edgecloud verify pi-7@12 --file model.tflite",
    "edgecloud verify --sample 2%",
    "edgecloud verify --all --anchor /mnt/elsewhere/fleet.anchors",
)


def add(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("name", nargs="?", metavar="DEVICE[/MODEL][@VERSION]", help="one version, or all of a device or model")
    parser.add_argument("--file", metavar="FILE.tflite", help="prove that a bare file holds the weights of this one version, bit for bit")
    parser.add_argument("--anchor", metavar="FILE", help="prove that the log holds every line that edgecloud anchor wrote into this file")
    parser.add_argument("--sample", metavar="N|SHARE", help="500 or 2%%: prove so many drawn at random, and say what that says of all")
    parser.add_argument("--seed", type=whole(0, most=(1 << 63) - 1), metavar="N", help="draw the same sample again; it is always said")
    which.add_argument("--all", action="store_true", help="every version of every device (the default)")
    never_with(parser, "--all", "--file")
    never_with(parser, "--anchor", "--file")
    never_with(parser, "--sample", "--file")


def run(args: argparse.Namespace) -> Answer:
    if args.file is not None:
        return _verify_file(args)
    started = time.monotonic()
    seed = args.seed if args.seed is not None else secrets.randbits(63)
    with registry_of(args) as store:
        tampered = problems(store)
        if args.anchor is not None:
            tampered += anchors.missed(store, anchors.read(Path(args.anchor), store.identity.id, required=True))
        total, results, of_all = _to_verify(store, args.name, args.sample, seed)
        counts, wrong = _counted(results, total)
        refused, bases = (0, []) if args.name else (_count(store, store.lineages.all(), refused=True), _wrong_bases(store))
    took = round(time.monotonic() - started, 3)
    exact, waiting, thinned, proven = counts["exact"], counts["waiting"], counts["thinned"], counts["exact"] + counts["thinned"]
    checked = proven + waiting + len(wrong)
    document: Document = {
        "checked": checked, **counts, "wrong": wrong + bases, "tampered": tampered, "refused": refused, "seconds": took,
    }  # fmt: skip
    aside = f", {waiting} waiting: a running ingester rebuilds and judges them" if waiting else ""
    aside += f", {thinned} thinned ones proven by what their devices signed" if thinned else ""
    aside += f", {refused} refused ones are never served" if refused else ""
    lines = [f"{exact} of {checked} versions exact{aside} ({took:.1f} s)"]
    if args.sample is not None:
        document |= {"of": of_all, "seed": seed, "most_damaged": None if wrong or not proven else sampling.most_damaged(of_all, proven)}
        lines += [sampling.in_words(of_all, proven)] if proven and not wrong else []
        lines += [f"drawn of {of_all}: --seed {seed} draws the same again"]
    lines += [f"NOT EXACT {w['name']}: {w['message']}" for w in document["wrong"]]
    lines += [f"CHANGED {one}" for one in tampered]
    error: ModelWireError | None = None
    if tampered:
        more = f", and {len(tampered) - 1} more" if len(tampered) > 1 else ""
        error = RegistryDamaged(path=registry_path(args.db), reason=f"{tampered[0]}{more}")
    elif document["wrong"]:
        error = RegistryDamaged(path=registry_path(args.db), reason=f"{len(document['wrong'])} of its versions or bases are not exact")
    asked_for = args.name is not None and naming.parse(args.name).version is not None
    return Answer(document, sentences(lines), code=1 if asked_for and waiting else 0, error=error)


def _counted(results: Iterator[materialise.Checked], total: int) -> tuple[dict[str, int], list[Document]]:
    """Return how many versions are exact, thinned, and waiting, and those that are none of these."""
    counts, wrong, say = {"exact": 0, "waiting": 0, "thinned": 0}, list[Document](), progress("versions")
    for one in results:
        if one.error is None:
            counts["waiting" if one.waiting else "thinned" if one.thinned else "exact"] += 1
        else:
            wrong.append({"name": str(one), "error": type(one.error).__name__, "message": str(one.error)})
        say(sum(counts.values()) + len(wrong), total)
    return counts, wrong


def _verify_file(args: argparse.Namespace) -> Answer:
    """Prove a bare file against one version by the weights node of its root."""
    name = None if args.name is None else naming.parse(args.name)
    if name is None or name.version is None:
        raise BadArgument(reason="--file is compared with one version", fix=f"edgecloud verify DEVICE[/MODEL]@VERSION --file {args.file}")
    path = Path(args.file)
    given = read_model(path)
    with registry_of(args) as store:
        bases = materialise.LoadedBases(store)
        place = naming.find(store, name)
        state = materialise.rebuild(store, place.version, bases) if place.version is not None else bases[place.base].state()
        materialise.prove_file(state, given, str(place))
    parts = state.root_parts
    document: Document = {"name": str(place), "file": str(path), "exact": True, "root": parts.root, "weights_node": parts.weights}
    return Answer(document, visible(f"{path} holds the weights of {place}, bit for bit (weights node {parts.weights.hex()})"))


def _to_verify(store: SqliteStore, text: str | None, sample: str | None, seed: int) -> tuple[int, Iterator[materialise.Checked], int]:
    """Return how many versions are proven, the proofs, and of how many those are a sample."""
    bases = materialise.LoadedBases(store)
    if text is not None and naming.parse(text).version is not None:
        place = naming.find(store, naming.parse(text))
        if sample is not None:
            raise BadArgument(reason=f"--sample draws of several versions, and {text} is one", fix=f"edgecloud verify {text}")
        if place.version is None:
            bases[place.base].state()
            return 1, iter([materialise.Checked(place.lineage, None, None)]), 1
        return 1, iter([materialise.check_version(store, place.version, bases)]), 1
    if text is None:
        lineages = store.lineages.all()
    else:
        name = naming.parse(text)
        all_models = [] if name.model else store.lineages.of(name.device)
        lineages = all_models or [naming.find_lineage(store, name)]
    if sample is not None:
        drawn, of_all = sampling.drawn(store, (line.id for line in lineages), sample, seed)
        return len(drawn), (materialise.check_version(store, version, bases) for version in drawn), of_all
    total = _count(store, lineages, refused=False)
    return total, (one for line in lineages for one in materialise.check_lineage(store, line, bases)), total


def _count(store: SqliteStore, lineages: list[LineageRow], *, refused: bool) -> int:
    return sum((v.status is Status.REFUSED) == refused for line in lineages for v in store.versions.each(line.id))


def _wrong_bases(store: SqliteStore) -> list[Document]:
    wrong: list[Document] = []
    for base in store.bases.all():
        try:
            materialise.LoadedBases(store)[base.commit].state()
        except ModelWireError as error:
            wrong.append({"name": f"base {base.name}", "error": type(error).__name__, "message": str(error)})
    return wrong
