"""`edgecloud card`: what the data of a device, or of the fleet, looks like, and how unlike each other they are."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgecloud.registry import LineageRow, SqliteStore
from edgecloud.versions import cards, naming
from edgecloud.versions.cards import Gathered
from edgecommon.arguments import never_with, only_with
from edgecommon.printing import Answer, visible
from modelwire.cards.card import Card
from modelwire.cards.shift import Shift, shifts
from modelwire.cards.sketch import Sketch
from modelwire.errors import AmbiguousName, BadArgument, UnknownVersion

from ..answer import Document, facts, progress, registry_of, table
from ..comparing.plots import add_plot, draw_cards, plot_of

NAME = "card"
HELP = "Show what a device's data looks like: the card of one version, or merged over all of a model; or of the whole fleet."
EXAMPLES = (
    "edgecloud card pi-7",
    "edgecloud card pi-7/digits@12 --json",
    "edgecloud card --fleet --model digits",
    "edgecloud card pi-7 --against fleet",
    "edgecloud card pi-7 --against pi-8",
    "edgecloud card pi-7 --against fleet --plot pi-7.svg",
)

FLEET = "fleet"
_QUANTILES = (0.1, 0.5, 0.9)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="DEVICE[/MODEL][@VERSION]", help="without a version: all of the model's updates together"
    )
    parser.add_argument("--fleet", action="store_true", help="of all devices together")
    parser.add_argument("--model", metavar="MODEL", help="with --fleet: which model, where there are several")
    parser.add_argument("--against", metavar="OTHER", help="say how unlike another's data it is: `fleet`, which is all others, or a name")
    add_plot(parser, "both beside each other")
    only_with(parser, "--model", "--fleet")
    only_with(parser, "--plot", "--against")
    never_with(parser, "--fleet", "name", "--against")


def run(args: argparse.Namespace) -> Answer:
    if (args.name is None) == (not args.fleet) or (args.fleet and args.against) or (args.model and not args.fleet):
        raise BadArgument(reason="a card is of one DEVICE or of the --fleet", fix="edgecloud card pi-7 --against fleet")
    plot = plot_of(args)
    with registry_of(args) as store:
        shown = _fleet(store, args.model) if args.fleet else _named(store, args.name)
        other = None if args.against is None else _other(store, shown, args)
    if other is None:
        return _answer(shown)
    if plot is not None:
        draw_cards(plot, shown.card, shown.name, other.card, other.name, [one.field for one in shifts(shown.card, other.card)])
    return _compared(shown, other)


@dataclass(frozen=True, slots=True)
class _Of:
    """A card with what it is of."""

    name: str
    model: str
    gathered: Gathered

    @property
    def card(self) -> Card:
        return self.gathered.card


def summary(card: Card, name: str) -> str:
    """Return a card in a line, for `edgecloud show`."""
    fields = [*(["labels"] if card.labels else []), *(["hours"] if card.hours else []), *card.tags]
    fields += [sketch.channel.name for sketch in card.sketches]
    return f"of {card.samples} samples: {', '.join(fields) or 'nothing else'}; edgecloud card {name}"


def as_document(card: Card) -> Document:
    """Return a card as JSON holds it."""
    before, after = (_finite(loss) for loss in card.losses)
    return {
        "samples": card.samples,
        "entries": {name: {"of": n, "mean": _finite(card.entry(name))} for name, (n, _) in card.entries.items()},
        "labels": {str(label): n for label, n in card.labels.items()},
        "hours": list(card.hours),
        "tags": {name: dict(values) for name, values in card.tags.items()},
        "channels": [
            {"name": s.channel.name, "count": s.count, "missing": s.missing, "mean": _finite(s.mean),
             "deviation": _finite(math.sqrt(s.variance) if s.count else math.nan),
             "quantiles": {str(share): _finite(s.quantile(share)) for share in _QUANTILES}}
            for s in card.sketches
        ],
        "judged": card.judged, "loss_before": before, "loss_after": after,
    }  # fmt: skip


def _named(store: SqliteStore, text: str) -> _Of:
    name = naming.parse(text)
    lineage = naming.find_lineage(store, name)
    if name.version is None:
        return _present(_Of(str(lineage), lineage.model, cards.gather(store, [lineage])))
    place = naming.find(store, name)
    if place.version is None:
        raise BadArgument(reason=f"{place} is a base: no device's data is in it", fix=f"edgecloud card {lineage}")
    one = _Of(str(place), lineage.model, cards.gather_one(store, lineage, place.version))
    return _present(one, f"a card goes beside new samples alone, and not where the device's privacy.card says no: edgecloud card {lineage}")


def _fleet(store: SqliteStore, model: str | None, without: str = "") -> _Of:
    """Return the fleet's card of one model. without: a device that is left out."""
    lineages = store.lineages.all()
    models = sorted({one.model for one in lineages})
    if model is None and len(models) > 1:
        raise AmbiguousName(device="the fleet", models=", ".join(models), example=f"--fleet --model {models[0]}")
    if model is not None and model not in models:
        raise UnknownVersion(name=f"a model {model!r} of the fleet")
    of: list[LineageRow] = [one for one in lineages if model in (None, one.model) and one.device != without]
    if without and not of:
        raise BadArgument(reason=f"no other device of the fleet has sent {model or 'a model'}", fix=f"edgecloud card {without}")
    gathered = cards.gather(store, of, progress("cards"))
    said = f"{_many(len(gathered.devices), 'other device' if without else 'device')} of the fleet"
    return _present(_Of(said, model or (models or [""])[0], gathered))


