"""A round under way in the agent's loop, between two looks at the link."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from edgeagent.rounds.opening import Progress
from edgeagent.rounds.round import RoundReport
from edgeagent.state.lineage import Lineage


@dataclass
class Running:
    """A round between two looks at the link. began, said: monotonic seconds of its start and of the last line about it."""

    lineage: Lineage
    steps: Generator[Progress, None, RoundReport | None]  # None: it did not pay
    began: float
    said: float
    pauses: float | None = None  # monotonic seconds since when it waits
    rests: float = 0.0  # monotonic seconds until which it leaves the processor to others
    progress: Progress | None = None
