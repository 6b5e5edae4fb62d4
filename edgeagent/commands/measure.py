"""`edgeagent measure`: what each way to train a model takes on this board."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from edgeagent.board.budget import Cost, mib
from edgeagent.service import measuring
from edgeagent.service.measuring import Measuring
from edgeagent.service.opener import opener
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.state.lineage import Lineage
from edgecommon.arguments import never_with
from edgecommon.printing import Answer
from edgecommon.tables import table
from modelwire.errors import ConfigError

from .answer import add_folder, chosen, load

NAME = "measure"
HELP = "Measure milliseconds and memory of each mode of training on this board, each in a process of its own. Works while the agent runs."
EXAMPLES = ("edgeagent measure", "edgeagent measure doorbell --mode head --json", "edgeagent measure --known")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="*", metavar="MODEL", help="which models (default: all)")
    parser.add_argument("--mode", metavar="MODE", help="only this mode (default: all of the file, cheapest first)")
    parser.add_argument("--known", action="store_true", help="measure nothing: only say what is known")
    add_folder(parser)
    never_with(parser, "--mode", "--known")


def run(args: argparse.Namespace) -> Answer:
    loaded = load(args)
    with open_folder(loaded, alone=False) as device:
        lineages = chosen(device, args.model)
        for lineage in lineages:
            if args.mode and args.mode not in measuring.modes(lineage):
                reason = f"{lineage.name} has no mode {args.mode!r}; it has {', '.join(measuring.modes(lineage))}"
                raise ConfigError(reason=reason, fix="edgeagent measure --help")
        open_model = opener(device, eager=False)
        rows = []
        for lineage in lineages:
            key = open_model(lineage.load().file, lineage.name).runtime_key
            trouble = {} if args.known else _measure(device, lineage, key, args.mode)
            costs = lineage.costs.of(key)
            rows.append(
                {
                    "model": lineage.name, "runtime": key, "trouble": trouble,
                    "modes": [{"mode": m, **_as_document(costs[m])} for m in measuring.modes(lineage) if m in costs],
                }
            )  # fmt: skip
    return Answer({"models": rows}, _text(rows), 1 if any(r["trouble"] for r in rows) else 0)


def _measure(device: DeviceFolder, lineage: Lineage, key: str, mode: str | None) -> dict[str, str]:
    """Measure, write down what was found, and return why modes could not be measured."""
    limit = device.settings.model(lineage.name).budget.max_ram

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    measurement = Measuring(device.path, lineage.name, [mode] if mode else measuring.modes(lineage), limit=limit, said=say)
    try:
        measurement.wait()
    finally:
        measurement.close()
    return measurement.note(lineage, key, int(time.time()))


def _as_document(cost: Cost) -> dict[str, Any]:
    return {"seconds": cost.seconds, "memory": cost.memory, "samples": cost.samples, "partial": cost.partial}


def _text(rows: list[dict[str, Any]]) -> str:
    cells = [
        (
            r["model"], m["mode"], "" if m["partial"] else f"{1000 * m['seconds']:.3g}",
            f"{'more than ' if m['partial'] else ''}{mib(m['memory'])}",
        )
        for r in rows
        for m in r["modes"]
    ]  # fmt: skip
    notes = [f"{r['model']}: {mode} could not be measured: {why}" for r in rows for mode, why in r["trouble"].items()]
    return "\n".join([table(("model", "mode", "ms a step", "MiB"), cells) if cells else "nothing was measured yet", *notes])
