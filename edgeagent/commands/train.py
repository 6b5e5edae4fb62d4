"""`edgeagent train`: one round, offline; the update waits in the outbox."""

from __future__ import annotations

import argparse
import time

from .. import device, rounds
from ..rounds import Report, Round
from .answer import Answer, add_folder, chosen, load
from .reports import as_document, as_text, opener

NAME = "train"
HELP = "Do one round of training now, without the network; the update waits in the outbox."
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
        open_model = opener(opened, eager=False)
        for lineage in lineages:
            settings = opened.settings.model(lineage.name)
            steps = rounds.run(lineage, opened.spool, settings, open_model, now=time.time, extractors=open_model.extractors)
            report = finish(steps)
            if report.error is not None:  # it diverged: the model is as before, and the caller must look at it
                raise report.error
            reports.append(report)
    return Answer({"rounds": [as_document(r) for r in reports]}, "\n".join(as_text(r) for r in reports))


def finish(steps: Round) -> Report:
    """Run a round to its end and return its report."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            report: Report = end.value
            return report
