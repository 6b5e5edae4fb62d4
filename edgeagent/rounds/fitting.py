"""Snaps a trained round so that its whole update stays within its budget: weights, names, scores and data card."""

from __future__ import annotations

from dataclasses import replace

from edgeagent.samples.cards import LOSSES_ROOM
from edgeagent.settings.tree import ModelSettings
from edgeagent.state.history import Head
from edgeagent.state.lineage import Lineage
from edgeagent.state.outcome import Outcome, metrics
from edgeagent.state.slots import Held
from edgeagent.training import guard
from edgeagent.training import threshold as anomaly
from modelwire.errors import BudgetExhausted
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import Snapped, exactly, snap
from modelwire.tensors import Weights
from modelwire.update.sections import Kind
from modelwire.wire import cbor


def snap_within(
    lineage: Lineage, settings: ModelSettings, head: Head, held: Held, residual: Residual, weights: Weights, outcome: Outcome
) -> tuple[Snapped, Outcome]:
    """Return the snapped round, and its outcome: without its card where there is no room for one.

    The held state has moved; `Snapped.undo` moves it back. Raises BudgetExhausted when even the smallest delta is too large.
    """
    trained = lineage.manifest.schema.flat(weights)
    if lineage.manifest.all_exact:
        return exactly(held.state, trained, residual), outcome
    update = settings.update
    need = overhead(lineage, outcome, ())
    while True:  # which tensors are clamped is known only after the snap, and their list takes room: it rises, so this ends
        try:
            snapped = snap(
                held.state, trained, residual,
                density=update.density, max_bytes=update.max_bytes, held=head.step, widen=head.widen, overhead=need,
            )  # fmt: skip
        except BudgetExhausted:
            if outcome.card is None:
                raise
            outcome = replace(outcome, card=None, untold=True)
            need = overhead(lineage, outcome, ())
            continue
        found = overhead(lineage, outcome, snapped.clamped)
        if found <= need or snapped.kind is Kind.SNAPSHOT:
            return snapped, outcome
        snapped.undo()
        need = found


def overhead(lineage: Lineage, outcome: Outcome, clamped: tuple[int, ...]) -> int:
    """Return the bytes of names and extension, as if there were both scores: a number takes the same room whatever it is."""
    score = guard.Score(0.0, outcome.before.accuracy if outcome.before is not None else None)
    extension = metrics(replace(outcome, before=score, after=score), clamped)
    size = len(lineage.board.device) + len(lineage.name) + len(cbor.encode(extension))
    size += 0 if anomaly.place_of(lineage.manifest) is None else anomaly.BYTES
    return size + (LOSSES_ROOM if outcome.card is not None else 0)
