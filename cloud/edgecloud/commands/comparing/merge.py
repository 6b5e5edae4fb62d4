"""`edgecloud merge`: the exact average of several devices' models as a file, judged on probes before it is written."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from edgecloud.feasibility import fitness, scoring
from edgecloud.merging import judging, parents
from edgecloud.merging.judging import MergeJudgement, RowScores
from edgecloud.merging.parents import RULES, WEIGHTED, MergeParent
from edgecloud.probes import running, sets
from edgecloud.registry import Base, ProbeRow, SqliteStore
from edgecloud.versions import materialise, naming
from edgecommon import files
from edgecommon.printing import Answer
from modelwire.errors import BadArgument

from ..answer import Document, facts, now, progress, registry_of
from ..cohorts import add_cohort, cohort_of

NAME = "merge"
HELP = "Average versions of one base exactly, judge the result, and write it."
EXAMPLES = (
    "edgecloud merge --devices pi-1,pi-2@7,pi-3 --rule mean -o merged.tflite",
    "edgecloud merge --cohort 2 --rule mean -o cohort-2.tflite",
    "edgecloud merge --cohort night.txt --rule weighted --on city -o night.tflite",
)
NAMED, NAMED_A_LINE = 6, 2  # parents that are named in the text


def add(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--devices", metavar="LIST", help="DEVICE[/MODEL][@VERSION],...: the newest version where none is said")
    add_cohort(which)
    parser.add_argument("--model", metavar="MODEL", help="of devices that have several")
    parser.add_argument("--rule", required=True, choices=RULES, help="mean: each counts alike; weighted: by its samples, or --weights")
    parser.add_argument("--weights", metavar="LIST", help="whole numbers in the order of --devices, as 3,1,2")
    parser.add_argument("--on", metavar="PROBES", help="the probe set to judge it on (default: all of the model that have labels)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.tflite", help="the file to write; replaced whole")


def run(args: argparse.Namespace) -> Answer:
    path = Path(args.output)
    if path.suffix != ".tflite":
        raise BadArgument(reason=f"{path.name!r} is no name for a base", fix="name the file FILE.tflite")
    with registry_of(args, readonly=False) as store:
        bases = materialise.LoadedBases(store)
        of = parents.chosen(store, _names(store, args), model=args.model, weights=_weights(args))
        unfit = fitness.unfit(store, [one.version.id for one in of])
        base = parents.require_mergeable(store, of, {id: one.words for id, one in unfit.items()})
        if args.rule == WEIGHTED and args.weights is None:
            of = parents.weighted_by_samples(store, of)
        sets_of_it = _probes(store, args, of[0].lineage.model, bases[base.commit], base)
        state = parents.averaged(store, of, bases, progress("merging"))
        data = materialise.file_of(state, bases[base.commit])
        judged = judging.together({one.name: _judge(store, one, of, base, data, bases) for one in sets_of_it})
        digest = hashlib.sha256(data).digest()
        parents.keep(store, digest, base.commit, args.rule, of, now())
        files.write_named(path, data)
    changed = sum(int(np.count_nonzero(b != w)) for b, w in zip(state.base, state.weights, strict=True))
    document: Document = {
        "file": str(path), "bytes": len(data), "sha256": digest, "base": base.name, "base_commit": base.commit, "rule": args.rule,
        "versions": len(of), "parents": [{"name": str(one), "commit": one.version.commit, "weight": one.weight} for one in of],
        "changed": changed, "weights": state.manifest.schema.size, "judged": [_described(name, one) for name, one in judged.items()],
    }  # fmt: skip
    shown = [str(one) + (f" x {one.weight}" if args.rule == WEIGHTED else "") for one in of[:NAMED]]
    lines = [", ".join(shown[at : at + NAMED_A_LINE]) for at in range(0, len(shown), NAMED_A_LINE)]
    pairs = [
        ("file", path), ("sha256", digest.hex()), ("base", base.name), ("merged of", f"{len(of)} versions, {args.rule}"),
        *(("", line) for line in lines), ("", f"and {len(of) - NAMED} more" if len(of) > NAMED else ""),
        ("changed", f"{changed} of {state.manifest.schema.size} weights against the base"),
        *(pair for name, one in judged.items() for pair in _said(name, one)),
        ("", f"each p is corrected for {len(judged)} probe sets (Holm)" if len(judged) > 1 else ""),
        ("judged on", "" if judged else "nothing: edgecloud probes add keeps rows with labels"),
        ("next", f"edgecloud bases add {path}"),
    ]  # fmt: skip
    return Answer(document, facts(pairs))


def _names(store: SqliteStore, args: argparse.Namespace) -> list[str]:
    """Return the names of what is merged: as they were given, or those of a cohort."""
    if args.devices is not None:
        return _split(args.devices)
    return list(cohort_of(store, args.cohort, args.model).names)


def _split(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _weights(args: argparse.Namespace) -> list[int] | None:
    if args.weights is None:
        return None
    given = _split(args.weights)
    if args.rule != WEIGHTED or args.devices is None or not all(one.isascii() and one.isdigit() and len(one) < 10 for one in given):
        fix = "--devices A,B,C --rule weighted --weights 3,1,2"
        raise BadArgument(reason="weights are whole numbers, one for each of --devices, for --rule weighted", fix=fix)
    return [int(one) for one in given]


def _probes(store: SqliteStore, args: argparse.Namespace, model: str, loaded: materialise.LoadedBase, base: Base) -> list[ProbeRow]:
    """Return the sets to judge on: the one that was named, or all of the model that say what is right."""
    takes = sets.input_of(loaded.file, base.name)
    if args.on is None:
        return [one for one in sets.of_model(store, model, takes.shape) if sets.load(store, one).y is not None]
    found = sets.find(store, args.on)
    probes = sets.load(store, found)
    sets.check_fits(probes, [takes], found.name)
    if probes.y is None:
        raise BadArgument(reason=f"the probe set {found.name!r} has no labels: nothing is right or wrong on it", fix=sets.EXAMPLE)
    return [found]


def _judge(
    store: SqliteStore, row: ProbeRow, of: Sequence[MergeParent], base: Base, merged: bytes, bases: materialise.LoadedBases
) -> MergeJudgement:
    """Return how the merge does on a probe set. Raises BadArgument where it, its base or all of its parents can't be run there."""
    probes = sets.load(store, row)
    assert probes.y is not None  # only such sets are judged on
    places = (naming.Place(one.lineage, one.version.epoch, one.version.base, one.version) for one in of)
    models = chain(
        (running.of_file(base.name, bases[base.commit].file.data), running.of_file("the merge", merged)),
        (running.of_place(store, place, bases) for place in places),
    )  # fmt: skip
    told, good, failed = progress(f"judging on {row.name}"), dict[str, RowScores](), dict[str, str]()
    for done, run in enumerate(running.outputs(models, probes.x, batches=True)):
        if run.output is None:
            failed[run.name] = run.reason
        else:
            good[run.name] = RowScores(*scoring.judged(run.output.reshape(len(run.output), -1), probes.y))
        told(done + 1, len(of) + 2)
    for name in (base.name, "the merge"):
        if name in failed:
            raise BadArgument(reason=f"{name} can't be judged on {row.name}: {failed[name]}", fix=f"edgecloud probes show {row.name}")
    of_base, of_merge = good.pop(base.name), good.pop("the merge")
    if not good:
        reason = f"none of the versions can be judged on {row.name}: {next(iter(failed.values()))}"
        raise BadArgument(reason=reason, fix=f"edgecloud probes show {row.name}")
    return judging.judge(of_merge, of_base, good, failed)


