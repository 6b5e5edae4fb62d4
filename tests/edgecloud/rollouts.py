"""Sealed words about deployments for tests: variants, plans, decisions, what devices are to run, and their reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgecloud.registry import DesiredRow, RolloutRow, SqliteStore, VariantRow
from modelwire.deploying.plans import RolloutDecision, RolloutGates, RolloutPhase, RolloutPlan, RolloutVerb, seal_decision, seal_plan
from modelwire.deploying.reports import DeviceFigures
from modelwire.deploying.terms import DeployTerms
from modelwire.deploying.variants import Variant, statement
from modelwire.update.manifest import Manifest
from modelwire.wire.records import Desired, Report, encode
from modelwire.wire.signing import PrivateKey, Signer
from tests.edgecloud.device import Base
from tests.keys import COMMAND, DIRECTOR, FLEET_ID, ROOT

FLEET, MODEL = "orchard", "digits"
ID = bytes(range(16))


def plan(**fields: Any) -> RolloutPlan:
    """Return a plan for the whole fleet in one phase; fields: what is otherwise."""
    usual = RolloutPlan(
        FLEET, MODEL, ID, "spring", bytes(32), (), "", (), False, (RolloutPhase(share=10_000),), RolloutGates(), 60, 0, 0, (0, 0),
        "auto", False, (), 3600, 0, "anna", 5,
    )  # fmt: skip
    return replace(usual, **fields)


def sealed_plan(said: RolloutPlan, key: Signer = COMMAND, fleet: bytes = FLEET_ID) -> bytes:
    return seal_plan(said, key, fleet)


def decision(verb: RolloutVerb = RolloutVerb.START, number: int = 1, *, rollout: bytes = ID, key: Signer = COMMAND) -> bytes:
    return seal_decision(RolloutDecision(FLEET, rollout, number, verb, "anna", "", 6), key, FLEET_ID)


def variant(manifest: Manifest, *, number: int = 1, model: str = MODEL, key: Signer = ROOT, **fields: Any) -> bytes:
    """Return the statement of a base."""
    return statement(variant_of(manifest, number=number, model=model, **fields), key, FLEET_ID)


def variant_of(manifest: Manifest, *, number: int = 1, model: str = MODEL, **fields: Any) -> Variant:
    m = manifest
    said = Variant(FLEET, model, "night", m.commit, m.file_sha256, m.file_size, m.file_tree, m.schema.id, m.all_exact, "", 0, (), 5, number)
    return replace(said, **fields)


def desired(
    variant: bytes, number: int = 1, *, device: str = "pi-7", model: str = MODEL, expiry: int = 1 << 40, phase: int = 0,
    terms: DeployTerms | None = None, key: Signer = DIRECTOR, at: int = 7,
) -> bytes:  # fmt: skip
    """Return what a device is to run, as the director seals it. variant: commit."""
    said = terms if terms is not None else DeployTerms(ID, b"statement")
    return encode(Desired(FLEET, device, model, at, number, expiry, variant, 100, phase, more=said.as_map()), key, FLEET_ID)


def report(
    state: str, variant: bytes, number: int = 1, *, device: str = "pi-7", model: str = MODEL, figures: DeviceFigures | None = None,
    **fields: Any,
) -> Report:  # fmt: skip
    """Return what a device says."""
    more = figures.as_map() if figures is not None else {}
    said = Report(FLEET, device, model, 8, number, variant, state, 0, "", 0, None, None, "", more=more)
    return replace(said, **fields)


def signed(said: Report, key: PrivateKey) -> bytes:
    return encode(said, key, FLEET_ID)


def deploy(store: SqliteStore, base: Base, *, rollout: bytes = ID, name: str = "spring", named: tuple[str, ...] = ()) -> RolloutRow:
    """Keep a rollout of a registry's base to all of its models with all that is sealed about it, as operator and director do.

    named: devices that its plan names.
    """
    rollouts, lineages = store.rollouts, store.lineages.all()
    number = max((v.number for v in rollouts.variants(MODEL)), default=0) + 1
    commit = base.manifest.commit
    said = plan(rollout=rollout, name=name, variant=commit, devices=named)
    with store.transaction():
        vouched = variant(base.manifest, number=number)
        rollouts.add_variant(VariantRow(commit, MODEL, number, "night", vouched, 5))
        row = rollouts.add(sealed_plan(said), said, 5)
        rollouts.decide(row.id, 1, decision(rollout=rollout), 6)
        rollouts.assign(row.id, [lineage.id for lineage in lineages], 0, 6)
        for lineage in lineages:
            newest = rollouts.newest_desired(lineage.id)
            one = 1 if newest is None else newest.number + 1
            terms = DeployTerms(rollout, vouched)
            record = desired(commit, one, device=lineage.device, model=lineage.model, terms=terms)
            rollouts.put_desired(DesiredRow(lineage.id, one, row.id, commit, record, 1 << 40, 7))
            told = report("fetching", commit, one, device=lineage.device, model=lineage.model)
            rollouts.take_report(lineage.id, told, None, f"report of {lineage.device}".encode(), 8)
        return rollouts.move(row.id, state="running", now=6)
