"""Runs a file as a board will, before anyone trusts it to one: in processes of their own, under limits.

Nothing here knows of the registry or of how a graft is made; what it finds out is told, never raised.
"""

from __future__ import annotations

from .limited import RehearsalLimits, allow_seconds, how_it_ended, limit_memory
from .rehearsing import ModeRun, Rehearsal, StockRun, ran, rehearsed

__all__ = [
    "ModeRun", "Rehearsal", "RehearsalLimits", "StockRun", "allow_seconds", "how_it_ended", "limit_memory", "ran", "rehearsed",
]  # fmt: skip
