"""`edgeagent train`: one round, offline; the update waits in the outbox."""

from __future__ import annotations

import argparse
import logging
import time

from edgeagent.board import budget
from edgeagent.board.sensors import Memory
from edgeagent.rounds import round as rounds
from edgeagent.rounds.round import OpenModel, Report, Round
from edgeagent.service import measuring
from edgeagent.service.measuring import Measuring
from edgeagent.settings.tree import ModelSettings
from edgeagent.state import folder as device
from edgeagent.state.folder import Device
from edgeagent.state.lineage import Lineage
from edgecommon.printing import Answer

from .answer import add_folder, chosen, load
from .reports import as_document, as_text, opener

NAME = "train"
HELP = "Do one round of training now, without the network; the update waits in the outbox. A round that was interrupted goes on."
PROGRESS = 10.0  # seconds between two lines about a round that takes longer
_log = logging.getLogger("edgeagent")
EXAMPLES = ("edgeagent train", "edgeagent train digits --set train.epochs=10", "edgeagent train --dir pi-7 --json")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="*", metavar="MODEL", help="which models (default: all)")
    add_folder(parser)


def run(args: argparse.Namespace) -> Answer:
    reports = []
    with device.opened(load(args), alone=True) as opened:
        lineages = chosen(opened, args.model)
        for lineage in lineages:
            rounds.check_due(lineage, opened.spool, opened.settings.model(lineage.name), opened.settings.outbox.max_bytes)
        open_model, memory = opener(opened, eager=False), Memory()
        for lineage in lineages:
            settings = opened.settings.model(lineage.name)
            measure_first(opened, lineage, settings, open_model)
            steps = rounds.run(
                lineage, opened.spool, settings, open_model, now=time.time, memory=memory, extractors=open_model.extractors
            )
            report = finish(steps)
            if report.error is not None:  # it diverged: the model is as before, and the caller must look at it
                raise report.error
            reports.append(report)
    return Answer({"rounds": [as_document(r) for r in reports]}, "\n".join(as_text(r) for r in reports))


def measure_first(opened: Device, lineage: Lineage, settings: ModelSettings, open_model: OpenModel) -> None:
    """Measure the modes of which the plan needs to know and does not."""
    if not budget.limited(settings.budget):
        return
    key = open_model(lineage.load().file, lineage.name).runtime_key
    if modes := measuring.unknown(lineage, key, settings.budget.max_ram):
        at_work = Measuring(opened.path, lineage.name, modes, limit=settings.budget.max_ram)
        try:
            at_work.wait()
        finally:
            at_work.close()
        at_work.note(lineage, key, int(time.time()))


def finish(steps: Round) -> Report:
    """Run a round to its end, saying now and then how far it is, and return its report."""
    said = time.monotonic()
    while True:
        try:
            at = next(steps)
        except StopIteration as end:
            report: Report = end.value
            return report
        if time.monotonic() - said >= PROGRESS:
            said = time.monotonic()
            _log.info("%s: step %d of %d, loss %.4f", at.mode, at.done, at.steps, at.loss)
