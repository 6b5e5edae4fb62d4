"""`edgecloud drift`: how far a device's model has gone from its base, version by version."""

from __future__ import annotations

import argparse
import math

from edgecloud.searching import drift
from edgecloud.searching.drift import Drift, DriftStep
from edgecloud.versions import naming
from edgecommon.printing import Answer
from edgecommon.tables import Column, add_limit, more, most
from modelwire.errors import Malformed

from ..answer import Document, progress, registry_of, sentences, table, when
from .plots import add_plot, draw_changes, plot_of

NAME = "drift"
HELP = "Say how far a device's model has gone from its base, version by version."
EXAMPLES = ("edgecloud drift pi-7", "edgecloud drift pi-7/digits@40 --since @20", "edgecloud drift pi-7 --plot pi-7.svg")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE[/MODEL][@VERSION]", help="to which version; without one to the newest verified")
    parser.add_argument("--since", metavar="@K", help="from which version on; without it from the base")
    add_plot(parser, "how far each tensor moved at each version")
    add_limit(parser)


def run(args: argparse.Namespace) -> Answer:
    limit, since, plot = most(args), _since(args.since), plot_of(args)
    with registry_of(args) as store:
        found = drift.drift(store, naming.parse(args.name), since=since, progress=progress("sketches"))
        if plot is not None:
            draw_changes(plot, store, str(found.lineage), [one.version for one in found.steps], progress("versions"))
    shown = found.steps if limit is None else found.steps[len(found.steps) - min(limit, len(found.steps)) :]
    rows = [
        (f"@{one.version.version}", _number(one.far), _number(one.step), "" if math.isnan(one.turn) else f"{one.turn:+.2f}",
         when(one.version.received_at), _note(one))
        for one in reversed(shown)
    ]  # fmt: skip
    title = f"{found.lineage} from {found.since} to @{found.steps[-1].version.version}"
    text = table(_HEAD, rows, title=title)
    hidden = len(found.steps) - len(shown)
    text += f"\n{more(hidden)}" if hidden else ""
    return Answer(_document(found), f"{text}\n{sentences(_said(found))}")


_HEAD = (
    Column("version"), Column("far"), Column("step"), Column("turn", 1), Column("received", 3), Column("note", 2, words=True),
)  # fmt: skip


def _since(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.removeprefix("@")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18 or int(digits) == 0:
        raise Malformed(what="--since", reason=f"{text[:40]!r} is no version: @20, say; from the base on without it")
    return int(digits)


def _number(value: float) -> str:
    return "?" if math.isnan(value) else f"{value:,.0f}"


def _note(one: DriftStep) -> str:
    notes = [
        "stands out" if one.stands_out else "", "takes the step before back" if one.reverses else "",
        "" if one.recoverable else "not recoverable",
    ]  # fmt: skip
    return ", ".join(filter(None, notes))


def _said(found: Drift) -> list[str]:
    end = found.steps[-1].version.version
    lost = sum(not one.recoverable for one in found.steps)
    if found.exact is not None:
        e = found.exact
        moved = f"{e.changed:,} of {e.entries:,} weights moved"
        out = [f"@{end} is {e.distance:,.1f} units of the base away from {found.since}, exactly; {moved}."]
    else:
        out = [f"@{end} is about {_number(found.steps[-1].far)} units of the base away from {found.since}; not exactly: {found.why}"]
    if math.isfinite(found.gone) and found.gone:
        out.append(
            f"It went {found.gone:,.0f} in {len(found.steps)} steps: {100 * min(1.0, found.away / found.gone):.0f} % of that is distance."
        )  # fmt: skip
    out.append("far, step and turn are by sketches: a length within 9 % or so, a cosine within 0.13, nineteen times in twenty.")
    if lost:
        out.append(f"{lost} of these versions are not recoverable.")
    return out


def _document(found: Drift) -> Document:
    def known(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "device": found.lineage.device, "model": found.lineage.model, "since": found.since, "entries": found.entries,
        "exact": None if found.exact is None else {"distance": found.exact.distance, "changed": found.exact.changed},
        "not_exact_because": found.why, "gone": known(found.gone),
        "steps": [
            {"version": one.version.version, "far": known(one.far), "step": known(one.step), "turn": known(one.turn),
             "stands_out": one.stands_out, "reverses": one.reverses, "recoverable": one.recoverable, "received_at": one.version.received_at}
            for one in found.steps
        ],
    }  # fmt: skip
