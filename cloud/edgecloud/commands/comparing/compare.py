"""`edgecloud compare`: two models, by their weights and by what they make of a probe set."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from edgecloud.probes import agreeing, intermediates, sets
from edgecloud.probes.comparing import THRESHOLD, LayerApart, layers_apart, parting
from edgecloud.probes.intermediates import IntermediateSettings, VersionSeen
from edgecloud.registry import SqliteStore
from edgecloud.versions import comparing, materialise, naming
from edgecommon.arguments import never_with, number, only_with
from edgecommon.printing import Answer
from edgecommon.tables import Column
from modelwire.errors import BadArgument, ModelError

from ..answer import Document, now, progress, registry_of, sentences, table
from ..distances import described, share, units
from .plots import add_plot, draw_layers, plot_of

NAME = "compare"
HELP = "Compare two models: weights, and outputs and layers on a probe set."
EXAMPLES = (
    "edgecloud compare pi-7@7 pi-8@7",
    "edgecloud compare pi-7@base pi-7@latest --on night",
    "edgecloud compare pi-7@7 pi-8@7 --on night --context light=night",
    "edgecloud compare pi-7@7 pi-8@7 --on night --layers --exact",
)
_LINES, _FEW = 10, 3  # rows of a table and tensors on one screen


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A@VERSION")
    parser.add_argument("second", metavar="B@VERSION")
    parser.add_argument("--on", metavar="PROBES", help="run both on this probe set")
    parser.add_argument("--context", metavar="TAG=VALUE,...", default="", help="on its rows alone that carry these tags")
    parser.add_argument("--layers", action="store_true", help="show where the two part: how far apart what each layer gives is")
    parser.add_argument(
        "--threshold", type=number(most=1e6), metavar="SHARE", help=f"of its norm, from which on a layer parts (default: {THRESHOLD})"
    )
    parser.add_argument("--pool", action="store_true", help="of a layer with rows and columns, compare the means alone")
    parser.add_argument("--all-bits", action="store_true", help="keep layers to the bit, not in 8 bits a value")
    parser.add_argument("--exact", action="store_true", help="compute all anew, to the bit; read and keep nothing")
    for option in ("--context", "--layers", "--exact"):
        only_with(parser, option, "--on")
    for option in ("--pool", "--threshold", "--all-bits"):
        only_with(parser, option, "--layers")
    never_with(parser, "--all-bits", "--exact")
    add_plot(parser, "how far the layers are apart")
    only_with(parser, "--plot", "--layers")


def run(args: argparse.Namespace) -> Answer:
    plot = plot_of(args)
    with registry_of(args, readonly=not args.on or args.exact) as store:
        bases = materialise.LoadedBases(store)
        places = [naming.find(store, naming.parse(n)) for n in (args.first, args.second)]
        document, text = _weights(store, places, bases, table_of_tensors=not args.on)
        if args.on:
            more, parts = _on_probes(args, store, places, bases, plot)
            document, text = {**document, **more}, [*text, *parts]
    return Answer(document, "\n".join(text))


def _weights(
    store: SqliteStore, places: list[naming.Place], bases: materialise.LoadedBases, *, table_of_tensors: bool
) -> tuple[Document, list[str]]:
    states = [materialise.rebuild(store, p.version, bases) if p.version else bases[p.base].state() for p in places]
    document: Document = {"first": str(places[0]), "second": str(places[1]), "same_base": places[0].base == places[1].base}
    if states[0].manifest.schema.id != states[1].manifest.schema.id:
        return {**document, "weights": None}, [f"{places[0]} -> {places[1]}: of models with other tensors; their weights are not compared"]
    apart = comparing.distance(states[0], states[1])
    document["weights"] = described(apart)
    rows = [(t.name, t.entries, t.changed, units(t), share(t.relative), f"{t.leaves_changed} of {t.leaves}") for t in apart.tensors]
    whole = f"{places[0]} -> {places[1]}: {apart.changed:,} of {apart.entries:,} weights differ"
    whole += f", in {apart.leaves_changed} of {apart.leaves} leaves"
    base = "" if apart.same_base else "; on different bases, so not in lattice units"
    text = [sentences([f"{whole}; by {apart.largest:.6g} at most, l2 {apart.l2:.6g}{base}"])]
    if apart.changed and table_of_tensors:
        text.append(table(_TENSORS, [row for row, t in zip(rows, apart.tensors, strict=True) if t.changed]))
    elif apart.changed:  # what they do is asked for: one screen holds no more
        most = sorted((t for t in apart.tensors if t.changed), key=lambda t: -(math.inf if t.relative is None else t.relative))[:_FEW]
        text.append(sentences([f"furthest, of their norm: {', '.join(f'{t.name} {share(t.relative)}' for t in most)}"]))
    return document, text


_TENSORS = (Column("tensor"), Column("entries", 2), Column("changed"), Column("lattice units", 3), Column("relative"), Column("leaves", 1))


def _on_probes(
    args: argparse.Namespace, store: SqliteStore, places: list[naming.Place], bases: materialise.LoadedBases, plot: Path | None
) -> tuple[Document, list[str]]:
    row = sets.find(store, args.on)
    other = next((p for p in places if row.model not in ("", p.lineage.model)), None)
    if other is not None:
        reason = f"the probe set {row.name!r} is for models {row.model!r}, and {other} is none"
        raise BadArgument(reason=reason, fix="edgecloud probes list names the model of each set")
    probes = sets.load(store, row)
    chosen = probes.rows(args.context)  # before anything is run: a context that nobody has
    sets.check_fits(probes, [sets.input_of(bases[p.base].file, str(p)) for p in places[:1]], row.name)
    sets.check_fits(probes, [sets.input_of(bases[p.base].file, str(p)) for p in places[1:]], row.name)
    settings = IntermediateSettings.from_environment(all_bits=args.all_bits, pool=args.pool)
    both = intermediates.seen(
        store, places, row, probes, bases, now=now(), layers=args.layers, exact=args.exact, settings=settings,
        progress=progress("models run"),
    )  # fmt: skip
    broken = next((one for one in both if one.reason), None)
    if broken is not None:
        raise ModelError(model=broken.name, reason=f"on {row.name}: {broken.reason}", fix="edgecloud compare without --on compares weights")
    part = probes if len(chosen) == len(probes) else probes.part(chosen)
    outputs = [one.output[chosen] for one in both if one.output is not None]
    if outputs[0].shape != outputs[1].shape:
        reason = f"its outputs are of shape {list(outputs[1].shape[1:])}, those of {both[0].name} of {list(outputs[0].shape[1:])}"
        raise ModelError(model=both[1].name, reason=reason, fix="compare models that say the same things")
    found = agreeing.agreement(outputs[0], outputs[1], part)
    told: Document = {"probes": row.name, "digest": row.digest, "context": args.context, "rows": len(part), **_document(found)}
    text = ["", *_agreement(found, row.name, args.context), _table(found, both)]
    if args.layers:
        if plot is not None:
            draw_layers(plot, layers_apart(both[0], both[1])[0], both[0].name, both[1].name, args.threshold or THRESHOLD)
        more, lines = _layers(both, args.threshold or THRESHOLD, len(probes))
        told, text = {**told, **more}, [*text, *lines]
    return {"on": told}, text


def _document(found: agreeing.ProbeAgreement) -> Document:
    rows = [
        {"of": r.of or "all", "rows": r.n, "right_first": r.right_a, "right_second": r.right_b, "only_first": r.only_a,
         "only_second": r.only_b, "p": r.p, "interval_first": list(r.interval_a), "interval_second": list(r.interval_b)}
        for r in found.accuracies
    ]  # fmt: skip
    near = [
        {"of": r.of or "all", "rows": r.n, "error_first": r.error_a, "error_second": r.error_b, "nearer_first": r.nearer_a,
         "nearer_second": r.nearer_b, "p": r.p}
        for r in found.nearness
    ]  # fmt: skip
    return {
        "same": found.same, "max_abs": found.largest, "mean_abs": found.mean, "accuracies": rows, "errors": near,
        "calibration_first": found.calibration_a, "calibration_second": found.calibration_b,
    }  # fmt: skip


def _agreement(found: agreeing.ProbeAgreement, name: str, context: str) -> list[str]:
    where = f"on {found.n} rows of {name}" + (f" with {context}" if context else "")
    same = f"the same {'class' if found.classes else 'numbers'} for {found.same} ({100 * found.same / found.n:.1f} %)"
    lines = [f"{where}: {same}; outputs differ by {found.largest:.3g} at most, {found.mean:.3g} on average"]
    if found.calibration_a is not None and found.calibration_b is not None:
        lines.append(f"confidence is off by {found.calibration_a:.3f} and {found.calibration_b:.3f} on average (10 bins)")
    return [sentences(lines)]


def _table(found: agreeing.ProbeAgreement, both: list[VersionSeen]) -> str:
    named = f"A {both[0].name}, B {both[1].name}\n"
    if found.accuracies:
        rows = [
            (r.of or "all", r.n, _rate(r.right_a, r.n, r.interval_a), _rate(r.right_b, r.n, r.interval_b), r.only_a, r.only_b, _p(r.p))
            for r in _telling(found.accuracies)
        ]
        return f"{_with_rest(table(_ACCURACIES, rows), found.accuracies)}\n{named}95 % intervals; p: {_TESTED}"
    if found.nearness:
        near = [
            (r.of or "all", r.n, f"{r.error_a:.4g}", f"{r.error_b:.4g}", r.nearer_a, r.nearer_b, _p(r.p)) for r in _telling(found.nearness)
        ]
        return f"{_with_rest(table(_ERRORS, near), found.nearness)}\n{named}mean squared errors; p: sign test, Holm over contexts"
    return "the set has no labels: who is right is not known"


_Line = TypeVar("_Line", agreeing.Accuracies, agreeing.Nearness)


def _telling(rows: Sequence[_Line]) -> list[_Line]:
    """Return all rows, or those on which the two differ most surely, in their order."""
    most = sorted(range(1, len(rows)), key=lambda n: (rows[n].p, n))[: _LINES - 1]
    return [row for n, row in enumerate(rows) if not n or n in most]


def _with_rest(text: str, rows: Sequence[object]) -> str:
    left = len(rows) - _LINES
    return text + (f"\n{left} more, on which they differ less surely: --json" if left > 0 else "")


_TESTED = "McNemar, Holm over classes, contexts"
_ACCURACIES = (
    Column("rows of"), Column("n"), Column("A right %"), Column("B right %"), Column("A alone", 2), Column("B alone", 2), Column("p"),
)  # fmt: skip
_ERRORS = (Column("rows of"), Column("n"), Column("A error"), Column("B error"), Column("A nearer", 2), Column("B nearer", 2), Column("p"))


def _rate(right: int, n: int, interval: tuple[float, float]) -> str:
    return f"{100 * right / n:.1f} ({100 * interval[0]:.0f}-{100 * interval[1]:.0f})"


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else "< 0.0001"


def _layers(both: list[VersionSeen], threshold: float, rows: int) -> tuple[Document, list[str]]:
    layers, odd = layers_apart(both[0], both[1])
    first = parting(layers, threshold)
    document: Document = {
        "layers": [
            {"layer": one.name, "values": one.values, "equal": one.equal, "uncertain": one.uncertain,
             "relative": one.relative if math.isfinite(one.relative) else None} for one in layers
        ],
        "not_compared": odd, "threshold": threshold, "parts_at": first.name if first else None,
        "read": [one.read for one in both], "kept": [one.kept for one in both],
    }  # fmt: skip
    none = f"no layer is further apart than {threshold:g} of its norm"
    parts = f"they part at {first.name}: {_far(first)} of its norm" if first else none
    said = f"over all {rows} rows {parts}"
    lines = [said + (f"; not compared, for one has them alone: {', '.join(odd[:_FEW])}" if odd else "")]
    if any(one.uncertain for one in layers):
        lines.append("+- is what keeping values in 8 bits may have changed; --exact computes them anew")
    shown = [(one.name, one.values, _far(one), "" if first is not one else "<- here") for one in layers]
    return document, ["", sentences(lines), table((Column("layer"), Column("values", 2), Column("apart"), Column("", 1)), shown)]


def _far(one: LayerApart) -> str:
    if one.equal:
        return "equal bits"
    return f"{one.relative:.3g}" + (f" +- {one.uncertain:.1g}" if one.uncertain else "")
