"""What the log says of a round that is over."""

from __future__ import annotations

import logging

from edgeagent.rounds.round import RoundReport

_log = logging.getLogger("edgeagent")


def tell_round(report: RoundReport) -> None:
    """Say in a line or two what a round came to."""
    o = report.outcome
    speed = f"{o.steps} steps, {o.steps / max(report.seconds, 1e-9):.0f} a second"
    if not report.accepted:
        _log.warning("%s: round %d rejected: %s (%s)", report.model, report.round, report.reason, speed)
        return
    assert o.before is not None and o.after is not None
    accuracy = "" if o.after.accuracy is None else f", accuracy {o.before.accuracy:.3f} -> {o.after.accuracy:.3f}"
    _log.info(
        "%s: round %d is @%d: held-out loss %.4f -> %.4f%s; %s of %d bytes, %d of %d weights; %s",
        report.model, report.round, report.version, o.before.loss, o.after.loss, accuracy, report.kind, report.bytes, report.kept,
        report.weights, speed,
    )  # fmt: skip
    if report.decided is not None:
        _log.info("%s: @%d: %s", report.model, report.version, report.decided.plan.reason)
    if report.note:
        _log.warning("%s: %s", report.model, report.note)
