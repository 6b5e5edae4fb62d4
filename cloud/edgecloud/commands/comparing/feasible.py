"""`edgecloud feasible`: whose model would do for a device, or in a context."""

from __future__ import annotations

import argparse
import math

from edgecloud.feasibility import matrix, ranking
from edgecloud.feasibility.intervals import Estimate
from edgecloud.feasibility.ranking import BASE, OTHER, OWN, RankedModel, Ranking
from edgecloud.probes import running, sets
from edgecloud.versions import naming
from edgecommon.arguments import never_with, whole
from edgecommon.printing import Answer
from edgecommon.tables import Column
from modelwire.errors import BadArgument

from ..answer import Document, progress, registry_of, sentences, table

NAME = "feasible"
HELP = "Say whose model would do for a device, or in a context, and how sure."
EXAMPLES = (
    "edgecloud feasible --for pi-7",
    "edgecloud feasible --context region=alps,light=night --model digits",
    "edgecloud feasible --for pi-7 --on roads --count 3 --json",
)
COUNT = 10
_FEW = 4  # names in a sentence


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", dest="device", metavar="DEVICE[/MODEL]", help="rows count as often as its data cards tell of them")
    parser.add_argument("--context", metavar="TAG=VALUE[,...]", help="rows that carry all of these tags")
    parser.add_argument("--model", metavar="M", help="which model; needed where the fleet has several")
    parser.add_argument("--on", metavar="PROBES", help="the probe set; needed where the model has several")
    text = f"how many models of others are shown (default: {COUNT})"
    parser.add_argument("--count", type=whole(1), default=COUNT, metavar="N", help=text)
    never_with(parser, "--for", "--context")


def run(args: argparse.Namespace) -> Answer:
    if (args.device is None) == (args.context is None):
        fix = "edgecloud feasible --for pi-7, or --context light=night"
        raise BadArgument(reason="feasible asks for one DEVICE or one context", fix=fix)
    with registry_of(args) as store:
        lineage = None
        if args.device is not None:
            name = naming.parse(args.device)
            if name.version is not None:
                raise BadArgument(reason=f"{name} is one version", fix=f"--for {name.device}: it is the device that a model is looked for")
            named = naming.Name(name.device, name.model or args.model, None)
            lineage = naming.find_lineage(store, named)
        model, probe = matrix.choose(store, args.model if lineage is None else lineage.model, args.on)
        with running.Spare() as spare:  # of many models a few rows are asked first
            found = ranking.rank(
                store, model, probe, device=lineage, context=_context(args.context), count=args.count, progress=progress("models"),
                spare=spare,
            )  # fmt: skip
    return Answer(_document(found), _text(found))


def _context(text: str | None) -> str:
    return "" if text is None else sets.context_name(sets.parse_context(text))


def _document(found: Ranking) -> Document:
    best = found.best
    return {
        "model": found.model, "probes": found.probes.name, "digest": found.probes.digest, "asked": found.asked, "measure": found.measure,
        "rows": len(found.rows.rows), "weighted_by": list(found.rows.fields), "lacking": dict(found.rows.lacking or {}),
        "candidates": found.candidates, "by_cards": found.by_cards, "by_pilot": found.by_pilot, "unfit": list(found.unfit),
        "bases": found.bases, "own_unfit": found.own_unfit or None, "failed": dict(found.failed),
        "shared": found.shared, "hardware": dict(found.hardware),
        "best": None if best is None else best.name, "better_than_base": found.is_better(BASE),
        "better_than_own": found.is_better(OWN) if any(one.role == OWN for one in found.models) else None,
        "models": [
            {"name": one.name, "role": one.role, "device": one.device, "chosen_by": one.chosen_by, **_estimate(one.score),
             "p_no_better_than_base": None if one.role == BASE else one.ahead, "data_apart": one.apart, "hardware": dict(one.hardware)}
            for one in found.models
        ],
    }  # fmt: skip


def _estimate(of: Estimate) -> Document:
    low, high = (value if math.isfinite(value) else None for value in (of.low, of.high))
    return {"score": of.value, "low": low, "high": high, "rows": of.rows, "effective_rows": round(of.size, 1)}


