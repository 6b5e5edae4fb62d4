"""What operators have sealed about a rollout: its plan and what was decided since, each by a command key that speaks now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgecloud.registry import DecisionRow, RolloutRow, SqliteStore, VariantRow
from modelwire.deploying import plans, variants
from modelwire.deploying.plans import RolloutDecision, RolloutPlan, RolloutVerb
from modelwire.deploying.variants import Variant
from modelwire.errors import BadSignature, Malformed, ModelWireError
from modelwire.wire.signing import Role
from modelwire.wire.trust import Trusted

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class SealedOrder:
    """A decision whose seal holds, and the key that made it."""

    said: RolloutDecision
    key: bytes


@dataclass(frozen=True, slots=True)
class RolloutOrders:
    """A rollout's plan and decisions, as far as their seals hold."""

    plan: RolloutPlan | None  # None: its seal does not hold, or it is gone; then nobody is offered anything
    key: bytes  # that sealed the plan
    orders: tuple[SealedOrder, ...]  # by number
    newest: int  # number of the newest decision, whether its seal holds or not; 0: none
    faults: tuple[str, ...]  # what does not hold, and why

    def approved(self, until: int) -> bool:
        """Return whether as many others as the plan asks for have approved it, by decisions up to a number: a key is a person."""
        said = {one.key for one in self.orders if one.said.verb is RolloutVerb.APPROVE and one.said.number <= until}
        return self.plan is not None and len(said - {self.key}) >= self.plan.approvals

    def lets_run(self, *, served: bool) -> bool:
        """Return whether what was sealed lets it be offered to devices, whatever its row says. served: whether one serves it already."""
        on = False
        for one in self.orders:
            verb = one.said.verb
            if verb in (RolloutVerb.START, RolloutVerb.RESUME):
                on = on or self.approved(one.said.number)
            elif verb in (RolloutVerb.PAUSE, RolloutVerb.HALT, RolloutVerb.ROLL_BACK) or (verb is RolloutVerb.ABORT and not served):
                on = False
        return on


def orders_of(store: SqliteStore, held: Trusted, row: RolloutRow, now: int) -> RolloutOrders:
    """Return what was sealed about a rollout. now: by the centre's clock; a key that was replaced speaks through its overlap."""
    publics = held.keys(Role.COMMAND, now)
    plan, key, faults = None, b"", list[str]()
    try:
        if not row.plan:
            raise Malformed(what="plan", reason="a device that it names was erased, and the plan with it")
        plan, key = _proven(lambda public: plans.read_plan(row.plan, public, store.identity.id), publics, "plan")
        _require_same(plan, row, store.fleet)
    except ModelWireError as error:
        plan = None
        faults.append(error.message)
    rows, orders = store.rollouts.decisions(row.id), list[SealedOrder]()
    for one in rows:
        try:
            orders.append(_order(store, one, row, publics))
        except ModelWireError as error:
            faults.append(f"decision {one.number}: {error.message}")
    return RolloutOrders(plan, key, tuple(orders), rows[-1].number if rows else 0, tuple(faults))


def variant_in(store: SqliteStore, held: Trusted, plan: RolloutPlan, now: int) -> tuple[Variant, VariantRow]:
    """Return the variant of a plan, as the root key vouches for it. Raises Malformed, BadSignature, WrongFleet."""
    row = store.rollouts.variant(plan.variant)
    if row is None:
        raise Malformed(what="plan", reason=f"no variant {plan.variant.hex()[:12]} was sealed")
    said, _ = _proven(lambda public: variants.read(row.statement, public, store.identity.id), held.keys(Role.ROOT, now), "variant")
    if (said.fleet, said.model, said.commit) != (store.fleet, plan.model, plan.variant):
        raise Malformed(what="variant", reason=f"its statement is about {said.model} {said.commit.hex()[:12]} of {said.fleet}")
    return said, row


def _order(store: SqliteStore, one: DecisionRow, row: RolloutRow, publics: Sequence[bytes]) -> SealedOrder:
    said, key = _proven(lambda public: plans.read_decision(one.statement, public, store.identity.id), publics, "decision")
    if (said.fleet, said.rollout, said.number) != (store.fleet, row.rollout, one.number):
        raise Malformed(what="decision", reason="it is another one than its row says")
    return SealedOrder(said, key)


def _require_same(plan: RolloutPlan, row: RolloutRow, fleet: str) -> None:
    if (plan.fleet, plan.rollout, plan.model, plan.variant) != (fleet, row.rollout, row.model, row.variant):
        raise Malformed(what="plan", reason="it is another one than its row says")


def _proven(read: Callable[[bytes], _Read], publics: Sequence[bytes], what: str) -> tuple[_Read, bytes]:
    """Return what a statement says and the key that sealed it. Raises BadSignature where no key that speaks did."""
    refused = BadSignature(what=what, signer="a key that the fleet's trust record names")
    for public in publics:
        try:
            return read(public), public
        except BadSignature as error:
            refused = error
    raise refused
