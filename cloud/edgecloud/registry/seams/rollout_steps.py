"""What a director asks of the registry at each of its steps: each answer is bounded, however many devices a rollout has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from edgecloud.registry.rollout_rows import AssignmentRow, RolloutCandidate


class RolloutSteps(Protocol):
    """Questions about rollouts under way; nothing is written here."""

    def candidates(self, id: int, after: int, span: int) -> list[RolloutCandidate]:
        """Return who may be taken into a rollout, of the lineages whose ids are the next `span` ones behind `after`, by id.

        They have its model and another base than its variant, have said hello, and their device has a key that speaks; they are not
        frozen, not in this rollout, and not in another one that is under way.
        """

    def last_lineage(self) -> int:
        """Return the highest id of a lineage; 0 where there is none."""

    def base_of(self, lineage: int) -> bytes:
        """Return the commit of the base that a model's head is on; empty where it has none."""

    def assigned_count(self, id: int, phase: int | None = None) -> int:
        """Return how many models are in a rollout, or in one phase of it."""

    def frozen_count(self, id: int, phase: int) -> int:
        """Return how many models of a phase are frozen and have said nothing of the variant, offered to them or not."""

    def offers_between(self, id: int, since: int, until: int, most: int) -> int:
        """Return how many desireds of a rollout were sealed after a time and until another; of the newest, so many at most."""

    def scores(self, id: int, phase: int, limit: int) -> list[AssignmentRow]:
        """Return models of a phase that judged the variant on held-out samples, in the order in which they came."""

    def under_way(
        self, id: int, states: Iterable[str], *, back: bool, before: int, after: int = 0, limit: int
    ) -> list[AssignmentRow]:  # fmt: skip
        """Return models in some states, on the way back or not, whose newest desired is of this rollout and was sealed before a time.

        They come by lineage, those behind `after`.
        """