def _described(name: str, one: MergeJudgement) -> Document:
    return {
        "probes": name, "rows": one.rows, "measure": "accuracy" if one.accuracy else "loss", "merged": one.merged,
        "interval": None if one.interval is None else list(one.interval), "base": one.base, "parents": one.parents,
        "best": {"name": one.best[0], "score": one.best[1]}, "worst": {"name": one.worst[0], "score": one.worst[1]},
        "gained": one.gained, "lost": one.lost, "p": one.p, "verdict": one.verdict, "failed": dict(one.failed),
    }  # fmt: skip


def _said(name: str, one: MergeJudgement) -> list[tuple[str, str]]:
    sure = "" if one.interval is None else f" ({one.interval[0]:.3f} to {one.interval[1]:.3f} at 95 %)"
    failed = f"{len(one.failed)}: {next(iter(one.failed))}: {next(iter(one.failed.values()))}" if one.failed else ""
    return [
        ("judged on", f"{name}, {one.rows} rows: {'accuracy' if one.accuracy else 'loss'}"),
        ("  merged", f"{one.merged:.3f}{sure}"),
        ("  verdict", one.verdict),
        ("  base", f"{one.base:.3f}; the merge is better on {one.gained} rows, worse on {one.lost}; p = {one.p:.2g}"),
        ("  versions", f"{one.parents:.3f} on average"),
        ("  best", f"{one.best[1]:.3f} {one.best[0]}"),
        ("  worst", f"{one.worst[1]:.3f} {one.worst[0]}"),
        ("  not run", failed),
    ]
