"""What versions, and bases, have come to on probe sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgecloud.registry.rows import EvaluationRow


class Evaluations(Protocol):
    """Scores that were measured at the centre. Derived data: they may be dropped, and are measured again; no log tells of them.

    A subject is the id of a version, or the commit of a base.
    """

    def put(self, rows: Sequence[EvaluationRow]) -> None:
        """Keep scores, in the place of those of the same subject, probe set and context. All or none."""

    def of(self, subject: int | bytes, probes: bytes | None = None) -> list[EvaluationRow]:
        """Return what is known of one subject, on all probe sets or on the one with this digest, by probe set and context."""

    def matrix(
        self, probes: bytes, subjects: Sequence[int | bytes], context: str | None = None
    ) -> dict[int | bytes, dict[str, EvaluationRow]]:
        """Return what is known of some subjects on a probe set, by context; nothing in the place of what was not scored.

        context: of this one alone; empty: of all rows together. None: of all contexts.
        """

    def missing(self, probes: bytes, subjects: Sequence[int | bytes]) -> list[int | bytes]:
        """Return the subjects that were not scored on a probe set, in their order."""

    def due(self, probes: bytes, model: str, bases: Sequence[bytes], since: int, above: int, limit: int) -> list[int]:
        """Return verified versions that were not scored on a probe set, the newest first.

        model: of this name, any where it is empty; bases: on one of these; since: received then or later; above: with a higher id.
        """

    def probes(self, subject: int | bytes | None = None) -> list[bytes]:
        """Return the digests of the probe sets on which a subject was scored, or any."""

    def drop(self, probes: bytes | None = None) -> int:
        """Forget the scores on a probe set, or all, and return how many there were."""
