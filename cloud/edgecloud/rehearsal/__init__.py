"""Runs a file as a board will, before anyone trusts it to one: in processes of their own, under limits.

Nothing here knows of the registry or of how a graft is made; what it finds out is told, never raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .limited import RehearsalLimits, allow_seconds, how_it_ended, limit_memory

if TYPE_CHECKING:
    from .rehearsing import ModeRun, Rehearsal, StockRun, ran, rehearsed

__all__ = [
    "ModeRun", "Rehearsal", "RehearsalLimits", "StockRun", "allow_seconds", "how_it_ended", "limit_memory", "ran", "rehearsed",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Only when it is asked for: a process that runs models under these limits rehearses none.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import rehearsing

    return getattr(rehearsing, name)


def __dir__() -> list[str]:
    return __all__
