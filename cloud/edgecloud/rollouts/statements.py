"""What operators sealed about rollouts, read back and proven: variants by the root key, plans and decisions by command keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from edgecloud import keys
from edgecloud.registry import SqliteStore
from edgecloud.registry.rollout_rows import DecisionRow, RolloutRow, VariantRow
from modelwire.deploying import plans, variants
from modelwire.deploying.plans import RolloutDecision, RolloutPlan, RolloutVerb
from modelwire.deploying.variants import Variant
from modelwire.errors import BadSignature, Malformed, WireError
from modelwire.wire import records
from modelwire.wire.records import Trust, expect
from modelwire.wire.signing import KEY_BYTES, Role
from modelwire.wire.trust import Trusted

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class SealedPlan:
    """A plan and the public key that sealed it."""

    plan: RolloutPlan
    key: bytes


@dataclass(frozen=True, slots=True)
class SealedDecision:
    """A decision and the public key that sealed it."""

    decision: RolloutDecision
    key: bytes


def variant_of(store: SqliteStore, row: VariantRow, *, now: bool = True) -> Variant:
    """Return what the root key says of a variant. now: by the key that speaks now; else any that ever did, for a list.

    Raises BadSignature where another key sealed it, and Malformed where it is about another variant than its row says.
    """
    publics = keys.named(_held(store), Role.ROOT) if now else _ever(store, "root")
    v = _proven(lambda key: variants.read(row.statement, key, store.identity.id), publics)[0]
    if (v.fleet, v.model, v.number, v.name, v.commit) != (store.fleet, row.model, row.number, row.name, row.commit):
        raise Malformed(what="variant", reason=f"its statement is about {v.name} of {v.model}, and not about {row.name}")
    return v


def plan_of(store: SqliteStore, row: RolloutRow) -> SealedPlan:
    """Return the plan of a rollout, by any command key that ever spoke.

    Raises BadSignature, and Malformed where it is the plan of another rollout than its row says.
    """
    found = SealedPlan(*_proven(lambda key: plans.read_plan(row.plan, key, store.identity.id), _ever(store, "command")))
    p = found.plan
    if (p.fleet, p.rollout, p.name, p.model, p.variant) != (store.fleet, row.rollout, row.name, row.model, row.variant):
        raise Malformed(what="plan", reason=f"it is the plan of {p.name}, and not of {row.name}")
    return found


def decisions_of(store: SqliteStore, row: RolloutRow) -> list[SealedDecision]:
    """Return what was decided about a rollout, oldest first, by any command key that ever spoke; what no key of the fleet sealed, or
    sealed about another rollout, is none.
    """
    publics, out = _ever(store, "command"), list[SealedDecision]()
    for one in store.rollouts.decisions(row.id):
        try:
            found = SealedDecision(*_proven(partial(_read_decision, store, one), publics))
        except WireError:
            continue
        d = found.decision
        if (d.fleet, d.rollout, d.number) == (store.fleet, row.rollout, one.number):
            out.append(found)
    return out


def unproven(store: SqliteStore, row: RolloutRow) -> list[int]:
    """Return the numbers of rows that stand among a rollout's decisions and are none: the director passes over them, too."""
    good = {one.decision.number for one in decisions_of(store, row)}
    return [one.number for one in store.rollouts.decisions(row.id) if one.number not in good]


def _read_decision(store: SqliteStore, one: DecisionRow, key: bytes) -> RolloutDecision:
    return plans.read_decision(one.statement, key, store.identity.id)


def approvers(plan: SealedPlan, decisions: Iterable[SealedDecision]) -> set[bytes]:
    """Return the keys that approved a plan: each counts once, and that of who made it does not."""
    return {one.key for one in decisions if one.decision.verb is RolloutVerb.APPROVE} - {plan.key}


def _held(store: SqliteStore) -> Trusted:
    return keys.trusted(store.identity, [row.record for row in store.trusts.all()])


def _ever(store: SqliteStore, word: str) -> list[bytes]:
    """Return the public keys that trust records named, the newest first."""
    _held(store)  # the records are those that the root key signed, one after the other
    out = dict[bytes, None]()
    for row in reversed(store.trusts.all()):
        named = getattr(expect(records.parse(row.record), Trust), word)
        out.update(dict.fromkeys(named[i : i + KEY_BYTES] for i in range(0, len(named), KEY_BYTES)))
    if word == "root":
        out.setdefault(store.identity.root)
    return list(out)


def _proven(read: Callable[[bytes], _Read], publics: Iterable[bytes]) -> tuple[_Read, bytes]:
    """Return what a statement says, and which of these keys sealed it. Raises BadSignature where none did."""
    refused: BadSignature | None = None
    for key in publics:
        try:
            return read(key), key
        except BadSignature as error:
            refused = error
    assert refused is not None  # a trust record names a key of each role
    raise refused
