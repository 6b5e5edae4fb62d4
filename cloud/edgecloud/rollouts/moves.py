"""Where a decision leads a rollout from the state that it is in, and where a gate does. Pure: rows in, moves out.

A rollout's reason begins with the word of who moved it, a verb or a gate, and ends with the number of the newest decision that was heeded:
what was heeded is not heeded again, wherever a director was killed.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecloud.registry import RolloutRow
from edgecloud.registry.rollout_rows import ABORTED, APPROVED, DONE, DRAFT, HALTED, PAUSED, ROLLING_BACK, RUNNING, SOAKING
from modelwire.deploying.plans import RolloutVerb

from .gates import GateName
from .orders import RolloutOrders, SealedOrder
from .verbs import heeded as heeded
from .verbs import why as why

FOLLOWS, WAIVED, SEAL = "follows", "waived", "seal"  # first words of reasons, beside the verbs and the gates
UNDER_WAY = (RUNNING, SOAKING, PAUSED)
REASON_MAX = 2_000


@dataclass(frozen=True, slots=True)
class RolloutMove:
    """How a rollout goes on; what is None stays."""

    state: str | None = None
    phase: int | None = None
    reason: str | None = None  # None: nothing changes but what is heeded
    note: str = ""  # why a decision leads nowhere


def word(row: RolloutRow) -> str:
    """Return who moved a rollout last: a verb, a gate, or one of the words above."""
    return row.reason.partition(":")[0]


def marked(reason: str, number: int) -> str:
    """Return a reason with the number of what was heeded."""
    return f"{reason[:REASON_MAX]} (decisions: {number})"


def by_order(row: RolloutRow, orders: RolloutOrders, one: SealedOrder, *, offered: int, served: int) -> RolloutMove:
    """Return where a decision leads. offered, served: models that were offered the variant, and that serve it."""
    verb, state = one.said.verb, row.state
    reason = f"{verb.value}: {one.said.by}" + (f", {one.said.reason}" if one.said.reason else "")
    if verb is RolloutVerb.APPROVE and state == DRAFT:
        return RolloutMove(APPROVED if orders.approved(one.said.number) else None, None, reason)
    if verb is RolloutVerb.START and state in (DRAFT, APPROVED):
        if not orders.approved(one.said.number):
            return RolloutMove(note=f"it was started by {one.said.by} before it was approved")
        return RolloutMove(RUNNING, 0, reason)
    if verb is RolloutVerb.PAUSE and state in (RUNNING, SOAKING):
        return RolloutMove(PAUSED, None, reason)
    if verb is RolloutVerb.RESUME and state == PAUSED:
        return _resumed(row, orders, reason)
    if verb is RolloutVerb.HALT and state in UNDER_WAY:
        return RolloutMove(HALTED, None, reason)
    if verb is RolloutVerb.ROLL_BACK and state in (*UNDER_WAY, HALTED, DONE):
        return RolloutMove(ROLLING_BACK, None, reason)
    if verb is RolloutVerb.ABORT and state in (DRAFT, APPROVED, *UNDER_WAY) and not served:
        return RolloutMove(ROLLING_BACK if offered else ABORTED, None, reason)
    return RolloutMove(note=f"decision {one.said.number}, {verb.value}, leads nowhere from {state}")


def next_phase(row: RolloutRow, orders: RolloutOrders, reason: str) -> RolloutMove:
    """Return where a phase leads that has passed its gates: to the next one, or to the end."""
    assert orders.plan is not None
    if row.phase + 1 < len(orders.plan.phases):
        return RolloutMove(RUNNING, row.phase + 1, reason)
    if orders.plan.follow:
        return RolloutMove(RUNNING, None, f"{FOLLOWS}: {reason}; devices that come to fit it are offered it")
    return RolloutMove(DONE, None, reason)


def _resumed(row: RolloutRow, orders: RolloutOrders, reason: str) -> RolloutMove:
    """Return where a pause leads that a person ends: who resumes against a gate's doubt has heard it, and takes it on himself."""
    if orders.plan is None:
        return RolloutMove(note="it can't be resumed: its plan is sealed by no key that speaks")
    if word(row) == GateName.QUALITY.value:
        return next_phase(row, orders, reason)
    if word(row) == GateName.SUCCESS.value:
        return RolloutMove(SOAKING, None, f"{WAIVED}: {reason}")
    return RolloutMove(RUNNING, None, reason)