def _other(store: SqliteStore, shown: _Of, args: argparse.Namespace) -> _Of:
    if args.against == FLEET:
        return _fleet(store, shown.model, without=naming.parse(args.name).device)
    other = _named(store, args.against)
    if other.model != shown.model:
        fix = f"edgecloud card {shown.name} --against DEVICE/{shown.model}"
        raise BadArgument(reason=f"{other.name} is of another model than {shown.name}: their labels mean different things", fix=fix)
    return other


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _present(of: _Of, fix: str = "privacy.card = true in the device's settings") -> _Of:
    if not of.gathered.updates:
        why = f": {of.gathered.unreadable} could not be read" if of.gathered.unreadable else ""
        raise BadArgument(reason=f"{of.name}: no update carried a data card{why}", fix=fix)
    return of


def _answer(of: _Of) -> Answer:
    document: Document = {"name": of.name, **as_document(of.card), **_about(of)}
    card = of.card
    told = f"{_many(of.gathered.updates, 'update')} of {_many(len(of.gathered.devices), 'device')}"
    before, after = card.losses
    pairs = [
        ("card", of.name), ("of", f"{card.samples} samples, told by {told}"),
        ("labels", _counts(card.labels)), ("hours", _counts({f"{hour:02}": n for hour, n in enumerate(card.hours) if n})),
        *((name, _counts(values)) for name, values in card.tags.items()),
        ("loss", f"{before:.4f} -> {after:.4f} on {card.judged} held-out samples" if card.judged else ""),
        *((name, f"{card.entry(name):.4f} on {n}") for name, (n, _) in card.entries.items()), *_notes(of),
    ]  # fmt: skip
    text = facts(pairs)
    if card.sketches:
        head = ("channel", "values", "mean", "deviation", *(f"{share:.0%}" for share in _QUANTILES))
        text += "\n\n" + table(head, [_row(sketch) for sketch in card.sketches])
    return Answer(document, text)


def _compared(shown: _Of, other: _Of) -> Answer:
    apart = shifts(shown.card, other.card)
    document: Document = {
        "name": shown.name, "against": other.name, "samples": shown.card.samples, "against_samples": other.card.samples,
        "fields": [{"field": s.field, "psi": s.psi, "chance": s.chance, "words": s.words} for s in apart],
        "card": as_document(shown.card), "against_card": as_document(other.card),
    }  # fmt: skip
    title = f"{shown.name}, {shown.card.samples} samples, against {other.name}, {other.card.samples} samples"
    rows = [(s.field, f"{s.psi:.3f}", f"{s.chance:.3f}", s.words, _most(shown.card, other.card, s)) for s in apart]
    text = table(("field", "psi", "by chance", "so they are", "where"), rows, title=title)
    notes = facts([*_notes(shown), *_notes(other)])
    return Answer(document, f"{text}\n{notes}" if notes else text)


def _about(of: _Of) -> Document:
    g = of.gathered
    return {"updates": g.updates, "devices": sorted(g.devices), "unreadable": g.unreadable, "left_out": sorted(g.left_out)}


def _notes(of: _Of) -> list[tuple[str, object]]:
    g = of.gathered
    out: list[tuple[str, object]] = []
    if g.unreadable:
        out.append(("note", f"{of.name}: {g.unreadable} cards could not be read"))
    if g.left_out:
        out.append(("note", f"{of.name}: devices measure {', '.join(sorted(g.left_out))} on different axes; the first one's are shown"))
    return out


def _most(a: Card, b: Card, shift: Shift) -> str:
    """Return where two cards differ most in a field: the cell with the largest difference of shares, or both means."""
    kind, _, name = shift.field.partition(".")
    if kind == "channels":
        means = [next(s.mean for s in card.sketches if s.channel.name == name) for card in (a, b)]
        return f"mean {means[0]:.4g}, there {means[1]:.4g}"
    sides: list[Mapping[Any, int]] = []
    for card in (a, b):
        sides.append(card.labels if kind == "labels" else dict(enumerate(card.hours)) if kind == "hours" else card.tags[name])
    shares = [{key: n / sum(side.values()) for key, n in side.items()} for side in sides]
    cell = max(sorted(shares[0].keys() | shares[1].keys()), key=lambda key: abs(shares[0].get(key, 0) - shares[1].get(key, 0)))
    return visible(f"{cell}: {shares[0].get(cell, 0):.0%}, there {shares[1].get(cell, 0):.0%}")


def _row(s: Sketch) -> tuple[object, ...]:
    numbers = (s.mean, math.sqrt(s.variance) if s.count else math.nan, *(s.quantile(share) for share in _QUANTILES))
    return (s.channel.name, s.count, *(f"{number:.4g}" for number in numbers))


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{key}: {n}" for key, n in counts.items())


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
