"""Looks at the memory of this process, and of those that work for it, while a round trains."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.board.budget import mib
from edgeagent.board.sensors import Sensors
from modelwire.errors import OverBudget

EVERY = 0.05  # seconds of training between two looks


@dataclass(slots=True)
class MemoryWatch:
    """One round's watch."""

    model: str
    mode: str
    limit: int  # bytes; 0: nothing is looked at
    sensors: Sensors
    most: int = 0  # bytes that were seen
    looked: float = float("-inf")  # monotonic seconds

    def look(self, now: float) -> None:
        """Raise OverBudget when there is a limit and the memory is above it. now: monotonic seconds."""
        if not self.limit or now - self.looked < EVERY:
            return
        self.looked = now
        self.most = max(self.most, held := self.sensors.together())
        if held > self.limit:
            raise OverBudget(model=self.model, mode=self.mode, took=f"{mib(held)} MiB", budget=f"{mib(self.limit)} MiB")
