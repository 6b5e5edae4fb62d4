"""`edgeagent train`: one round, offline; the update waits in the outbox."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable

from edgeagent.board import budget
from edgeagent.board.sensors import Memory
from edgeagent.rounds import round as rounds
from edgeagent.rounds.reports import as_document, as_text
from edgeagent.rounds.round import Round, RoundReport
from edgeagent.rounds.standing import OpenModel
from edgeagent.service import measuring
from edgeagent.service.counting import written_counted
from edgeagent.service.measuring import Measuring
from edgeagent.service.opener import opener, standing_of
from edgeagent.settings.tree import ModelSettings
from edgeagent.spending import flash
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.state.lineage import Lineage
from edgecommon.printing import Answer, lines_of
from modelwire.errors import BadArgument

from .answer import add_folder, chosen, load

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
    with open_folder(load(args), alone=True) as device:
        lineages, models, memory = chosen(device, args.model), opener(device, eager=False), Memory()
        for lineage in lineages:
            _check_not_on_trial(lineage)
            rounds.check_due(standing_of(device, lineage, models, memory=memory), device.settings.outbox.max_bytes)
        with written_counted(device) as count:
            for lineage in lineages:
                standing = standing_of(device, lineage, models, memory=memory)
                if text := flash.spent(standing.settings.budget.flash_bytes_a_day, count.today(time.time())):
                    _log.warning("%s: trouble flash-spent: %s; you asked for this round, so it does not wait", lineage.name, text)
                measure_first(device, lineage, standing.settings, models)
                report = finish(rounds.run(standing))
                if report.error is not None:  # it diverged: the model is as before, and the caller must look at it
                    raise report.error
                reports.append(report)
    return Answer({"rounds": [as_document(r) for r in reports]}, lines_of(as_text(r) for r in reports))


def _check_not_on_trial(lineage: Lineage) -> None:
    """Raise BadArgument while another base is served: a round would move the model from under it, and the trial would end in vain."""
    if (soaking := lineage.beside.soaking()) is not None:
        why = f"{lineage.name} is served on the base {soaking.commit.hex()[:12]} on trial, and no round trains meanwhile"
        raise BadArgument(reason=why, fix="edgeagent desired says for how long; edgeagent run goes on with it")


def measure_first(device: DeviceFolder, lineage: Lineage, settings: ModelSettings, open_model: OpenModel) -> None:
    """Measure the modes of which the plan needs to know and does not."""
    if not budget.limited(settings.budget):
        return
    key = open_model(lineage.load().file, lineage.name).runtime_key
    if modes := measuring.unknown(lineage, key, settings.budget.max_ram):
        measurement = Measuring(device.path, lineage.name, modes, limit=settings.budget.max_ram)
        try:
            measurement.wait()
        finally:
            measurement.close()
        measurement.note(lineage, key, int(time.time()))


def finish(steps: Round, monotonic: Callable[[], float] = time.monotonic) -> RoundReport:
    """Run a round to its end, saying now and then how far it is, and return its report. monotonic: seconds."""
    said = monotonic()
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            report: RoundReport = end.value
            return report
        if monotonic() - said >= PROGRESS:
            said = monotonic()
            _log.info("%s: step %d of %d, loss %.4f", progress.mode, progress.done, progress.steps, progress.loss)
