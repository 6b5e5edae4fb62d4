"""What may be decided about a rollout in which state, and what follows. Every verb is idempotent; pause, halt and roll back differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from edgecloud.registry.rollout_rows import (
    ABORTED,
    APPROVED,
    DONE,
    DRAFT,
    HALTED,
    PAUSED,
    ROLLED_BACK,
    ROLLING_BACK,
    RUNNING,
    SOAKING,
    DecisionRow,
    RolloutRow,
)
from modelwire.deploying.plans import RolloutVerb
from modelwire.errors import BadArgument

from .statements import SealedDecision, SealedPlan, approvers

_GOING = frozenset({RUNNING, SOAKING})


@dataclass(frozen=True, slots=True)
class VerbRule:
    """One verb: from which states it leads on, in which it has been said already, and what happens next."""

    possible: frozenset[str]
    already: frozenset[str]
    then: str


RULES: Mapping[RolloutVerb, VerbRule] = MappingProxyType({
    RolloutVerb.APPROVE: VerbRule(frozenset({DRAFT}), frozenset({APPROVED}), "it may be started once all approvals are there"),
    RolloutVerb.START: VerbRule(frozenset({DRAFT, APPROVED}), _GOING, "the director offers it to the first phase"),
    RolloutVerb.PAUSE: VerbRule(_GOING, frozenset({PAUSED}), "nobody new is offered it; devices that are under way go on"),
    RolloutVerb.RESUME: VerbRule(frozenset({PAUSED}), _GOING, "the director goes on with the phase that it is in"),
    RolloutVerb.HALT: VerbRule(
        _GOING | {PAUSED}, frozenset({HALTED}), "nobody new is offered it, for good; devices that have it keep it",
    ),
    RolloutVerb.ROLL_BACK: VerbRule(
        _GOING | {PAUSED, HALTED, DONE}, frozenset({ROLLING_BACK, ROLLED_BACK}),
        "devices that have it go back to the base in their passive slot, without a download; the others stay as they are",
    ),
    RolloutVerb.ABORT: VerbRule(
        frozenset({DRAFT, APPROVED, PAUSED}) | _GOING, frozenset({ABORTED}), "it ends as if it had never begun",
    ),
})  # fmt: skip
_LEADS = {
    RolloutVerb.START: RUNNING, RolloutVerb.PAUSE: PAUSED, RolloutVerb.RESUME: RUNNING, RolloutVerb.HALT: HALTED,
    RolloutVerb.ROLL_BACK: ROLLING_BACK, RolloutVerb.ABORT: ABORTED,
}  # fmt: skip
_HEEDED = re.compile(r" \(decisions: ([0-9]{1,19})\)$")
_INSTEAD = {
    PAUSED: "edgecloud rollout resume {name}", HALTED: "edgecloud rollout rollback {name}, or deploy another variant",
    DONE: "edgecloud rollout rollback {name} takes it back", DRAFT: "edgecloud rollout abort {name}",
    APPROVED: "edgecloud rollout abort {name}", RUNNING: "edgecloud rollout halt {name}, or rollback",
    SOAKING: "edgecloud rollout halt {name}, or rollback",
}  # fmt: skip
_ELSE = "edgecloud rollout show {name}; a new rollout is made by edgecloud deploy"


def heeded(row: RolloutRow) -> int:
    """Return the number of the newest decision that the director has come to; 0: none. It notes that behind a rollout's reason."""
    found = _HEEDED.search(row.reason)
    return int(found[1]) if found else 0


def why(row: RolloutRow) -> str:
    """Return a rollout's reason without that note: the word of who moved it, a verb or a gate, and the sentence."""
    return _HEEDED.sub("", row.reason)


def follows(row: RolloutRow) -> bool:
    """Return whether a rollout is through with its phases, and takes in devices that come to fit later."""
    return row.state == RUNNING and row.reason.startswith("follows:")


def standing(row: RolloutRow, decisions: Sequence[SealedDecision]) -> str:
    """Return the state of a rollout as it will be once the director has come to what was decided since."""
    state, last = row.state, heeded(row)
    for one in decisions:
        verb = one.decision.verb
        if one.decision.number > last and verb in _LEADS and state in RULES[verb].possible:
            state = _LEADS[verb]
    return state


def then(row: RolloutRow, verb: RolloutVerb) -> str:
    """Return what follows from a verb, in words."""
    if verb is RolloutVerb.RESUME and row.reason.startswith("quality:"):
        return "the director goes on to the next phase: who resumes against the quality gate takes its doubt on themselves"
    return RULES[verb].then


def wanted(
    row: RolloutRow, plan: SealedPlan, decisions: Sequence[SealedDecision], verb: RolloutVerb, key: bytes, reached: int
) -> bool:  # fmt: skip
    """Return whether a verb is to be sealed; False where it was said before. key: who says it; reached: devices that were served it.

    Raises BadArgument where it leads nowhere from the state that the rollout is in.
    """
    rule, state = RULES[verb], standing(row, decisions)
    if state in rule.already:
        return False
    if state not in rule.possible or (verb is RolloutVerb.ABORT and reached):
        served = f", and {reached} device{'s have' if reached != 1 else ' has'} it" if reached and verb is RolloutVerb.ABORT else ""
        raise BadArgument(
            reason=f"{row.name} is {state}{served}: {verb.value} leads nowhere from there",
            fix=_INSTEAD.get(state, _ELSE).format(name=row.name),
        )
    if verb is RolloutVerb.APPROVE:
        if not plan.plan.approvals:
            raise BadArgument(reason=f"{row.name} asks for nobody's approval", fix=f"edgecloud rollout start {row.name}")
        if key == plan.key:
            raise BadArgument(
                reason=f"this key sealed the plan of {row.name}: who made it can't approve it",
                fix="another person approves with --key of their own command key; edgecloud trust rotate command --public names several",
            )
        return key not in approvers(plan, decisions)
    if verb is RolloutVerb.START and (missing := plan.plan.approvals - len(approvers(plan, decisions))) > 0:
        raise BadArgument(
            reason=f"{row.name} lacks {missing} approval{'s' * (missing != 1)} of {plan.plan.approvals}",
            fix=f"edgecloud rollout approve {row.name} --key FILE, by somebody else than who made it",
        )
    return True


def next_number(rows: Sequence[DecisionRow], at: float) -> int:
    """Return a decision's number: above the last, and above any that was given before a registry was restored. at: Unix seconds."""
    return max(rows[-1].number + 1 if rows else 1, int(at * 1000))
