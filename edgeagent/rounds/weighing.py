"""Lets the planner say which of a round's sealed forms goes, and notes what the round came to for the next decision."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from edgeagent.planning.choosing import PLAN, RoundPlanner, WeighedUpdate, note_round
from edgeagent.state.lineage import Lineage
from edgeagent.state.outcome import Outcome
from modelwire.errors import TooLarge
from modelwire.update.container import SMALLEST, Sealed
from modelwire.wire import cbor

from .opening import UnderWay


def weighed(lineage: Lineage, planner: RoundPlanner | None, forms: list[Sealed], now: float) -> tuple[list[Sealed], WeighedUpdate | None]:
    """Return the forms, the one that goes first and with the decision in its extension; the forms as they were where none decides."""
    if planner is None or not forms:
        return forms, None
    decided = planner.decide({form.header.kind: (len(form.data), _fixed(form)) for form in forms}, now)
    # What waits is sealed as small as it is alone: what all come to together is chosen when they go.
    chosen = [] if decided.hold else [form for form in forms if form.header.kind is decided.kind]
    first = (chosen or forms)[0]
    others = [form for form in forms if form is not first]
    with contextlib.suppress(TooLarge):  # it says as much of itself as any update may: the board alone knows why, then
        first = lineage.with_extension(first, {**first.header.extension, PLAN: decided.note})
    return [first, *others], decided


def sizes(forms: Sequence[Sealed]) -> dict[str, int]:
    """Return the bytes of each form by its kind, each with the decision beside it that the first one carries."""
    note = _note_bytes(forms[0]) if forms else 0
    return {form.header.kind.name.lower(): len(form.data) + (note if i else 0) for i, form in enumerate(forms)}


def note_outcome(lineage: Lineage, under_way: UnderWay, outcome: Outcome, *, memory: int, encode_s: float, before_at: int) -> None:
    """Fold what a round that is kept came to into the figures of its model. before_at: Unix seconds of the version before; 0: none."""
    planner, done = under_way.parent.planner, under_way.course.done
    if planner is None or not done:
        return
    gain = None
    if outcome.before is not None and outcome.after is not None:
        first, last = outcome.before.accuracy, outcome.after.accuracy
        gain = None if first is None or last is None else last - first
    note_round(
        planner.basis, mode=planner.mode, step_s=under_way.journal.spent / done, memory=memory, weights=planner.weights, encode_s=encode_s,
        gain=gain, apart=float(outcome.ended - before_at) if before_at else None, now=outcome.ended,
    )  # fmt: skip


def _fixed(form: Sealed) -> int:
    """Return the bytes of an update that say no weights: names, digests, extension, signature."""
    header = form.header
    return SMALLEST + len(header.device) + len(header.model) + (len(cbor.encode(dict(header.extension))) if header.extension else 0)


def _note_bytes(form: Sealed) -> int:
    """Return the bytes that the decision takes in an update."""
    if PLAN not in form.header.extension:
        return 0
    without = {key: value for key, value in form.header.extension.items() if key != PLAN}
    return len(cbor.encode(dict(form.header.extension))) - (len(cbor.encode(without)) if without else 0)
