"""`edgeagent estimate`: what the next update would cost, measured by encoding it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from edgeagent.rounds import round as rounds
from edgeagent.rounds.resuming import trial_of
from edgeagent.service.opener import opener, standing_of
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.state.lineage import Lineage
from edgecommon.printing import Answer
from edgecommon.tables import table
from modelwire.errors import NotEnoughSamples
from modelwire.update.sections import Kind, changed

from .answer import add_folder, chosen, load
from .train import finish

NAME = "estimate"
HELP = "Measure what a snapshot of the present model, and a delta of one more round, would cost. Nothing is kept."
EXAMPLES = ("edgeagent estimate", "edgeagent estimate digits --no-train --json", "edgeagent estimate --set update.density=0.01")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="*", metavar="MODEL", help="which models (default: all)")
    parser.add_argument("--no-train", action="store_true", help="only the snapshot: no trial round")
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    with open_folder(load(args), alone=False) as device:
        rows = [_estimate(device, m, trial=not args.no_train) for m in chosen(device, args.model)]
    cells = [
        (r["model"], kind, r[kind].get("mode"), r[kind]["bytes"], f"{_share(r, kind):.2f} %", r[kind]["changed"])
        for r in rows
        for kind in ("snapshot", "delta")
        if r[kind] and r[kind]["bytes"]
    ]
    notes = [f"{r['model']}: no delta: {r['note']}" for r in rows if r["note"]]
    text = "\n".join([table(("model", "kind", "mode", "bytes", "of float32", "weights"), cells), *notes])
    return Answer({"models": rows}, text)


def _share(row: dict[str, Any], kind: str) -> float:
    """Return the per cent of float32 that an update takes."""
    return float(100 * row[kind]["bytes"] / row["float32_bytes"])


def _estimate(device: DeviceFolder, lineage: Lineage, *, trial: bool) -> dict[str, Any]:
    head, held = lineage.head(), lineage.load()
    sections = held.state.snapshot()
    sealed = lineage.seal(replace(head, epoch=head.epoch or 1), Kind.SNAPSHOT, sections, held.state, {})
    out: dict[str, Any] = {
        "model": lineage.name, "version": head.version, "float32_bytes": lineage.manifest.schema.nbytes,
        "snapshot": {"bytes": len(sealed.data), "changed": changed(sections)}, "delta": None, "note": "",
    }  # fmt: skip
    if not trial:
        return out
    settings = device.settings.model(lineage.name)
    if (have := device.spool.count(lineage.name)) < settings.train.min_samples:
        out["note"] = NotEnoughSamples(model=lineage.name, have=have, need=settings.train.min_samples).message
        return out
    standing = standing_of(device, lineage, opener(device, eager=False))
    report = finish(rounds.run(standing, trial_of(standing)))
    out["note"] = report.reason
    if report.bytes:
        out["delta"] = {"mode": report.outcome.mode, "bytes": report.bytes, "changed": report.kept, "seconds": round(report.seconds, 3)}
    return out
