"""What the log proves of deployments: each sealed word by its own key, each number once, and that the tables hold these and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edgecloud.registry import LineageRow, RolloutRow, SqliteStore, VariantRow
from modelwire.deploying import plans, sealed, variants
from modelwire.deploying.plans import RolloutDecision, RolloutPlan, RolloutVerb
from modelwire.deploying.variants import Variant
from modelwire.errors import BadSignature, Malformed, ModelWireError
from modelwire.wire import cbor, records
from modelwire.wire.records import Desired, expect
from modelwire.wire.signing import Fleet, Role

from .entries import DECISION, DESIRED, PLAN, VARIANT, Decided

SealedWord = Variant | RolloutPlan | RolloutDecision | Desired
_ROLES = {VARIANT: Role.ROOT, PLAN: Role.ACT, DECISION: Role.ACT, DESIRED: Role.DIRECTOR}
Model = tuple[str, str]  # device and model


@dataclass
class SealedDeployments:
    """The numbers that a log has come to: nothing that was sealed counts twice."""

    variants: dict[str, int] = field(default_factory=dict)  # newest, by model
    rollouts: set[bytes] = field(default_factory=set)  # ids
    decisions: dict[bytes, int] = field(default_factory=dict)  # newest, by rollout
    desired: dict[Model, int] = field(default_factory=dict)  # newest

    def take(self, entry: Decided, fleet: Fleet, keys: Callable[[Role], tuple[bytes, ...]]) -> None:
        """Move on by an entry of one of the kinds of deployments. keys: what may have sealed it, by role. Raises WireError."""
        said, what = read(entry.kind, entry.bytes("record"), fleet, keys(_ROLES[entry.kind])), f"entry {entry.number} of the log"
        if isinstance(said, Variant):
            _require_above(said.number, self.variants.get(said.model, 0), f"{what}: variant", f"of {said.model}")
            self.variants[said.model] = said.number
        elif isinstance(said, RolloutPlan):
            if said.rollout in self.rollouts:
                raise Malformed(what=what, reason=f"there is a plan of the rollout {said.rollout.hex()[:8]} before it")
            self.rollouts.add(said.rollout)
        elif isinstance(said, RolloutDecision):
            _require_above(said.number, self.decisions.get(said.rollout, 0), f"{what}: decision", f"about {said.rollout.hex()[:8]}")
            self.decisions[said.rollout] = said.number
        else:
            place = said.device, said.model
            _require_above(said.number, self.desired.get(place, 0), f"{what}: desired", f"for {said.device}/{said.model}")
            self.desired[place] = said.number

    def forget(self, device: str) -> None:
        """Let another board of an erased device's name begin anew."""
        for place in [place for place in self.desired if place[0] == device]:
            del self.desired[place]


def read(kind: str, record: bytes, fleet: Fleet, keys: Sequence[bytes]) -> SealedWord:
    """Return what a sealed word of deployments says. keys: one of them sealed it. Raises WireError."""
    refused: ModelWireError = BadSignature(what=kind, signer=f"the fleet's {_ROLES[kind].name.lower()} key")
    for key in keys:
        try:
            if kind == VARIANT:
                return variants.read(record, key, fleet.id)
            if kind == PLAN:
                return plans.read_plan(record, key, fleet.id)
            if kind == DECISION:
                return plans.read_decision(record, key, fleet.id)
            signed = records.parse(record)
            said = expect(signed, Desired)
            signed.check(fleet.id, Role.DIRECTOR)
            signed.verify(key, fleet.id, "the fleet's director key", Role.DIRECTOR)
            return said
        except BadSignature as error:
            refused = error
    raise refused


@dataclass(frozen=True, slots=True)
class UnprovenWord:
    """What a variant or a decision says of itself, its seal not looked at."""

    kind: str
    record: bytes
    number: int
    at: int  # Unix seconds
    model: str = ""  # of a variant
    commit: bytes = b""
    name: str = ""
    rollout: bytes = b""  # of a decision
    verb: str = ""

    @property
    def starts(self) -> bool:
        """Whether more is served by it than without: a variant, or a decision that lets a rollout go on."""
        return self.kind == VARIANT or self.verb in (RolloutVerb.APPROVE, RolloutVerb.START, RolloutVerb.RESUME)


def unproven(kind: str, record: bytes) -> UnprovenWord:
    """Return what a variant or a decision says. Raises Malformed, TooLarge."""
    v = sealed.content(record, kind)
    return UnprovenWord(
        kind, record, _whole(v.get("number")), _whole(v.get("at")), str(v.get("model", "")), _blob(v.get("commit")), str(v.get("name", "")),
        _blob(v.get("rollout")), str(v.get("verb", "")),
    )  # fmt: skip


def bring(store: SqliteStore, word: UnprovenWord, now: int) -> bool:
    """Keep a word that this registry does not hold, where what it is about is here; return whether it was kept."""
    if word.kind == VARIANT:
        newest = max((row.number for row in store.rollouts.variants(word.model)), default=0)
        if word.number <= newest or store.bases.get(word.commit) is None:
            return False
        store.rollouts.add_variant(VariantRow(word.commit, word.model, word.number, word.name, word.record, now))
        return True
    row = store.rollouts.get(word.rollout)
    if row is None or word.number <= max((one.number for one in store.rollouts.decisions(row.id)), default=0):
        return False
    store.rollouts.decide(row.id, word.number, word.record, now)
    return True


