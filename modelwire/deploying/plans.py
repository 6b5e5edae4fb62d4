"""Plans of rollouts, and what is decided about them: sealed by the operator's command key for the registry, never sent to a board.

The director acts on nothing else. A statement is an act: what moves a rollout is a number that rises within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from modelwire.errors import Malformed
from modelwire.names import check_name, check_own_name
from modelwire.wire import cbor, signing
from modelwire.wire.signing import Role

from .sealed import Reader, opened, seal
from .terms import SOAK_MAX, URL_MAX, URLS_MAX, Learned, is_address

PLAN_MAGIC, DECISION_MAGIC = b"\x89MWO", b"\x89MWQ"  # MWP is that of a part
PHASES_MAX, DEVICES_MAX, WHERE_MAX = 16, 1000, 16
WHOLE = 10_000  # ten-thousandths: all
ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class RolloutPhase:
    """How far a rollout goes before it is looked at again: to devices by name, to a number, to a share of all; to all of these."""

    devices: tuple[str, ...] = ()  # these first
    count: int = 0  # up to so many devices in all, those of earlier phases included; 0: not by number
    share: int = 0  # up to so many ten-thousandths of the group, those of earlier phases included; 0: not by share
    soak: int = 0  # seconds that each is served the variant before the next phase; 0: the plan's


@dataclass(frozen=True, slots=True)
class RolloutGates:
    """When a phase is left for the next one, and when a rollout is halted."""

    success: int = 9_000  # ten-thousandths of a phase that must be soaking or confirmed before the next one
    error: int = 1_000  # ten-thousandths of those that were tried that may have failed
    error_least: int = 3  # failures below which nothing is halted; one is enough where the phase has fewer devices than this
    margin: int = 200  # ten-thousandths of accuracy that the variant may lose, paired, over the phase
    surely: int = 1_000  # a fall is sure when chance alone makes it once in so many phases, however often one looks
    patience: int = 0  # seconds after which a phase with too few reports is paused; 0: it waits


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """One rollout, as an operator sealed it. It never changes; what is decided later are decisions."""

    fleet: str
    model: str
    rollout: bytes  # id, 16 bytes that no other plan has
    name: str  # for people
    variant: bytes  # commit of the variant to bring
    devices: tuple[str, ...]  # whom it is for, by name; empty: by cohort or `where`
    cohort: str  # or a cohort's name in words, resolved when the plan was made: then `devices` lists it; empty: none
    where: tuple[tuple[str, str], ...]  # or facts that a device's data cards say, all of them; empty with no devices: the whole fleet
    follow: bool  # whether devices that come to fit later follow, in the last phase
    phases: tuple[RolloutPhase, ...]
    gates: RolloutGates
    soak: int  # seconds
    rate: int  # devices a minute that are offered it at most; 0: no bound
    jitter: int  # seconds over which the offers of one step are spread by chance
    window: tuple[int, int]  # seconds of the day (UTC): offered outside, it is served when they begin, or later; (0, 0): always
    learned: str
    consent: bool
    urls: tuple[str, ...]
    expiry: int  # seconds that a desired is good for
    approvals: int  # persons beside the one who made it that must approve; their key ids are told apart
    made_by: str  # for people
    at: int  # Unix seconds


class RolloutVerb(str, Enum):
    """What may be decided about a rollout. Each is idempotent: said again it changes nothing."""

    APPROVE = "approve"
    START = "start"
    PAUSE = "pause"  # nobody new; those under way go on
    RESUME = "resume"
    HALT = "halt"  # nobody new, for good; those who have it keep it
    ROLL_BACK = "roll back"  # halt, and those who have it go back to what lies in their passive slot
    ABORT = "abort"  # before anybody has it: it ends as if it had never begun


@dataclass(frozen=True, slots=True)
class RolloutDecision:
    """What was decided about a rollout, by whom."""

    fleet: str
    rollout: bytes
    number: int  # rises within the rollout
    verb: RolloutVerb
    by: str  # for people
    reason: str
    at: int


def seal_plan(plan: RolloutPlan, key: signing.Signer, fleet: bytes) -> bytes:
    """Return the plan as the command key seals it. Raises Malformed for one that no reader would take, TooLarge."""
    _check_plan(plan)
    g = plan.gates
    values: dict[str, cbor.Value] = {
        "fleet": plan.fleet, "model": plan.model, "rollout": plan.rollout, "name": plan.name, "variant": plan.variant,
        "devices": list(plan.devices), "cohort": plan.cohort, "where": [list(pair) for pair in plan.where], "follow": plan.follow,
        "phases": [[list(p.devices), p.count, p.share, p.soak] for p in plan.phases],
        "gates": [g.success, g.error, g.error_least, g.margin, g.surely, g.patience],
        "soak": plan.soak, "rate": plan.rate, "jitter": plan.jitter, "window": list(plan.window), "learned": plan.learned,
        "consent": plan.consent, "urls": list(plan.urls), "expiry": plan.expiry, "approvals": plan.approvals, "made_by": plan.made_by,
        "at": plan.at,
    }  # fmt: skip
    sealed = seal(PLAN_MAGIC, values, key, Role.ACT, fleet)
    read_plan(sealed, key.public, fleet)
    return sealed


def read_plan(data: bytes, command: bytes, fleet: bytes) -> RolloutPlan:
    """Return the plan that the command key `command` sealed in the fleet with this id. Raises as `sealed.opened`, and Malformed."""
    what = "plan"
    values, _ = opened(data, PLAN_MAGIC, what, command, Role.ACT, fleet, "the operator's command key")
    take = Reader(values, what)
    phases = take.each("phases", PHASES_MAX, _is_phase, "phases")
    gates = take.each("gates", 6, _is_whole, "whole numbers")
    if len(gates) != 6:
        raise Malformed(what=what, reason="its gates are not six numbers")
    day = take.each("window", 2, _is_whole, "whole numbers")
    if len(day) != 2:
        raise Malformed(what=what, reason="its window is not two seconds of the day")
    window = int(str(day[0])), int(str(day[1]))
    plan = RolloutPlan(
        take.text("fleet"), take.text("model"), take.exactly("rollout", ID_BYTES), take.text("name", 64), take.exactly("variant", 32),
        tuple(str(d) for d in take.each("devices", DEVICES_MAX, _is_text, "names of devices")), take.text("cohort", 200),
        tuple((str(k), str(v)) for k, v in (p for p in take.each("where", WHERE_MAX, _is_pair, "facts") if isinstance(p, list))),
        take.yes("follow"), tuple(_phase(p) for p in phases), RolloutGates(*(int(str(n)) for n in gates)), take.whole("soak", 0, SOAK_MAX),
        take.whole("rate", 0, 1_000_000), take.whole("jitter", 0, 86_400), window,
        take.text("learned", 8), take.yes("consent"), tuple(str(u) for u in take.each("urls", URLS_MAX, _is_text, "addresses")),
        take.whole("expiry", 1, SOAK_MAX), take.whole("approvals", 0, 8), take.text("made_by", 64), take.whole("at"),
    )  # fmt: skip
    take.end()
    _check_plan(plan)
    return plan


def seal_decision(decision: RolloutDecision, key: signing.Signer, fleet: bytes) -> bytes:
    """Return a decision as the command key seals it. Raises Malformed for one that no reader would take, TooLarge."""
    values: dict[str, cbor.Value] = {
        "fleet": decision.fleet, "rollout": decision.rollout, "number": decision.number, "verb": decision.verb.value, "by": decision.by,
        "reason": decision.reason, "at": decision.at,
    }  # fmt: skip
    sealed = seal(DECISION_MAGIC, values, key, Role.ACT, fleet)
    read_decision(sealed, key.public, fleet)
    return sealed


def read_decision(data: bytes, command: bytes, fleet: bytes) -> RolloutDecision:
    """Return the decision that the command key sealed in the fleet with this id. Raises as `sealed.opened`, and Malformed."""
    what = "decision"
    values, _ = opened(data, DECISION_MAGIC, what, command, Role.ACT, fleet, "the operator's command key")
    take = Reader(values, what)
    fleet_name, rollout, number = take.text("fleet"), take.exactly("rollout", ID_BYTES), take.whole("number", 1)
    verb = take.text("verb", 16)
    if verb not in [v.value for v in RolloutVerb]:
        raise Malformed(what=what, reason=f"{verb!r} is not one of {', '.join(v.value for v in RolloutVerb)}")
    by, reason, at = take.text("by", 64), take.text("reason", 1000), take.whole("at")
    decision = RolloutDecision(fleet_name, rollout, number, RolloutVerb(verb), by, reason, at)
    take.end()
    return decision


def _check_plan(plan: RolloutPlan) -> None:
    check_own_name("fleet name", plan.fleet)
    check_name("model name", plan.model)
    for device in (*plan.devices, *(d for p in plan.phases for d in p.devices)):
        check_name("device name", device)
    wrong = ""
    if not plan.phases or len(plan.phases) > PHASES_MAX:
        wrong = f"it has not between one and {PHASES_MAX} phases"
    elif any(not 0 <= p.share <= WHOLE for p in plan.phases):
        wrong = "a phase's share is above all"
    elif any(p.soak > SOAK_MAX for p in plan.phases):
        wrong = f"a phase soaks for more than {SOAK_MAX} seconds"
    elif not (0 < plan.gates.success <= WHOLE and 0 <= plan.gates.error <= WHOLE and 0 <= plan.gates.margin <= WHOLE):
        wrong = "a gate is out of range"
    elif plan.gates.error_least < 1 or plan.gates.surely < 2:
        wrong = "a gate's least number is out of range"
    elif not all(0 <= s < 86_400 for s in plan.window):
        wrong = "its window is not within a day"
    elif plan.learned not in Learned.WORDS:
        wrong = f"learned is none of {', '.join(Learned.WORDS)}"
    elif not all(is_address(u) for u in plan.urls):
        wrong = f"an address does not begin with http:// or https://, or is not of at most {URL_MAX} printable ASCII characters"
    if wrong:
        raise Malformed(what="plan", reason=wrong)


def _is_whole(value: cbor.Value) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_text(value: cbor.Value) -> bool:
    return isinstance(value, str) and len(value) <= URL_MAX


def _is_pair(value: cbor.Value) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) and len(v) <= 200 for v in value)


def _is_phase(value: cbor.Value) -> bool:
    if not isinstance(value, list) or len(value) != 4 or not isinstance(value[0], list):
        return False
    return len(value[0]) <= DEVICES_MAX and all(_is_text(d) for d in value[0]) and all(_is_whole(n) for n in value[1:])


def _phase(value: cbor.Value) -> RolloutPhase:
    assert isinstance(value, list) and isinstance(value[0], list)
    count, share, soak = (int(str(n)) for n in value[1:])
    return RolloutPhase(tuple(str(d) for d in value[0]), count, share, soak)