def _text(found: Ranking) -> str:
    head = (
        Column("model"), Column(found.measure), Column("95 in 100"), Column("p vs base", 2), Column("data apart", 4),
        Column("hardware", 3, words=True),
    )  # fmt: skip
    rows = [
        (
            f"{one.name}{_ROLES[one.role]}", _number(one.score.value, found),
            f"{_number(one.score.low, found)} to {_number(one.score.high, found)}",
            "" if one.role == BASE else f"{one.ahead:.2g}", "" if one.apart is None else f"{one.apart:.2f}", _hardware(one, found),
        )
        for one in found.models
    ]  # fmt: skip
    title = f"{found.model} for {found.asked or 'all rows'}, on {found.probes.name}"
    return "\n".join((table(head, rows, title=title), sentences(_remarks(found))))


_ROLES = {BASE: " (base)", OWN: " (own)", OTHER: ""}


def _number(value: float, found: Ranking) -> str:
    return f"{value:.3f}" if found.measure == "accuracy" else f"{value:.4g}"


def _hardware(one: RankedModel, found: Ranking) -> str:
    if not one.hardware:
        return "" if one.role == BASE else "not told"
    odd = [key for key, value in one.hardware.items() if found.hardware and found.hardware.get(key, value) != value]
    said = ", ".join(one.hardware[key] for key in ("board", "isa", "runtime") if key in one.hardware)
    return f"{said}; other {', '.join(odd)}" if odd else said


def _remarks(found: Ranking) -> list[str]:
    out, best = [_verdict(found)], found.best
    size = found.models[0].score if found.models else None
    if size is not None:
        even = f"weighted by {', '.join(found.rows.fields)}: as much as {size.size:.0f} that count the same"
        how = "each counts the same" if found.rows.even else even
        out.append(f"Judged on {size.rows} rows, {how}; chosen and put in order on {len(found.rows.rows) - size.rows} others.")
        exact = "exact" if found.rows.even else "of so many rows as count the same (Korn and Graubard)"
        out.append(f"Interval: {f'Clopper and Pearson, {exact}' if found.measure == 'accuracy' else 'of a mean of skewed values'}.")
    stages = f"{found.candidates} models of others: {found.by_cards} left by data cards, {found.by_pilot} by a few rows"
    out.append(f"{stages}; {found.shared} shared one pass through their backbone.")
    if found.bases > 1:
        whose = "its own" if any(one.role == OWN for one in found.models) else "that of most"
        out.append(f"These models start from {found.bases} bases: the one that they are held against is {whose}.")
    lacking = sorted((found.rows.lacking or {}).items(), key=lambda one: -one[1])
    if lacking:
        said = ", ".join(f"{name} ({share:.0%})" for name, share in lacking[:_FEW])
        out.append(f"No row has {said} of its samples: nothing is said of these.")
    if found.own_unfit:
        out.append(f"Its own model is {found.own_unfit}.")
    if found.unfit:
        out.append(f"Left out as unfit: {', '.join(found.unfit[:_FEW])}{' ...' if len(found.unfit) > _FEW else ''}.")
    for name, why in list(found.failed.items())[:_FEW]:
        out.append(f"{name} could not be run: {why}")
    if best is not None:
        out.append("Memory and time a sample: no board tells them; edgeagent's doctor measures them where the model is to run.")
    return out


def _verdict(found: Ranking) -> str:
    best, base = found.best, next((one for one in found.models if one.role == BASE), None)
    if best is None:
        return "No model of another device could be scored."
    if base is not None and not found.is_better(BASE):
        return f"None is better than the base beyond chance: of {best.name}, the first of others, p is {best.ahead:.2g}."
    if base is None:
        return f"{best.name} does best of others; the base could not be scored, so nothing says that it is better than the base."
    own = any(one.role == OWN for one in found.models)
    not_own = f", and not better than its own beyond chance (p {found.ahead_of_own:.2g})"
    than_own = not_own if own and not found.is_better(OWN) else ""
    return f"{best.name} does best of others: better than the base (p {best.ahead:.2g}){than_own}."
