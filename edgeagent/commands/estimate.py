"""`edgeagent estimate`: what the next update would cost, measured by encoding it."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

from edgeagent.planning.telling import screen
from edgeagent.rounds import round as rounds
from edgeagent.rounds.resuming import trial_of
from edgeagent.service.opener import opener, standing_of
from edgeagent.spending.month import Month
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.state.lineage import Lineage
from edgecommon import disk
from edgecommon.printing import Answer, lines_of
from edgecommon.tables import table
from modelwire.errors import NotEnoughSamples
from modelwire.update.sections import Kind, changed

from .answer import add_folder, chosen, load
from .train import finish

NAME = "estimate"
HELP = "Measure what one more round would send, of which kind and how many bytes, and a snapshot of the present model. Nothing is kept."
EXAMPLES = ("edgeagent estimate", "edgeagent estimate digits --no-train --json", "edgeagent estimate --set update.density=0.01")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="*", metavar="MODEL", help="which models (default: all)")
    parser.add_argument("--no-train", action="store_true", help="only the snapshot: no trial round")
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    with open_folder(load(args), alone=False) as device:
        month = Month.read(device.database, device.settings.link.monthly_bytes, time.time())
        rows = [_estimate(device, m, trial=not args.no_train) for m in chosen(device, args.model)]
    cells = [
        (
            r["model"], what, u.get("kind", "snapshot"), u.get("mode"), u["bytes"], f"{100 * u['bytes'] / r['float32_bytes']:.2f} %",
            u["changed"],
        )
        for r in rows
        for what, u in ((f"@{r['version']}", r["snapshot"]), ("next", r["next"]))
        if u
    ]  # fmt: skip
    said = [f"{r['model']}: {text}" for r in rows for text in (_sent(r["next"]) if r["next"] else "", r["note"]) if text]
    shown = table(("model", "version", "kind", "mode", "bytes", "of float32", "weights"), cells)
    weighed = [line for r in rows if r["next"] and r["next"]["decision"] for line in ["", *screen(r["model"], r["next"]["decision"])]]
    left = {"month": str(month.now), "spent": month.now.total, "limit": month.limit or None, "left": month.left}
    if month.left is not None:
        said.append(f"link.monthly_bytes: {disk.said(month.left)} of {disk.said(month.limit)} are left in {month.now}")
    text = "\n".join([shown, *([lines_of(said)] if said else []), *([lines_of(weighed)] if weighed else [])])
    return Answer({"models": rows, "link": left}, text)


def _sent(update: dict[str, Any]) -> str:
    """Return which kind would be sent, and what the others would take."""
    others = [f"{size} as a {kind}" for kind, size in update["forms"].items() if kind != update["kind"]]
    decision = update["decision"]
    go = "wait, and go" if decision is not None and decision["choice"] == "wait" else "go"
    text = f"it would {go} as a {update['kind']} of {update['bytes']} bytes" + (f"; it would take {' or '.join(others)}" if others else "")
    always = decision is None and update["bytes"] > min(update["forms"].values())
    return f'{text}. update.kind is "recipe": one is sent whatever it takes' if always else text


def _estimate(device: DeviceFolder, lineage: Lineage, *, trial: bool) -> dict[str, Any]:
    head, held = lineage.head(), lineage.load()
    sections = held.state.snapshot()
    sealed = lineage.seal(replace(head, epoch=head.epoch or 1), Kind.SNAPSHOT, sections, held.state, {})
    out: dict[str, Any] = {
        "model": lineage.name, "version": head.version, "float32_bytes": lineage.manifest.schema.nbytes,
        "snapshot": {"bytes": len(sealed.data), "changed": changed(sections)}, "next": None, "note": "",
    }  # fmt: skip
    if not trial:
        return out
    settings = device.settings.model(lineage.name)
    if (have := device.spool.count(lineage.name)) < settings.train.min_samples:
        out["note"] = "no round: " + NotEnoughSamples(model=lineage.name, have=have, need=settings.train.min_samples).message
        return out
    standing = standing_of(device, lineage, opener(device, eager=False))
    report = finish(rounds.run(standing, trial_of(standing)))
    out["note"] = report.note if report.accepted else f"nothing would be sent: {report.reason}"
    if report.accepted:
        out["next"] = {
            "kind": report.kind, "mode": report.outcome.mode, "bytes": report.bytes, "changed": report.kept,
            "seconds": round(report.seconds, 3), "forms": dict(report.forms),
            "decision": report.decided.document if report.decided is not None else None,
        }  # fmt: skip
    return out
