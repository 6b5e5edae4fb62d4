"""`edgecloud cards`: the data of all devices beside each other, and which of them see another world than the fleet."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from edgecloud.bias import fleet as fleets
from edgecloud.bias import helping
from edgecloud.bias.fleet import FleetCards
from edgecloud.bias.helping import Lack, Scored
from edgecloud.bias.skew import BiasFinding, Judgement
from edgecommon.arguments import only_with, whole
from edgecommon.printing import Answer, visible
from edgecommon.tables import Column

from ..answer import Document, progress, registry_of, sentences, table
from .plots import add_plot, draw_biased, plot_of

NAME = "cards"
HELP = "Say which devices see another world than the fleet, and what they lack."
EXAMPLES = (
    "edgecloud cards --biased",
    "edgecloud cards --biased --field tags.weather --count 5",
    "edgecloud cards --biased --model digits --json",
    "edgecloud cards",
)
SHOWN = 12  # findings, unless --count says otherwise
_PLAINEST = 2  # devices of a kind of bias that are named
_NAMED = 4  # fields of a note


def add(parser: argparse.ArgumentParser) -> None:
    what = "which devices' data are unlike the fleet's, beyond chance; what their models lack, and who has it"
    parser.add_argument("--biased", action="store_true", help=what)
    parser.add_argument("--model", metavar="MODEL", help="which model, where there are several")
    what = "with --biased: this field alone, all devices: labels, hours, tags.weather, channels.x.mean; may be given again"
    parser.add_argument("--field", action="append", default=[], metavar="FIELD", help=what)
    parser.add_argument("-n", "--count", type=whole(0), default=SHOWN, metavar="N", help=f"so many rows at most (default {SHOWN}); 0: all")
    add_plot(parser, "who is biased, and in what")
    only_with(parser, "--field", "--biased")
    only_with(parser, "--plot", "--biased")


def run(args: argparse.Namespace) -> Answer:
    plot = plot_of(args)
    with registry_of(args) as store:
        fleet = fleets.read_fleet(store, args.model, progress("cards"))
        if not args.biased:
            return _listed(fleet, args.count or None)
        found = fleets.judge_fleet(fleet, args.field)
        lacks = helping.lacks_of(store, fleet, found)
    answer = _answer(fleet, found, lacks, args.field, args.count or None)
    if plot is not None and not draw_biased(plot, fleet, found):
        return Answer(answer.document, f"{answer.text}\n{visible(str(plot))} is not drawn: nothing is biased")
    return answer


def _listed(fleet: FleetCards, limit: int | None) -> Answer:
    document: Document = {
        "model": fleet.model, "silent": fleet.silent, "unreadable": fleet.unreadable,
        "devices": [{"device": one.device, "samples": one.samples, "cards": one.cards, "fields": sorted(one.fields)} for one in fleet.told],
    }  # fmt: skip
    rows = [(one.device, one.samples, one.cards, ", ".join(sorted(one.fields))) for one in sorted(fleet.told, key=lambda one: -one.samples)]
    return Answer(document, table(("device", "samples", "cards", "fields"), rows, title=_title(fleet), limit=limit))


def _answer(fleet: FleetCards, found: Judgement, lacks: list[Lack], fields: list[str], limit: int | None) -> Answer:
    document: Document = {
        "model": fleet.model, "devices": len(fleet.told), "samples": sum(one.samples for one in fleet.told),
        "cards": sum(one.cards for one in fleet.told), "silent": fleet.silent, "unreadable": fleet.unreadable,
        "tests": found.tests, "false_alarms": found.alarms, "traits": list(found.traits), "common": found.common,
        "single": list(found.single), "alone": list(found.alone), "left_out": list(fleet.odd),
        "biased": sorted({one.device for one in found.biased}),
        "findings": [_finding(one) for one in found.findings], "lacks": [_lack(one) for one in lacks],
    }  # fmt: skip
    parts = [_title(fleet), _by_device(found.findings, limit) if fields else _by_kind(found.biased, limit)]
    if lacks:
        parts.append(_lacking(lacks, limit))
    parts.append(sentences(_notes(fleet, found, lacks)))
    return Answer(document, "\n\n".join(parts))


def _by_device(findings: Sequence[BiasFinding], limit: int | None) -> str:
    columns = [
        Column("device"), Column("psi"), Column("chance"), Column("p", 2), Column("so it is", 1, words=True), Column("where", words=True),
    ]  # fmt: skip
    rows: list[tuple[object, ...]] = [
        (one.device, f"{one.psi:.2f}", f"{one.by_chance:.2f}", _p(one.p), one.words, _where(one)) for one in findings
    ]
    fields = sorted({one.field for one in findings})
    if len(fields) > 1:
        columns, rows = [Column("field"), *columns], [(one.field, *row) for one, row in zip(findings, rows, strict=True)]
    return table(columns, rows, title=visible(", ".join(fields)), limit=limit)


def _by_kind(biased: Sequence[BiasFinding], limit: int | None) -> str:
    """Return what is biased, devices that are so in one way in one line: with the figures of the plainest of them."""
    if not biased:
        return "No device's data is unlike the fleet's beyond chance."
    kinds: dict[tuple[str, str, bool], list[BiasFinding]] = {}
    for one in biased:
        kinds.setdefault((one.field, one.event, one.share > one.fleet_share), []).append(one)
    columns = [
        Column("field"), Column("where", words=True), Column("psi"), Column("chance", 3), Column("p", 2), Column("devices"),
        Column("the plainest", 1, words=True),
    ]  # fmt: skip
    rows = [
        (first.field, _where(first), f"{first.psi:.2f}", f"{first.by_chance:.2f}", _p(max(one.p for one in of)), len(of), _named(of))
        for of in kinds.values() for first in of[:1]
    ]  # fmt: skip
    return table(columns, rows, limit=limit)


def _lacking(lacks: Sequence[Lack], limit: int | None) -> str:
    """Return what is lacked, a context a line: by how many, how their models do there, whose does best, and who sees it."""
    contexts: dict[str, list[Lack]] = {}
    for one in lacks:
        contexts.setdefault(one.context, []).append(one)
    columns = [
        Column("context", words=True), Column("devices"), Column("worst model"), Column("base", 2), Column("best other"),
        Column("who sees it", 1, words=True),
    ]  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for context, of in contexts.items():
        known = [one for one in of if one.own is not None]
        worst = min(known, key=lambda one: one.own.score if one.own else 1.0, default=of[0])
        best = f"{_share(worst.best)}: {_without_model(worst.best.name)}" if worst.best else ""
        own = f"{_share(worst.own)}: {worst.device}" if worst.own else ""
        rows.append((context, len(of), own, _share(worst.base), best, ", ".join(f"{name}: {n}" for name, n in worst.seen_by[:1])))
    scored = any(one.own or one.best for one in lacks)
    if not scored:
        columns, rows = [*columns[:2], columns[-1]], [(*row[:2], row[-1]) for row in rows]
    title = "What they hardly see, and how their models do there:" if scored else "What they hardly see:"
    return table(columns, rows, title=title, limit=limit)


def _title(fleet: FleetCards) -> str:
    cards, samples = sum(one.cards for one in fleet.told), sum(one.samples for one in fleet.told)
    return visible(f"{fleet.model}: {len(fleet.told)} devices, {cards} cards, {samples} samples")


def _finding(one: BiasFinding) -> Document:
    return {
        "device": one.device, "field": one.field, "samples": one.samples, "effective": one.effective, "against": one.against,
        "psi": one.psi, "chance": one.by_chance, "p": _number(one.p), "words": one.words, "biased": one.beyond,
        "where": one.event, "share": _number(one.share), "fleet_share": _number(one.fleet_share), "lacks": list(one.lacks),
    }  # fmt: skip


def _lack(one: Lack) -> Document:
    return {
        "device": one.device, "model": one.model, "context": one.context, "share": one.share, "fleet_share": one.fleet_share,
        "own": _scored(one.own), "base": _scored(one.base), "best": _scored(one.best),
        "seen_by": [{"device": device, "samples": n} for device, n in one.seen_by],
    }  # fmt: skip


def _scored(one: Scored | None) -> Document | None:
    return None if one is None else {"name": one.name, "right": one.right, "n": one.n, "score": one.score, "probes": one.probes.hex()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _p(p: float) -> str:
    return "-" if math.isnan(p) else "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def _where(one: BiasFinding) -> str:
    return visible(f"{one.event}: {one.share:.0%}, others {one.fleet_share:.0%}") if one.event else ""


def _named(of: Sequence[BiasFinding]) -> str:
    names = [one.device for one in of]
    return visible(", ".join(names[:_PLAINEST]))


def _without_model(name: str) -> str:
    """Return DEVICE@VERSION of DEVICE/MODEL@VERSION."""
    return f"{name.partition('/')[0]}@{name.rpartition('@')[2]}"


def _share(one: Scored | None) -> str:
    return "" if one is None else f"{one.score:.2f}"


def _notes(fleet: FleetCards, found: Judgement, lacks: list[Lack]) -> list[str]:
    """Return what a reader has to know beside the table: how sure it is, and what could not be judged."""
    rate = f"in at most {found.alarms:.0%} of fleets without bias any device is named"
    out = [f"{found.tests} pairs of device and field were judged: {rate}. p is corrected for all pairs (Holm); docs/bias.md says how."]
    if len(fleet.told) == 2 and found.biased:
        out.append("There are two devices: each is held against the other, and which is the odd one can't be said.")
    for field, n in sorted(found.common.items()):
        told = sum(field in one.fields for one in fleet.told)
        out.append(f"{field}: {n} of {told} devices are unlike the others: the fleet differs in it as a rule. See edgecloud cluster.")
    if found.traits:
        out.append(f"{_some(found.traits)}: each device has one value: a trait of it, which chance says nothing about.")
    if found.single:
        out.append(f"{_some(found.single)}: no device told more than once, so days that are alike would look as bias does.")
    if found.alone:
        out.append(f"{_some(found.alone)}: one device alone tells of it.")
    if fleet.odd:
        out.append(f"{_some(fleet.odd)}: measured on several axes; devices with another than the first are left out of it.")
    silent = [f"{n} {what}" for n, what in ((fleet.silent, "devices sent no card"), (fleet.unreadable, "cards could not be read")) if n]
    if silent:
        out.append(f"{' and '.join(silent)}: nothing is said of them.")
    noisy = [one.device for one in fleet.told if one.noise]
    if noisy:
        out.append(f"{len(noisy)} devices put noise on their counts: what is below three times its scale counts as nothing or as there.")
    rows = [one.best.n for one in lacks if one.best]
    if rows:
        size = f"{min(rows)} to {max(rows)}" if min(rows) < max(rows) else f"{rows[0]}"
        look = "The best other is the best of all on the very rows that chose it, and looks better than it is"
        out.append(f"Scores are of {size} probe rows each. {look}: edgecloud feasible --context judges it on rows of its own.")
    if lacks and all(one.own is None and one.best is None for one in lacks):
        out.append("How models do on what they lack is not known: nothing was scored on a probe set with these tags. See edgecloud matrix.")
    return out


def _some(names: tuple[str, ...]) -> str:
    return visible(", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""))
