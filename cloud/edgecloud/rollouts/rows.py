"""Rollouts as rows, for lists and notebooks: one a rollout, and one a device in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgecloud.registry import SqliteStore
from edgecloud.registry.rollout_rows import RolloutRow, RolloutTally
from edgecloud.versions.listing import Listing, time_of
from modelwire.deploying.states import FAILED, State
from modelwire.errors import UnknownVersion

from .verbs import follows, why

FAILURES = frozenset(state.value for state in FAILED)
SERVED = frozenset({State.SOAKING.value, State.CONFIRMED.value})
SHORT = 12  # hex digits of a commit
_OF_ROLLOUT = ("rollout", "model", "variant", "state", "reason", "phase", "devices", "served", "failed", "created", "changed", "id")
_OF_DEVICE = (
    "device", "model", "phase", "state", "code", "reason", "back", "rows", "better", "worse", "before", "after", "micros", "micros_before",
    "learned", "bytes", "offered", "changed",
)  # fmt: skip


def rollouts(store: SqliteStore) -> Listing:
    """Return a row a rollout, the oldest first: how many devices serve its variant, and how many tried it and took it back."""
    out = []
    for row in store.rollouts.all():
        one = summary(store, row)
        said = {name: one[name] for name in _OF_ROLLOUT if name in one}
        times = {"created": time_of(row.created_at), "changed": time_of(row.changed_at), "id": row.rollout.hex()}
        out.append({name: (said | times)[name] for name in _OF_ROLLOUT})
    return Listing(out, _OF_ROLLOUT)


def devices(store: SqliteStore, name: str) -> Listing:
    """Return a row a device of one rollout, by phase: how far it has come, and what it measured. Raises UnknownVersion.

    before and after are accuracies, or mean losses where a model has none; nan where the device told none.
    """
    row = store.rollouts.named(name)
    if row is None:
        raise UnknownVersion(name=f"rollout:{name}", fix="edgecloud rollouts lists them")
    return Listing(
        (
            {"device": a.device, "model": a.model, "phase": a.phase + 1, "state": a.state, "code": a.code, "reason": a.reason,
             "back": a.back, "rows": a.rows, "better": a.better, "worse": a.worse, "before": _figure(a.before), "after": _figure(a.after),
             "micros": a.micros, "micros_before": a.micros_before, "learned": a.learned, "bytes": a.bytes,
             "offered": time_of(a.offered_at or None), "changed": time_of(a.changed_at)}
            for a in store.rollouts.assignments(row.id)
        ),
        _OF_DEVICE,
    )  # fmt: skip


def summary(store: SqliteStore, row: RolloutRow) -> dict[str, Any]:
    """Return a rollout in one row, its phase counted from 1."""
    tallies = store.rollouts.tallies(row.id)
    return {
        "rollout": row.name, "id": row.rollout, "model": row.model, "variant": variant_name(store, row.variant), "commit": row.variant,
        "state": row.state, "phase": row.phase + 1, "devices": sum(one.devices for one in tallies), "served": served(tallies),
        "failed": sum(one.devices for one in tallies if one.state in FAILURES), "reason": why(row), "follows": follows(row),
        "created_at": row.created_at, "changed_at": row.changed_at,
    }  # fmt: skip


def served(tallies: Sequence[RolloutTally]) -> int:
    """Return how many devices have been served the variant and are not back."""
    return sum(one.devices for one in tallies if one.state in SERVED and not one.back)


def variant_name(store: SqliteStore, commit: bytes) -> str:
    """Return what a variant is called, or the beginning of its commit."""
    row = store.rollouts.variant(commit)
    return row.name if row is not None else commit.hex()[:SHORT]


def _figure(value: float | None) -> float:
    return math.nan if value is None else value
