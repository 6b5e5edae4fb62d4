"""Whom a phase of a rollout takes in: those that it names, then others in an order that is chance and yet the same wherever it is asked."""

from __future__ import annotations

from collections.abc import Iterable

from edgecloud.registry import RolloutCandidate, SqliteStore
from modelwire.deploying.plans import RolloutPlan
from modelwire.deploying.variants import Variant

from .choosing import rank, target
from .group import VariantFit, facts_of

SPAN, SPAN_OF_CARDS = 20_000, 500  # lineages that one step looks at; with the facts of their cards


class Enrolment:
    """Finds out who fits a rollout, a span of the fleet at each step: no step takes longer because the fleet is larger."""

    def __init__(self, id: int, plan: RolloutPlan, variant: Variant) -> None:
        self._id, self._plan, self._variant = id, plan, variant
        self._cards = bool(variant.ram or (plan.where and not plan.devices))  # whether a device's facts are asked for
        self.after = 0  # the lineage behind which it goes on
        self.found: list[RolloutCandidate] = []

    @property
    def model(self) -> str:
        return self._plan.model

    def go_on(self, store: SqliteStore) -> bool:
        """Look at a span of the fleet more, and return whether that was the last."""
        fit = VariantFit(store, self._variant, self._plan.learned)  # of this registry: another may be in its place at the next step
        if self._plan.devices:
            self.found = [one for one in self._named(store) if self._fits(store, fit, one)]
            return True
        span = SPAN_OF_CARDS if self._cards else SPAN
        self.found += [one for one in store.rollout_steps.candidates(self._id, self.after, span) if self._fits(store, fit, one)]
        self.after += span
        return self.after >= store.rollout_steps.last_lineage()

    def chosen(self, store: SqliteStore, number: int) -> list[int]:
        """Return the lineages that a phase takes in beside those of earlier ones, in their order."""
        phase, have = self._plan.phases[number], store.rollout_steps.assigned_count(self._id)
        by_name = {one.device: one for one in self.found}
        first = [by_name.pop(name) for name in dict.fromkeys(phase.devices) if name in by_name]
        missing = target(phase, have + len(self.found)) - have - len(first)
        rest = sorted(by_name.values(), key=lambda one: rank(self._plan.rollout, one.device)) if missing > 0 else []
        return [one.lineage for one in (*first, *rest[: max(0, missing)])]

    def _named(self, store: SqliteStore) -> Iterable[RolloutCandidate]:
        for name in self._plan.devices:
            lineage = store.lineages.get(name, self._plan.model)
            if lineage is not None:
                yield from store.rollout_steps.candidates(self._id, lineage.id - 1, 1)

    def _fits(self, store: SqliteStore, fit: VariantFit, one: RolloutCandidate) -> bool:
        """Return whether a device is as the plan asks for, and can run the variant: as it was looked at when the plan was made."""
        told = facts_of(store, store.lineages.by_id(one.lineage)) if self._cards else {}
        if not self._plan.devices and any(told.get(name) != value for name, value in self._plan.where):
            return False
        return fit.unfit(one.base, one.runtime, told) is None
