"""`edgeagent calibrate`: measure on this board what decisions by cost stand on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edgeagent.board import meters
from edgeagent.planning.conditions import ASSUMED_WATTS
from edgeagent.planning.figures import PER_BYTE, WAKEUP, WATTS, Figures
from edgeagent.service.calibrating import Calibrated, calibrate, own_figures
from edgeagent.service.opener import opener
from edgeagent.state.folder import open_folder
from edgeagent.system.clock import Clock
from edgecommon.arguments import rule
from edgecommon.printing import Answer, lines_of
from edgecommon.tables import table
from modelwire.planning import profile_of

from .answer import add_folder, chosen, load

NAME = "calibrate"
HELP = "Measure on this board how fast it encodes, trains and writes, and what it draws: decisions by cost go by it."
EXAMPLES = (
    "edgeagent calibrate", "edgeagent calibrate digits --json", "edgeagent calibrate --meter meter.toml", "edgeagent calibrate --known",
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="*", metavar="MODEL", help="which models (default: all)")
    what = "your own figures, as TOML: any of joules_per_wakeup, joules_per_byte and watts (above idle)"
    parser.add_argument("--meter", metavar="FILE", help=what)
    parser.add_argument("--known", action="store_true", help="measure nothing: only say what is known")
    add_folder(parser)
    rule(parser, lambda args: "--meter does nothing beside --known, which writes nothing" if args.known and args.meter else "")


def run(args: argparse.Namespace) -> Answer:
    loaded = load(args)
    own = own_figures(Path(args.meter)) if args.meter else {}
    with open_folder(loaded, alone=False) as device:
        lineages = {m.name: m for m in chosen(device, args.model)}
        done = Calibrated()
        if not args.known:
            open_model = opener(device, eager=False)
            keys = {name: open_model(lineage.load().file, name).runtime_key for name, lineage in lineages.items()}
            done = calibrate(device, lineages, keys, own=own, meter=meters.find(), say=_say, clock=Clock())
        board = Figures(device.database)
        rows = [*_rows("", board), *(row for name, lineage in lineages.items() for row in _rows(name, lineage.figures))]
        joules = _joules(device.settings.link.profile, board, done, measured=not args.known)
    document = {"figures": rows, "trouble": done.trouble, "meter": done.meter or None, "joules": joules}
    cells = [(r["model"] or "board", r["figure"], f"{r['value']:.4g}", r["unit"], r["source"]) for r in rows]
    text = table(("of", "figure", "value", "unit", "source"), cells) if cells else "nothing was measured yet"
    notes = [f"{what} could not be measured: {why}" for what, why in done.trouble.items()]
    return Answer(document, lines_of([*text.split("\n"), joules, *notes]), 1 if done.trouble else 0)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _rows(model: str, figures: Figures) -> list[dict[str, Any]]:
    """Return what is known of the board or a model."""
    units = {"step": "s", "ram": "bytes", "joules": "J", "encode": "weights/s", "disk": "bytes/s", "watts": "W", "interval": "s"}
    units |= {"uplink.bytes": "bytes", "uplink.seconds": "s", "gain": "of 1"}
    return [
        {
            "model": model, "figure": name, "value": known.value, "unit": units.get(name, units.get(name.partition(".")[0], "")),
            "source": known.source, "count": known.count, "at": known.at,
        }
        for name, known in figures.all().items()
    ]  # fmt: skip


def _joules(profile: str, board: Figures, done: Calibrated, *, measured: bool) -> str:
    """Return where the joules of decisions come from."""
    link = profile_of(profile)
    watts = board.get(WATTS)
    drawn, source = (ASSUMED_WATTS.value, ASSUMED_WATTS.detail) if watts is None else (watts.value, watts.source)
    own = [
        f"{known.value:.3g} J a {what} ({known.source})"
        for name, what in ((WAKEUP, "wake-up"), (PER_BYTE, "byte"))
        if (known := board.get(name)) is not None and not (link.always_on and name == WAKEUP)
    ]
    by_profile = f"by its profile {link.name} ({link.source})"
    rest = "" if len(own) == 2 else f"else {by_profile}" if own else f"{by_profile}, unless --meter says them"
    none = "no meter was found under /sys; " if measured and not done.meter else ""
    return f"{none}joules: {drawn:.3g} W at work ({source}); of the link {', '.join([*own, *filter(None, [rest])])}"