def names_of(record: bytes) -> set[str]:
    """Return the devices that a sealed plan names; none where it is no plan."""
    try:
        values = sealed.content(record, PLAN)
    except ModelWireError:
        return set()
    phases, named = values.get("phases"), values.get("devices")
    lists = [named] + [one[0] for one in (phases if isinstance(phases, list) else []) if isinstance(one, list) and one]
    return {name for one in lists if isinstance(one, list) for name in one if isinstance(name, str)}


@dataclass
class ToldDeployments:
    """What a log says the tables of deployments must hold: the SHA-256 of each sealed word."""

    variants: dict[tuple[str, int], bytes] = field(default_factory=dict)  # by model and number
    plans: dict[bytes, bytes] = field(default_factory=dict)  # by id
    decisions: dict[tuple[bytes, int], bytes] = field(default_factory=dict)
    desired: dict[tuple[str, str, int], bytes] = field(default_factory=dict)

    def note(self, entry: Decided) -> None:
        """Take an entry whose seal was looked at. Raises Malformed for one that can't be read."""
        record = entry.bytes("record")
        digest = hashlib.sha256(record).digest()
        if entry.kind == DESIRED:
            said = expect(records.parse(record), Desired)
            self.desired[said.device, said.model, said.number] = digest
            return
        values = sealed.content(record, entry.kind)
        if entry.kind == VARIANT:
            self.variants[str(values.get("model")), _whole(values.get("number"))] = digest
        elif entry.kind == PLAN:
            self.plans[_blob(values.get("rollout"))] = digest
        else:
            self.decisions[_blob(values.get("rollout")), _whole(values.get("number"))] = digest


def compare(store: SqliteStore, told: ToldDeployments, erased: Sequence[str], *, ever: bool) -> Iterator[str]:
    """Yield what of the tables of deployments is not as the log says.

    erased: devices of which some is still there; ever: whether any device was erased, so that plans may be gone.
    """
    yield from _variants(store, told)
    rollouts = {row.id: row for row in store.rollouts.all()}
    yield from _rollouts(store, told, rollouts, erased, ever=ever)
    kept: set[tuple[str, str, int]] = set()
    for lineage in store.lineages.all():
        if lineage.device not in erased:
            yield from _desired(store, told, rollouts, lineage, kept)
    for device, model, number in told.desired.keys() - kept:
        if device not in erased:
            yield f"desired {number} for {device}/{model} is gone"


def _variants(store: SqliteStore, told: ToldDeployments) -> Iterator[str]:
    kept = {(row.model, row.number): row for row in store.rollouts.variants()}
    for place in sorted(told.variants.keys() | kept.keys()):
        row, name = kept.get(place), f"variant {place[1]} of {place[0]}"
        if row is None:
            yield f"{name} is gone"
        elif told.variants.get(place) != hashlib.sha256(row.statement).digest():
            yield f"{name} is not what the log holds"
        else:
            values = sealed.content(row.statement, VARIANT)
            if (values.get("commit"), values.get("name")) != (row.commit, row.name):
                yield f"the row of {name} says something else than its statement"


def _rollouts(
    store: SqliteStore, told: ToldDeployments, rollouts: dict[int, RolloutRow], erased: Sequence[str], *, ever: bool
) -> Iterator[str]:
    decided: set[tuple[bytes, int]] = set()
    for row in rollouts.values():
        name, plan = f"the rollout {row.name or row.rollout.hex()[:8]}", told.plans.pop(row.rollout, None)
        if row.plan and plan != hashlib.sha256(row.plan).digest():
            if plan is not None or names_of(row.plan).isdisjoint(erased):
                yield f"the plan of {name} is not what the log holds"
        elif row.plan:
            values = sealed.content(row.plan, PLAN)
            if any(values.get(column) != getattr(row, column) for column in ("rollout", "name", "model", "variant")):
                yield f"the row of {name} says something else than its plan"
        elif plan is not None or not ever:
            yield f"the plan of {name} is gone"
        for one in store.rollouts.decisions(row.id):
            decided.add((row.rollout, one.number))
            if told.decisions.get((row.rollout, one.number)) != hashlib.sha256(one.statement).digest():
                yield f"decision {one.number} about {name} is not what the log holds"
    for rollout in told.plans:
        yield f"the rollout {rollout.hex()[:8]} is gone"
    for rollout, number in told.decisions.keys() - decided:
        yield f"decision {number} about the rollout {rollout.hex()[:8]} is gone"


def _desired(
    store: SqliteStore, told: ToldDeployments, rollouts: dict[int, RolloutRow], lineage: LineageRow, kept: set[tuple[str, str, int]]
) -> Iterator[str]:
    for row in store.rollouts.desired(lineage.id):
        place = lineage.device, lineage.model, row.number
        kept.add(place)
        if told.desired.get(place) != hashlib.sha256(row.record).digest():
            yield f"desired {row.number} for {lineage} is not among those that the director sealed: the log does not hold it"
            continue
        said = expect(records.parse(row.record), Desired)
        if (said.variant, said.expiry) != (row.variant, row.expiry) or row.rollout_id not in rollouts:
            yield f"the row of desired {row.number} for {lineage} says something else than its record"


def _require_above(number: int, before: int, what: str, of: str) -> None:
    if number <= before:
        raise Malformed(what=what, reason=f"number {number} {of} comes after {before}: it was entered before, or again")


def _whole(value: cbor.Value) -> int:
    return value if type(value) is int else 0


def _blob(value: cbor.Value) -> bytes:
    return value if isinstance(value, bytes) else b""
