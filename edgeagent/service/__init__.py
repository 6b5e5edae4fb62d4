"""The agent that runs: it owns time, the link and the order of things, and measures what training takes. Knows no command line."""

from __future__ import annotations

__all__ = ["agent", "befallen", "calibrating", "counting", "disk_wait", "goal", "measuring", "opener"]
