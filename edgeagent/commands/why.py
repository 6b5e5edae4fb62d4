"""`edgeagent why`: why an update is of its kind, and why it waits."""

from __future__ import annotations

import argparse
import textwrap
import time
from typing import Any

from edgeagent.planning.conditions import longest_wait
from edgeagent.planning.telling import HEIGHT, WIDTH, because, screen
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.state.history import History
from edgecommon.printing import Answer, lines_of, visible
from modelwire.errors import BadArgument

from .answer import add_folder, load, local

NAME = "why"
HELP = "Say why an update is of its kind or waits: what each form would have cost. Works while the agent runs."
EXAMPLES = ("edgeagent why", "edgeagent why digits@7", "edgeagent why @latest --json")
LATEST = "latest"


def add(parser: argparse.ArgumentParser) -> None:
    what = "a model and a version: a number or latest (default: the last decision of each model)"
    parser.add_argument("name", nargs="?", metavar="[MODEL][@VERSION]", help=what)
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    with open_folder(load(args), alone=False) as device:
        models, version = _named(device, args.name or "")
        rows = [_decision(m, version, longest_wait(device.settings.model(m.name))) for m in models]
    lines: list[str] = []
    for row in rows:
        lines += [""] if lines else []
        after = _after(row)
        known = row["decision"] is not None
        lines += screen(row["name"], row["decision"], height=HEIGHT - len(after)) if known else [f"{row['name']}: {row['note']}"]
        lines += after
    return Answer({"decisions": rows}, lines_of(lines))


def _after(row: dict[str, Any]) -> list[str]:
    """Return what became of the update, where there is something to say."""
    said = ""
    if row["waits"] is not None:
        said = f"it waits until {local(row['waits'])} at most" + (f": {row['because']}" if row["because"] else "")
    elif row["carried_by"]:
        said = f"it is part of @{row['carried_by']}"
    return textwrap.wrap(visible(said), WIDTH, max_lines=3, placeholder=" ...")


def _named(device: DeviceFolder, text: str) -> tuple[list[History], int | None]:
    """Return the models and the version that a name stands for. Raises BadArgument."""
    left, at, version = text.partition("@")
    said = left.removeprefix(f"{device.board.device}/") if left != device.board.device else ""
    if said and said not in device.lineages:
        have = ", ".join(device.lineages)
        raise BadArgument(reason=f"there is no model {said[:64]!r} on this device; it has {have}", fix="edgeagent why MODEL@VERSION")
    models = [device.lineages[said]] if said else list(device.lineages.values())
    if not at or version == LATEST:
        return list(models), None
    if not (version.isascii() and version.isdigit() and len(version) <= 18):
        raise BadArgument(reason=f"{version[:40]!r} is no version: a number, or {LATEST}", fix="edgeagent log")
    if len(models) > 1:
        which = ", ".join(m.name for m in models)
        raise BadArgument(reason=f"@{version} may be of {which}", fix=f"edgeagent why {models[0].name}@{version}")
    return list(models), int(version)


def _decision(lineage: History, version: int | None, most: float) -> dict[str, Any]:
    """Return what is known of one decision. most: seconds for which the settings let an update wait."""
    kept = lineage.plans.last() if version is None else lineage.plans.of(version)
    number = version if version is not None else kept.version if kept is not None else None
    row = None if number is None else lineage.version(number)
    if number is not None and row is None:
        raise BadArgument(reason=f"{lineage.name} has no version @{number}", fix=f"edgeagent log {lineage.name}")
    name = f"{lineage.name}@{number}" if number is not None else lineage.name
    note = ""
    if kept is None:
        told = "nothing was decided yet" if row is None else f"it was told, not decided: {row['kind']}"
        note = f"{told}; {row['reason']}" if row is not None and row["reason"] else told
    sends = lineage.plans.waits(time.time(), most) if row is not None and row["state"] == "queued" else None
    waits = None if sends is None else sends.until
    return {
        "name": name, "version": number, "state": None if row is None else row["state"], "kind": None if row is None else row["kind"],
        "bytes": None if row is None else row["bytes"], "carried_by": None if row is None else row["carried_by"],
        "decided_at": None if kept is None else kept.at, "decision": None if kept is None else kept.document, "note": note, "waits": waits,
        "because": because(kept.document) if kept is not None and waits else "",
    }  # fmt: skip
